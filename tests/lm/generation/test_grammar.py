"""The grammar of audio: what may follow what, how audio ends, and how long it may be."""

import pytest
import torch

from codec.tokens import SAMPLE_RATE
from lm.generation.generate import generate_audio, stream_audio
from lm.generation.settings import GenerationSettings
from lm.rows import audio_rows, concatenate
from tests.factories.language_model import LAYOUT, eager_to_end, text, tiny_model
from tests.factories.tokens import least_samples, structural_frames
from tests.lm.generation.test_generate import SETTINGS, same_audio


def as_rows(generated):
    """The rows that a finished or unfinished generation fed to the model."""
    low = generated["descriptive"]
    high = generated["structural"]
    frames = [LAYOUT.opening(0), low, LAYOUT.closing(0), LAYOUT.opening(1), high + LAYOUT.offsets[1]]
    return audio_rows(torch.cat(frames, dim=1), is_target=False)


@torch.no_grad()
def test_greedy_audio_equals_the_uncached_model(model, prompts):
    """Every generated id is the likeliest allowed one by the plain forward pass."""
    settings = GenerationSettings(max_rows=25, top_k=1)
    for prompt, result in zip(prompts, generate_audio(model, prompts, settings, [0] * 4), strict=True):
        rows = as_rows(result)
        whole = concatenate([prompt, rows])
        logits = model(whole.ids[None], whole.mask[None]).audio_logits[-len(rows) :]
        low = 1  # the BOS frame is set
        for t in range(low, low + result["descriptive"].shape[1]):
            allowed = logits[t].clone()
            allowed[:, LAYOUT.streams[0].codes :] = float("-inf")
            if t > low:
                end = int(LAYOUT.closing(0)[0, 0])
                allowed[0, end] = logits[t, 0, end]
            assert allowed.argmax(-1).tolist() == rows.ids[t, :8].tolist()
        low += result["descriptive"].shape[1] + 2
        for t in range(low, low + result["structural"].shape[1]):
            first = LAYOUT.offsets[1]
            allowed = torch.full_like(logits[t], float("-inf"))
            allowed[:, first : first + LAYOUT.streams[1].codes] = logits[t, :, first : first + LAYOUT.streams[1].codes]
            end = int(LAYOUT.closing(1)[0, 0])
            if t > low:
                allowed[0, end] = logits[t, 0, end]
            assert allowed.argmax(-1).tolist() == rows.ids[t, :8].tolist()


def test_only_decodable_ids_come_out(model, prompts):
    for seed in range(4):
        for result in generate_audio(model, prompts, SETTINGS, [seed] * 4):
            for codes, count in (
                (result["descriptive"], LAYOUT.streams[0].codes),
                (result["structural"], LAYOUT.streams[1].codes),
            ):
                assert codes.dtype == torch.int64 and codes.shape[0] == 8
                assert codes.numel() == 0 or (codes.min() >= 0 and codes.max() < count)
            if result.reason == "end":
                assert result["descriptive"].shape[1] >= 1 and result["structural"].shape[1] >= 1
                assert result["descriptive"].shape[1] + result["structural"].shape[1] + 4 <= SETTINGS.max_rows


@pytest.mark.parametrize("max_rows, reason, frames", [(1, "max_rows", 0), (2, "max_rows", 1), (9, "max_rows", 8)])
def test_audio_without_an_end(max_rows, reason, frames):
    """Nothing to end on: as many rows as allowed, the BOS frame included, and a reason."""
    settings = GenerationSettings(max_rows=max_rows, top_k=1)
    (result,) = generate_audio(eager_to_end(), [text(3, 1)], settings, [0])
    assert (result.reason, result["descriptive"].shape, result["structural"].shape) == (reason, (8, frames), (8, 0))


@pytest.fixture(scope="module")
def unlimited(model, prompts):
    return generate_audio(model, prompts, GenerationSettings(max_rows=80), [1, 2, 3, 4])


@pytest.mark.parametrize("seconds", [0.08, 0.5, 20.0])
def test_audio_is_no_longer_than_asked_for_to_the_frame(model, prompts, unlimited, seconds):
    free = unlimited
    limit = GenerationSettings(max_rows=80, max_seconds=seconds)
    most = LAYOUT.frames_in(seconds)
    made = generate_audio(model, prompts, limit, [1, 2, 3, 4])
    assert max(m["structural"].shape[1] for m in free) > structural_frames(int(0.5 * SAMPLE_RATE))
    for ours, other in zip(made, free, strict=True):
        frames = ours["descriptive"].shape[1], ours["structural"].shape[1]
        assert least_samples(frames[1]) <= seconds * SAMPLE_RATE
        assert torch.equal(ours["descriptive"], other["descriptive"][:, : most[0]])
        if other["descriptive"].shape[1] <= most[0]:
            assert torch.equal(ours["structural"], other["structural"][:, : most[1]])
        if other["descriptive"].shape[1] <= most[0] and other["structural"].shape[1] <= most[1]:
            assert same_audio(ours, other)
        else:
            assert ours.reason == "max_rows" and frames[1] > 0
    streamed: list[list] = [[] for _ in prompts]
    for frame in stream_audio(model, prompts, limit, [1, 2, 3, 4]):
        streamed[frame.request] += [frame.stream == "structural"]
    assert [(s.count(False), s.count(True)) for s in streamed] == [
        (m["descriptive"].shape[1], m["structural"].shape[1]) for m in made
    ]


def test_audio_that_ends_at_once_has_one_frame_of_each_kind(monkeypatch):
    """The model would rather end than say anything: it gets the shortest audio there is."""
    model = tiny_model()
    with torch.no_grad():
        model.audio_head.zero_()
        model.depth_decoder.transformer.norm.weight.fill_(1.0)
    monkeypatch.setattr(
        "lm.generation.grammar.sample",
        lambda logits, *drawing: torch.where(
            torch.isfinite(logits).any(-1), logits.shape[-1] - 1 - torch.isfinite(logits).flip(-1).int().argmax(-1), 0
        ),
    )  # always the highest id allowed: EOS, where it is allowed
    (result,) = generate_audio(model, [text(3, 1)], SETTINGS, [0])
    assert (result.reason, result["descriptive"].shape, result["structural"].shape) == ("end", (8, 1), (8, 1))
