"""The judge: behind a server that may fail in every way, and in this process."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from codec.io.errors import UserError
from training.rl.llm_judge import JudgeRecipe, load_judge, read_score

PAIRS = [("summary: a bell", "summary: a bell"), ("summary: a bell", "summary: {a bird}")]


class FakeServer(ThreadingHTTPServer):
    """Answers with `reply(request body, number of the request)`: (status, bytes), or nothing for a while."""

    daemon_threads = True

    def __init__(self, reply):
        self.reply, self.seen = reply, []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1/"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, dict(self.headers), body))
        status, content = self.server.reply(body, len(self.server.seen))
        try:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            pass  # the judge has given up

    def log_message(self, *_):
        pass


def completion(text) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@pytest.fixture
def serve():
    servers = []

    def start(reply):
        servers.append(FakeServer(reply))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def judge(server, **changes):
    values = {"kind": "endpoint", "model": "m", "url": server.url, "attempts": 2, "timeout": 20.0} | changes
    return load_judge(JudgeRecipe(**values), torch.device("cpu"))


@pytest.mark.parametrize(
    ("answer", "score"),
    [("8", 0.8), (" 10\n", 1.0), ("Score: 7/10.", 0.7), ("0", 0.0), ("8.", 0.8), ("3 of 10", 0.3)]
    + [(bad, None) for bad in ("", "none", "11", "8.5", "1000", "9" * 5000)],
)
def test_reading_scores(answer, score):
    assert read_score(answer) == score


def test_scores_come_in_the_order_of_the_questions(serve):
    def reply(body, _):
        right = body["messages"][0]["content"].count("summary: a bell") == 2
        time.sleep(0.2 * right)  # the first answer comes last
        return completion("9" if right else "2")

    server = serve(reply)
    assert judge(server).score(PAIRS) == [0.9, 0.2]
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions" and body["model"] == "m" and body["temperature"] == 0
    assert "Authorization" not in headers
    questions = [body["messages"][0]["content"] for _, _, body in server.seen]
    assert any("summary: {a bird}" in question for question in questions)


def test_the_key_comes_from_the_environment(serve, monkeypatch):
    server = serve(lambda *_: completion("1"))
    with pytest.raises(UserError, match="no JUDGE_KEY"):
        monkeypatch.delenv("JUDGE_KEY", raising=False)
        judge(server, key_variable="JUDGE_KEY")
    monkeypatch.setenv("JUDGE_KEY", "secret")
    judge(server, key_variable="JUDGE_KEY").score(PAIRS[:1])
    assert server.seen[0][1]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("text", ["I cannot tell.", None, ""])
def test_an_answer_without_a_score_is_none(serve, text):
    assert judge(serve(lambda *_: completion(text))).score(PAIRS) == [None, None]


def test_a_passing_fault_is_asked_about_again(serve):
    server = serve(lambda _, number: (503, b"busy") if number == 1 else completion("4"))
    assert judge(server).score(PAIRS[:1]) == [0.4] and len(server.seen) == 2


def test_a_judge_that_is_too_slow_is_named(serve):
    def reply(*_):
        time.sleep(6)
        return completion("4")

    server = serve(reply)
    started = time.perf_counter()
    with pytest.raises(UserError, match=r"127.0.0.1.*no answer within 0.2 s.*judge.timeout"):
        judge(server, timeout=0.2).score(PAIRS[:1])
    assert len(server.seen) == 2 and time.perf_counter() - started < 5


@pytest.mark.parametrize("content", [b"<html>", b"{}", b'{"choices": []}', b"[1]", b"\xff\xfe"])
def test_what_is_no_chat_completion_is_named(serve, content):
    server = serve(lambda *_: (200, content))
    with pytest.raises(UserError, match="not a chat completion"):
        judge(server).score(PAIRS[:1])
    assert len(server.seen) == 2


def test_a_refusal_is_not_asked_about_again(serve):
    server = serve(lambda *_: (401, b""))
    with pytest.raises(UserError, match="status 401"):
        judge(server).score(PAIRS[:1])
    assert len(server.seen) == 1


def test_a_server_that_is_not_there_is_named(serve):
    server = serve(lambda *_: completion("4"))
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="the judge failed .* see that the server runs"):
        load_judge(JudgeRecipe(kind="endpoint", model="m", url=url, attempts=1), torch.device("cpu")).score(PAIRS[:1])


@pytest.mark.parametrize("changes", [{"url": ""}, {"url": "ftp://x"}, {"kind": "local", "url": "http://x"}])
def test_recipes_that_make_no_sense(changes):
    with pytest.raises(UserError, match="judge"):
        JudgeRecipe(**({"kind": "endpoint", "model": "m", "url": "http://x"} | changes))


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A tiny language model that has no opinion."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({c: i for i, c in enumerate(["<eos>", *alphabet])}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", bos_token="<eos>")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, **sizes))
    with torch.no_grad():
        model.model.norm.weight.zero_()  # all logits are 0
    folder = tmp_path_factory.mktemp("judge")
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def test_a_local_judge_answers_in_batches(local, monkeypatch):
    found = load_judge(JudgeRecipe(kind="local", model=str(local), parallel=2, precision="fp32"), torch.device("cpu"))
    seven = found._tokenizer.convert_tokens_to_ids("7")
    sizes = []
    forward = found._model.forward

    def biased(*arguments, **named):
        out = forward(*arguments, **named)
        sizes.append(out.logits.shape[0])
        out.logits[..., seven if len(sizes) % 16 == 1 else 0] = 1.0  # a seven, then the end
        return out

    monkeypatch.setattr(found._model, "forward", biased)
    assert found.score([*PAIRS, PAIRS[0]])[:2] == [0.7, 0.7]
    assert set(sizes) == {2, 1}


def test_a_local_judge_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: no judge could be read"):
        load_judge(JudgeRecipe(kind="local", model=str(tmp_path)), torch.device("cpu"))
