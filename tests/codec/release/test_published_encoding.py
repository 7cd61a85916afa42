"""The published tokenisation: what it does by the letter, and that ours gives the same ids with less work."""

from dataclasses import replace

import pytest
import torch

from codec.layers.windows import SEGMENT_SAMPLES, RepeatedClip, repeated_segments
from codec.reasoning.codec import ReasoningCodec
from tests.factories.codec import SMALL, noise, small_codec
from tests.factories.tokens import descriptive_frames, structural_frames


@pytest.fixture(scope="module")
def codec() -> ReasoningCodec:
    return small_codec(replace(SMALL, published_encoding=True))


def segments_by_the_letter(clip: torch.Tensor) -> torch.Tensor:
    """(k, 720240): doubled until it holds a segment, then doubled once more and cut into k segments."""
    while len(clip) < 720_240:
        clip = torch.cat([clip, clip])
    k = len(clip) // 720_000 + 1
    return torch.cat([clip, clip])[: k * 720_240].reshape(k, 720_240)


@pytest.mark.parametrize(
    "samples", [1, 24_000, 100_001, 719_999, 720_000, 720_239, 720_240, 720_241, 1_440_000, 2_000_003]
)
def test_segments_are_the_published_ones(samples):
    clip = torch.arange(samples, dtype=torch.float64)
    theirs = segments_by_the_letter(clip)
    windows = repeated_segments(samples // 9600 + 1)
    assert SEGMENT_SAMPLES == theirs.shape[1] and 375 * len(windows) >= structural_frames(samples)
    assert len(windows) <= len(theirs), "segments of which nothing is kept are not encoded"
    asked = []

    def read(start: int, stop: int) -> torch.Tensor:
        asked.append(start)
        return clip[start:stop]

    repeated = RepeatedClip(samples, read)
    for window, segment in zip(windows, theirs, strict=False):
        assert torch.equal(repeated.segment(window), segment)
    assert asked == sorted(asked), "a clip that is read from a file is read forwards"


@torch.no_grad()
@pytest.mark.parametrize("samples", [24_000, 760_000])
def test_ids_are_those_of_the_segments(codec, samples):
    clip = noise(samples)
    descriptive, structural = [], []
    for segment in segments_by_the_letter(clip)[: -(-samples // 720_000)]:
        blocks = torch.tensor([75])
        features = codec.extract_features(segment[None], torch.tensor([len(segment)]), blocks, whole_frames=True)
        assert features.frames.tolist() == [750] and features.values["phone"].shape[2] == 1500
        quantised, ids = codec.encode_descriptive(features)
        descriptive.append(ids[0].T)
        structural.append(codec.structural(features.values, quantised, features.structural_mask).ids[0].T)
    heard = []
    (tokens,) = codec.encode(clip[None], progress=heard.append)
    assert torch.equal(tokens["descriptive"], torch.cat(descriptive, 1)[:, : descriptive_frames(samples)])
    assert torch.equal(tokens["structural"], torch.cat(structural, 1)[:, : structural_frames(samples)])
    assert sum(heard) == samples and min(heard) >= 0
    in_blocks = codec.encode_blocks(clip.split(100_000), samples)
    assert torch.equal(in_blocks["structural"], tokens["structural"])
    assert torch.equal(in_blocks["descriptive"], tokens["descriptive"])


def test_it_gives_other_ids_and_is_part_of_what_they_mean(codec):
    own = small_codec()
    clip = noise(24_000)[None]
    ours, theirs = own.encode(clip)[0]["structural"], codec.encode(clip)[0]["structural"]
    assert ours.shape == theirs.shape and not torch.equal(ours, theirs)
    assert own.fingerprint != codec.fingerprint
    assert "published_encoding" not in own.identity_values(), "a codec from before has the fingerprint that it had"
