"""Judges that make numbers of waveforms, each on sounds whose answer is known. Their packages are extras."""

import importlib.util

import numpy as np
import pytest

from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from evaluation.cache import Cache
from evaluation.judges import waveform_judges
from evaluation.judges.pool import Judges
from evaluation.judges.tagger import patches, tags
from evaluation.judges.waveform_judges import numbers, waveform_judge
from evaluation.metrics.packages import Absent, folder_of, require
from tests import ROOT

TIME = np.arange(36_000) / 24_000


def harmonics(hz, shape=1.0):
    """A steady voice-like tone: 25 harmonics whose levels fall with the number to that power."""
    return (0.1 * sum(np.sin(2 * np.pi * hz * k * TIME) / k**shape for k in range(1, 26))).astype(np.float32)


NOISE = (0.1 * np.random.default_rng(0).standard_normal(36_000)).astype(np.float32)
SILENCE = np.zeros(24_000, np.float32)


def judge_of(scorer):
    try:
        return waveform_judge(scorer).judge
    except Absent as absent:
        pytest.skip(str(absent))


@pytest.mark.parametrize("hz", [110.0, 220.0, 311.0])
def test_pitch_of_a_tone(hz):
    track = np.array(judge_of("pitch")(harmonics(hz)))
    assert len(track) == 76 and (track > 0).mean() > 0.9
    assert np.median(track[track > 0]) == pytest.approx(hz, rel=0.01)


def test_noise_and_silence_have_no_pitch():
    judge = judge_of("pitch")
    assert (np.array(judge(NOISE)) > 0).mean() < 0.1 and judge(SILENCE) == judge(NOISE[:0]) == []


def test_the_same_sound_gives_the_same_numbers():
    for scorer in ("pitch", "dnsmos", "distillmos", "speaker", "signal_features"):
        try:
            judge = waveform_judge(scorer).judge
        except Absent:
            continue
        assert judge(harmonics(150.0)) == judge(harmonics(150.0))


@pytest.mark.parametrize("scorer", ["dnsmos", "distillmos"])
def test_opinion_scores_lie_between_1_and_5_and_noise_lowers_them(scorer):
    judge = judge_of(scorer)
    voice = load_audio(ROOT / "docs/sounds/original.wav").numpy()
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(voice)).astype(np.float32)
    (clean,), (noisy,) = judge(voice), judge(voice + noise)
    assert 0.9 < noisy < clean < 5.1
    assert judge(voice[:0]) == [] and len(judge(np.tile(voice, 4)[:400_000])) == 1


def test_embeddings_of_voices():
    judge = judge_of("speaker")
    low_voice = 0.01 * harmonics(110.0)  # softer than the level that clips are brought to
    low, again, other = (np.array(judge(x)) for x in (low_voice, 0.3 * low_voice, harmonics(290.0, 2.0)))
    assert low.shape == (256,) and np.linalg.norm(low) == pytest.approx(1, abs=1e-5)
    assert low @ again > 0.98 > low @ other, "the level says nothing about the voice"
    assert judge(SILENCE) == [] and len(judge(NOISE[:2_000])) == 256


def test_a_judge_is_left_out_by_name_where_its_package_is_not_there(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchcrepe" else find(name))
    with pytest.raises(Absent, match=r"the judge 'pitch' needs torchcrepe: pip install 'uniaudio\[quality\]'"):
        waveform_judge("pitch")
    with pytest.raises(Absent, match="torchcrepe is not installed"):
        folder_of("torchcrepe")
    require("numbers", "numpy")
    with pytest.raises(Absent, match="give the folder of a YAMNet with --tagger"):
        waveform_judge("tagger")


def test_patches_of_a_tagger():
    assert patches(np.zeros(100)).shape == (1, 1, 96, 64) and patches(np.zeros(16_000 * 2)).shape == (3, 1, 96, 64)
    tone = patches(np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000))[0, 0].mean(axis=0)
    assert 18 <= tone.argmax() <= 26, "1 kHz lies at 1000 mel, a third of the way from 185 to 2787 mel"


def test_a_folder_that_holds_no_tagger_is_named(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra 'quality' is not installed")
    with pytest.raises(UserError, match=r"yamnet\.onnx: no such file; .* with --tagger"):
        waveform_judge("tagger", tmp_path)
    (tmp_path / "yamnet.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is no network that can be read"):
        tags(NOISE, str(tmp_path))


def test_judges_are_asked_once(tmp_path, monkeypatch):
    judged = []
    found = waveform_judges.WaveformJudge("counting 1", lambda waveform: judged.append(1) or [float(len(waveform))])
    judges = Judges(Cache(tmp_path), processes=1)
    waves = [NOISE, None, SILENCE, NOISE]
    assert judges.numbers(waves, found) == [[36_000.0], None, [24_000.0], [36_000.0]] and len(judged) == 2
    assert judges.numbers(waves, found)[0] == [36_000.0] and len(judged) == 2


@pytest.mark.parametrize("plain", [None, {"result": None}, {"result": [1]}, {"result": [float("nan")]}, [1.0]])
def test_what_no_judge_has_written_is_not_read(plain):
    with pytest.raises(ValueError, match="no numbers"):
        numbers(plain)
