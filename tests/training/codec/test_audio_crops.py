"""Which audio a codec trainer sees: a pure function of key and number, cut to length, batches of like length."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from auditory_sentences.corpora.read import Clip
from codec.io.errors import UserError
from codec.tokens import SAMPLE_RATE
from training.codec.audio_crops import AudioCrops, clip_weights, load_batch


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for i in range(20):
        count = 2400 + 1200 * i
        soundfile.write(folder / f"{i}.wav", np.arange(count) / 100_000, 24_000, subtype="FLOAT")
        made.append(Clip(id=f"c{i}", path=str(folder / f"{i}.wav"), kind="sound", split="train"))
    return made


def test_batches_are_a_pure_function_of_key_and_number(clips):
    a, b = (AudioCrops(clips, 4, 0.5, 7, "train") for _ in range(2))
    order = [9, 0, 33, 9]  # in any order, as after resuming
    assert [a.batch(i) for i in order] == [b.batch(i) for i in order]
    other = AudioCrops(clips, 4, 0.5, 8, "train")
    assert [a.batch(i) for i in range(8)] != [other.batch(i) for i in range(8)]
    assert a.fingerprint == other.fingerprint != AudioCrops(clips[1:], 4, 0.5, 7).fingerprint


def test_crops_hold_the_stretch_they_name(clips):
    crops = AudioCrops(clips, 4, 0.5, 1)
    starts = set()
    for index in range(12):
        batch = crops.batch(index)
        waveforms, lengths = load_batch(batch)
        assert waveforms.shape == (4, int(lengths.max())) and lengths.max() <= 12_000
        for crop, wave, length in zip(batch, waveforms, lengths, strict=True):
            assert length == crop.length
            expected = (torch.arange(crop.length) + crop.start) / 100_000
            torch.testing.assert_close(wave[: crop.length], expected.float(), atol=1e-6, rtol=0)
            assert (wave[crop.length :] == 0).all()
            starts.add(crop.start)
    assert len(starts) > 5  # long clips are cut at random places


def test_tiled_crops_come_again_and_cover_every_clip(clips):
    crops = AudioCrops(clips, 4, 0.5, 1, tiled=True)
    drawn = [crop for index in range(400) for crop in crops.batch(index)]
    for clip, length in zip(crops.clips, crops.lengths, strict=True):
        starts = sorted({crop.start for crop in drawn if crop.clip is clip})
        tile = min(length, 12_000)
        assert starts == sorted({min(at, length - tile) for at in range(0, length, 12_000)}), length
        assert {crop.length for crop in drawn if crop.clip is clip} == {tile}


def test_kinds_of_clips_have_the_shares_that_are_asked_for(clips):
    kinds = ["speech"] * 16 + ["music"] * 3 + ["sound"]
    mixed = [replace(clip, kind=kind) for clip, kind in zip(clips, kinds, strict=True)]
    weights = clip_weights(mixed, [0] * 20, {"speech": 1, "music": 3, "mixture": 5}, ())
    crops = AudioCrops(mixed, 4, 0.5, 1, weights=weights)
    drawn = Counter(crop.clip.kind for index in range(400) for crop in crops.batch(index))
    assert drawn.keys() == {"speech", "music"} and drawn["music"] / drawn.total() == pytest.approx(0.75, abs=0.03)
    with pytest.raises(UserError, match="no clip to train on of the kinds mixture .*: there are music, sound, speech"):
        clip_weights(mixed, [0] * 20, {"mixture": 1}, ())


@given(
    st.lists(st.tuples(st.sampled_from(["speech", "music"]), st.integers(0, 2)), min_size=1, max_size=30),
    st.fixed_dictionaries({}, optional={"speech": st.integers(1, 5), "music": st.integers(1, 5)}),
    st.one_of(st.just(()), st.tuples(*[st.integers(1, 5)] * 3)),
)
def test_weights_of_clips_follow_kinds_and_then_corpora(cells, kinds, shares):
    clips = [Clip(id=str(i), path="x", kind=kind, split="train") for i, (kind, _) in enumerate(cells)]
    corpora = [corpus for _, corpus in cells]
    if kinds and not any(clip.kind in kinds for clip in clips):
        with pytest.raises(UserError, match="no clip to train on"):
            clip_weights(clips, corpora, kinds, shares)
        return
    weights = clip_weights(clips, corpora, kinds, shares)
    sums = Counter()
    for weight, (kind, corpus) in zip(weights, cells, strict=True):
        sums[kind, corpus] += weight
    for kind in {kind for kind, _ in cells}:
        total = sum(weight for (k, _), weight in sums.items() if k == kind)
        if kinds:
            assert total == pytest.approx(kinds.get(kind, 0))
            for corpus in {c for k, c in cells if k == kind} if shares else ():
                there = sum(shares[c] for c in {c for k, c in cells if k == kind})
                assert sums[kind, corpus] == pytest.approx(total * shares[corpus] / there)
    for weight, cell in zip(weights, cells, strict=True):  # clips of a cell are alike
        assert weight == pytest.approx(weights[cells.index(cell)])


def test_narrow_band_crops_have_nothing_above_half_their_rate(tmp_path):
    noise = np.random.default_rng(0).normal(size=48_000) / 10
    soundfile.write(tmp_path / "noise.wav", noise, 24_000, subtype="FLOAT")
    clips = [Clip(id="noise", path=str(tmp_path / "noise.wav"), kind="sound", split="train")]
    crops = AudioCrops(clips, 4, 0.5, 1, narrow_band=0.4)
    drawn = [crop for index in range(50) for crop in crops.batch(index)]
    rates = Counter(crop.rate for crop in drawn)
    assert rates.keys() == {8_000, 11_025, 24_000} and rates[24_000] / len(drawn) == pytest.approx(0.6, abs=0.1)
    for crop in {crop.rate: crop for crop in drawn}.values():
        wave = crop.load()
        assert len(wave) == crop.length
        power = torch.fft.rfft(wave * torch.hann_window(len(wave))).abs().square()
        edge = len(power) * crop.rate // SAMPLE_RATE
        assert (power[edge + 100 :].sum() / power.sum() < 1e-3) and power[: edge - 1000].mean() > 0.5 * power.mean()
    assert all(crop.rate == SAMPLE_RATE for crop in AudioCrops(clips, 4, 0.5, 1).batch(0))


def test_little_of_a_batch_is_padding(clips):
    crops = AudioCrops(clips, 4, 10.0, 1)
    lengths = [[crop.length for crop in crops.batch(i)] for i in range(40)]
    filled = sum(map(sum, lengths)) / sum(4 * max(batch) for batch in lengths)
    assert filled > 0.85
    assert {crop.clip.id for i in range(40) for crop in crops.batch(i)} == {clip.id for clip in clips}


def test_no_clips_is_said_so():
    with pytest.raises(UserError, match="no clip to train on"):
        AudioCrops([], 4, 1.0)
