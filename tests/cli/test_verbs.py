"""The verbs, run as a person runs them: what they print, what they write, how they fail."""

import io
import sys

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from codec.tokenizer import load_tokenizer
from codec.tokens import AudioTokens
from tests.factories.tokens import both


def test_transcribe_and_describe_print_one_line_per_file(uniaudio, model_folder, tone):
    one = uniaudio("transcribe", tone, "--model", model_folder, "--max-rows", 8)
    assert one.status == 0 and len(one.out.splitlines()) == 1
    two = uniaudio("describe", tone, tone, "--model", model_folder, "--max-rows", 8)
    lines = two.out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(tone)] * 2
    assert lines[0] == lines[1], "the same file gives the same answer at any place in a batch"


def test_tokenize_and_detokenize_keep_the_length(uniaudio, model_folder, tone, tmp_path):
    codec = model_folder / "audio_tokenizer"
    done = uniaudio("tokenize", tone, "--codec", codec, "-o", tmp_path / "t.safetensors")
    assert done.status == 0 and "6 descriptive frames of 8 and 13 structural frames of 8" in done.out
    assert AudioTokens.load(tmp_path / "t.safetensors").num_samples == 24_000
    back = uniaudio("detokenize", tmp_path / "t.safetensors", "--codec", codec, "--steps", 2, "-o", tmp_path / "t.wav")
    assert back.status == 0 and soundfile.info(tmp_path / "t.wav").frames == 24_000


def test_a_person_who_waits_for_tokens_sees_how_far_they_are(uniaudio, model_folder, tone, tmp_path, monkeypatch):
    arguments = "tokenize", tone, "--codec", model_folder / "audio_tokenizer", "-o", tmp_path / "t.safetensors"
    assert "100%" not in uniaudio(*arguments).err  # in a log, nothing
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "100%" in uniaudio(*arguments, "--force").err


def test_tokens_of_another_codec_are_refused_naming_both(uniaudio, model_folder, tmp_path):
    ids = torch.zeros(8, 1, dtype=torch.int64)
    both(ids, ids, 100, "other").save(tmp_path / "t.safetensors")
    done = uniaudio("detokenize", tmp_path / "t.safetensors", "--codec", model_folder / "audio_tokenizer")
    assert done.status == 2 and "other" in done.err and "--codec" in done.err


@pytest.mark.parametrize(("kind", "value"), [(0, 999), (1, 999), (0, -1), (1, -1)])
def test_ids_that_the_codec_has_not_are_refused(uniaudio, model_folder, tone, tmp_path, kind, value):
    codec, path = model_folder / "audio_tokenizer", tmp_path / "t.safetensors"
    assert uniaudio("tokenize", tone, "--codec", codec, "-o", path).status == 0
    tokens = AudioTokens.load(path)
    (tokens["descriptive"], tokens["structural"])[kind][7, 1] = value
    tokens.save(path)
    done = uniaudio("detokenize", path, "--codec", codec, "-o", tmp_path / "t.wav")
    assert done.status == 2 and "t.safetensors" in done.err and f"id {value}" in done.err
    assert not (tmp_path / "t.wav").exists()


def test_corpus_synthesise_show_and_store(uniaudio, model_folder, tmp_path):
    made = uniaudio("corpus", "synthesise", "--out", tmp_path / "corpus", "--small", "--processes", 2)
    assert made.status == 0 and "speech\ttrain" in made.out
    stored = uniaudio(
        "corpus",
        "store",
        tmp_path / "corpus",
        "--codec",
        model_folder / "audio_tokenizer",
        "--out",
        tmp_path / "tokens",
    )
    assert stored.status == 0 and "tokenizer" in stored.out and " clips\t" in stored.out


def test_a_table_with_bad_rows_is_stored_without_them(uniaudio, model_folder, tmp_path):
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * np.sin(np.arange(4000) / 9), 16_000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:900])
    (tmp_path / "t.csv").write_text("file,text\na.wav,one\ncut.wav,two\nb.wav,three\n")
    (tmp_path / "c.yaml").write_text("kind: table\npath: t.csv\n")
    build = ["corpus", "store", tmp_path / "c.yaml", "--codec", model_folder / "audio_tokenizer"]
    done = uniaudio(*build, "--out", tmp_path / "tokens")
    assert done.status == 0 and "\t2 clips\t" in done.out and "cut.wav" in done.err and "2 new, 1 skipped" in done.err
    for option, said in (("--strict", "strict"), ("--max-failures=0.2", "--max-failures")):
        refused = uniaudio(*build, "--out", tmp_path / option.strip("-"), option)
        assert refused.status == 2 and said in refused.err and "cut.wav" in refused.err
    (tmp_path / "t.csv").write_text("file,text\na.wav,one\n")
    refused = uniaudio(*build, "--out", tmp_path / "tokens")
    assert refused.status == 2 and "'b.wav'" in refused.err and "--prune" in refused.err
    assert "\t1 clips\t" in uniaudio(*build, "--out", tmp_path / "tokens", "--prune").out


BAD_SOUNDS = {
    "empty.wav": b"",
    "text.wav": b"this is not sound at all, whatever its name says" * 9,
    "cut.wav": None,
    "none.wav": None,
    "nan.wav": None,
    "nothing.wav": None,
}


@pytest.fixture(scope="module")
def bad_sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name, content in BAD_SOUNDS.items():
        if content is not None:
            (folder / name).write_bytes(content)
    soundfile.write(folder / "whole.wav", np.zeros(16_000), 16_000)
    (folder / "cut.wav").write_bytes((folder / "whole.wav").read_bytes()[:5000])
    soundfile.write(folder / "nan.wav", np.full(8000, np.nan, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(folder / "nothing.wav", np.zeros(0), 16_000)
    return folder


@pytest.mark.parametrize("name", sorted(BAD_SOUNDS))
@pytest.mark.parametrize("verb", ["transcribe", "tokenize"])
def test_bad_sound_gives_one_line_that_names_the_file(uniaudio, model_folder, bad_sounds, verb, name):
    where = ["--model", model_folder] if verb == "transcribe" else ["--codec", model_folder / "audio_tokenizer"]
    done = uniaudio(verb, bad_sounds / name, *where)
    lines = [line for line in done.err.splitlines() if line.startswith("uniaudio:")]
    assert done.status == 2 and len(lines) == 1 and name in lines[0], done.err
    assert "Traceback" not in done.err


def test_eight_channels_and_ten_milliseconds_are_heard(uniaudio, model_folder, tmp_path):
    soundfile.write(tmp_path / "eight.wav", np.random.default_rng(0).normal(0, 0.1, (44_100, 8)), 44_100)
    soundfile.write(tmp_path / "short.wav", np.full(240, 0.1), 24_000)
    for name, seconds in (("eight.wav", "1.00 s"), ("short.wav", "0.01 s")):
        done = uniaudio("tokenize", tmp_path / name, "--codec", model_folder / "audio_tokenizer")
        assert done.status == 0 and seconds in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["transcribe", "x.wav", "--model", "no/such/model"], "no such folder"),
        (["speak", "   "], "text is empty"),
        (["compose", ""], "description is empty"),
        (["tokenize", "x.wav", "--codec", "/no/such/codec"], "no such folder"),
        (["detokenize", "/no/such/tokens"], "no such token file"),
        (["train", "/no/such/recipe.yaml"], "recipe.yaml"),
    ],
)
def test_what_is_missing_is_named_in_one_line(uniaudio, arguments, said):
    done = uniaudio(*arguments)
    assert done.status == 2 and said in done.err and "Traceback" not in done.err


def test_unknown_options_and_verbs_exit_2(uniaudio):
    assert uniaudio("transcribe", "--bogus").status == 2
    assert uniaudio("dance").status == 2


class ClosedPipe(io.StringIO):
    """Standard output whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self):
        self.write("")


def test_a_reader_that_has_gone_is_a_quiet_end(uniaudio, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", ClosedPipe())
        done = uniaudio("--version")
    assert done.status == 0 and done.err == ""


@pytest.mark.parametrize("verb", ["speak", "transcribe", "chat", "tokenize"])
def test_ctrl_c_while_a_model_is_loaded_is_one_line(uniaudio, monkeypatch, tone, tmp_path, verb):
    def stopped(path):
        raise KeyboardInterrupt

    for module in ("generate", "understand", "chat.verb", "tokens"):
        for name in ("load_model", "load_codec"):
            monkeypatch.setattr(f"cli.{module}.{name}", stopped, raising=False)
    options = ["--out", tmp_path] if verb == "chat" else [tone]
    done = uniaudio(verb, *options, *(["-o", tmp_path / "x.wav"] if verb == "speak" else []), typed="")
    assert done.status == 130 and done.err == "uniaudio: stopped\n" and done.out == ""


DAMAGED_TOKENS = {
    "shape": lambda d, s: (d[:, :1], s, {}),
    "codebooks": lambda d, s: (d[:4], s, {}),
    "floats": lambda d, s: (d.float(), s, {}),
    "beyond the codebook": lambda d, s: (d, s + 10_000, {}),
    "negative": lambda d, s: (d, s - 10_000, {}),
    "long": lambda d, s: (d, s, {"num_samples": "9" * 30}),
    "no number": lambda d, s: (d, s, {"num_samples": "x"}),
    "below zero": lambda d, s: (d, s, {"num_samples": "-5"}),
}


@pytest.mark.parametrize("damage", DAMAGED_TOKENS)
def test_damaged_token_files_are_named(uniaudio, model_folder, tmp_path, damage):
    codec = model_folder / "audio_tokenizer"
    fingerprint = load_tokenizer(codec).fingerprint
    descriptive, structural = torch.zeros(8, 6, dtype=torch.int64), torch.zeros(8, 13, dtype=torch.int64)
    descriptive, structural, more = DAMAGED_TOKENS[damage](descriptive, structural)
    metadata = {"num_samples": "24000", "fingerprint": fingerprint} | more
    save_file(
        {"descriptive": descriptive.contiguous(), "structural": structural.contiguous()},
        tmp_path / "t.safetensors",
        metadata=metadata,
    )
    done = uniaudio("detokenize", tmp_path / "t.safetensors", "--codec", codec, "--steps", 1)
    assert done.status == 2 and "t.safetensors" in done.err and len(done.err.splitlines()) == 1
