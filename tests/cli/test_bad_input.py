"""Bad input of every codec, as a person meets it: one line that names the file, exit status 2, and no file written."""

import numpy as np
import pytest
import soundfile

from codec import tokenizer as registry
from tests.codec.test_contract import MADE


@pytest.fixture(scope="module", params=sorted(MADE))
def codec(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec") / "codec"
    MADE[request.param]().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def known(monkeypatch, tmp_path):
    monkeypatch.setitem(registry.TOKENIZERS, "streams", ("tests.factories.streams_tokenizer", "StreamsTokenizer"))
    monkeypatch.chdir(tmp_path)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


FAULTS = {
    "nothing.wav": lambda path: path.touch(),
    "text.wav": lambda path: path.write_text("this is no sound, whatever its name says"),
    "no_samples.wav": lambda path: soundfile.write(path, noise(0), 16_000),
    "nan.wav": lambda path: soundfile.write(path, np.full(8_000, np.nan, np.float32), 16_000, subtype="FLOAT"),
    "cut.wav": lambda path: (soundfile.write(path, noise(16_000), 16_000), path.write_bytes(path.read_bytes()[:5_000])),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_sound_is_one_line_and_no_tokens(uniaudio, codec, tmp_path, name):
    FAULTS[name](tmp_path / name)
    done = uniaudio("tokenize", name, "--codec", codec, "--out", "t.safetensors")
    lines = done.err.splitlines()
    assert done.status == 2 and len([line for line in lines if name in line]) == 1, done.err
    assert "Traceback" not in done.err and not (tmp_path / "t.safetensors").exists()


@pytest.mark.parametrize(
    ("shape", "rate"), [((44_100, 8), 44_100), ((8_000,), 8_000), ((1,), 16_000), ((9_600, 2), 96_000)]
)
def test_any_rate_channels_and_length_go_there_and_back(uniaudio, codec, shape, rate):
    soundfile.write("in.wav", noise(*shape), rate)
    assert uniaudio("tokenize", "in.wav", "--codec", codec, "--out", "t.safetensors").status == 0
    done = uniaudio("detokenize", "t.safetensors", "--codec", codec, "--steps", 1, "--out", "back.wav")
    assert done.status == 0, done.err
    made = soundfile.info("back.wav")
    assert made.channels == 1 and abs(made.duration - shape[0] / rate) <= 2 / made.samplerate


def test_tokens_of_another_codec_and_cut_ones_are_refused(uniaudio, codec, tmp_path):
    kind = registry.load_tokenizer(codec).tokenizer_type
    MADE[kind](seed=1).save_pretrained(tmp_path / "other")
    soundfile.write("in.wav", noise(8_000), 16_000)
    assert uniaudio("tokenize", "in.wav", "--codec", codec, "--out", "t.safetensors").status == 0
    content = (tmp_path / "t.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-8])
    for name, other in (("t.safetensors", "other"), ("cut.safetensors", codec)):
        done = uniaudio("detokenize", name, "--codec", other, "--out", "back.wav")
        assert done.status == 2 and name in done.err and len(done.err.splitlines()) == 1, done.err
        assert not (tmp_path / "back.wav").exists()
