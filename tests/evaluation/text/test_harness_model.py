import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from codec.io.errors import UserError
from evaluation.cache import Cache
from tests.evaluation.text.conftest import CONTEXT, TEXTS

pytest.importorskip("lm_eval", reason="needs lm-eval: pip install 'uniaudio[text]'")

from lm_eval.api.instance import Instance  # noqa: E402

from evaluation.text.harness_model import HarnessModel  # noqa: E402


def requests(kind, *arguments):
    return [Instance(kind, {}, one, i, ("a task", i, 1)) for i, one in enumerate(arguments)]


@pytest.fixture(params=["plain", "ours"])
def lm(request, tmp_path):
    return HarnessModel(request.getfixturevalue(request.param), Cache(tmp_path / "cache"))


@pytest.fixture(scope="module")
def nats(text_folder):
    """Of a sequence of ids, the log-likelihood of each but the first, as transformers computes it."""
    model = AutoModelForCausalLM.from_pretrained(text_folder).eval()

    def of(ids):
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        return logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]

    return of


def test_log_likelihoods_are_those_of_transformers(lm, nats):
    tokenizer = lm.model.tokenizer
    pairs = [("the red", " bird sings"), ("", "a slow piano"), ("what is the answer? ", "one")]
    made = lm.loglikelihood(requests("loglikelihood", *pairs))
    for (context, continuation), (found, _) in zip(pairs, made, strict=True):
        whole = [tokenizer.bos, *tokenizer.encode(context + continuation)]
        given = 1 + len(tokenizer.encode(context.rstrip()))
        assert found == pytest.approx(nats(whole)[given - 1 :].sum().item(), abs=1e-4)


def test_what_greedy_decoding_says_is_greedy(lm):
    context = "the red bird"
    ids = lm.model.write([lm.tok_encode(context)], 3)[0][0]
    (_, right), (_, wrong) = lm._loglikelihood_tokens(
        [(("", ""), lm.tok_encode(context), ids), (("", ""), lm.tok_encode(context), [*ids[:-1], ids[-1] - 1])]
    )
    assert right and not wrong


def test_a_text_longer_than_the_context_is_scored_whole(lm, nats):
    text = " ".join(TEXTS[:8])
    ids = [lm.model.tokenizer.bos, *lm.model.tokenizer.encode(text)]
    assert CONTEXT + 1 < len(ids) < 2 * CONTEXT
    (found, short) = lm.loglikelihood_rolling(requests("loglikelihood_rolling", (text,), (TEXTS[0],)))
    # The first window predicts as many ids as the context holds, the second the rest from the last ids it has room for.
    rest = len(ids) - 1 - CONTEXT
    first, second = nats(ids[: CONTEXT + 1]), nats(ids[-(CONTEXT + 1) :])
    assert found == pytest.approx((first.sum() + second[-rest:].sum()).item(), abs=1e-3)
    assert short == pytest.approx(nats([ids[0], *lm.model.tokenizer.encode(TEXTS[0])]).sum().item(), abs=1e-4)
    assert lm.truncated == 0


def test_a_context_that_is_too_long_loses_its_beginning_and_is_counted(lm, nats):
    context = " ".join(TEXTS[:16])
    ((found, _),) = lm.loglikelihood(requests("loglikelihood", (context, " the bird")))
    ids = [lm.model.tokenizer.bos, *lm.model.tokenizer.encode(context + " the bird")]
    count = len(ids) - 1 - len(lm.model.tokenizer.encode(context))
    assert found == pytest.approx(nats(ids[-(CONTEXT + 1) :])[-count:].sum().item(), abs=1e-4)
    assert lm.truncated == 1


def test_answers_end_before_the_first_stop_string(lm):
    ask = {"until": [], "max_gen_toks": 30, "do_sample": False}
    (free,) = lm.generate_until(requests("generate_until", ("the red", ask)))
    assert len(free) > 6
    stop, later = free[3:5], free[5:7]
    (stopped,) = lm.generate_until(requests("generate_until", ("the red", ask | {"until": [later, stop]})))
    assert stopped == free[: free.index(stop)] and stop not in stopped
    (short,) = lm.generate_until(requests("generate_until", ("the red", ask | {"max_gen_toks": 2})))
    assert free.startswith(short) and len(short) < len(free)


def test_a_long_answer_is_the_same_in_pieces(lm, monkeypatch):
    ask = {"until": ["never said"], "max_gen_toks": 20, "do_sample": False}
    (whole,) = lm._write(requests("generate_until", ("a slow", ask)))
    monkeypatch.setattr("evaluation.text.harness_model.CHUNK", 3)
    assert lm._write(requests("generate_until", ("a slow", ask))) == [whole]


def test_what_was_answered_comes_from_the_cache(lm, monkeypatch):
    asked = requests("loglikelihood", ("the red", " bird"), (" ".join(TEXTS[:16]), " bird"))
    first = lm.loglikelihood(asked)
    again = HarnessModel(lm.model, lm.cache)
    monkeypatch.setattr(lm.model, "logits", None)
    assert again.loglikelihood(asked) == first and again.truncated == lm.truncated == 1
    assert all(math.isfinite(found) for found, _ in first)


def test_what_cannot_be_answered_is_said(lm):
    with pytest.raises(UserError, match="drawn at random"):
        lm.generate_until(requests("generate_until", ("a", {"do_sample": True, "temperature": 1.0})))
    with pytest.raises(UserError, match="has no ids"):
        lm.loglikelihood(requests("loglikelihood", ("the red", "")))
    with pytest.raises(UserError, match=f"more than its context of {CONTEXT}"):
        lm.loglikelihood(requests("loglikelihood", ("the", " ".join(TEXTS[:16]))))
