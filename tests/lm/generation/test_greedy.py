"""Greedy generation: plain, captured, in a batch and alone are the same ids, on the device that is asked for.

In float32 every id. In 16 bits a request may take another way where two ids are about as likely; then the two logits
are closer than the format tells apart, which is looked up at the very id where the ways part.
"""

import copy

import pytest
import torch

from lm.generation.cached_model import AudioHeads, FrameDecoder, RowDecoder
from lm.generation.generate import generate_audio, generate_text
from lm.generation.settings import GenerationSettings
from lm.rows import audio_rows, concatenate
from tests.factories.language_model import LAYOUT, audio, text, tiny_model

GREEDY = GenerationSettings(max_rows=48, temperature=0.0)
PROMPTS = [concatenate([text(4, 1), audio(2, 5, 2), text(3, 3)]), text(6, 4), audio(1, 3, 6), text(1, 7)]
SEEDS = [0] * len(PROMPTS)
SMALL = 0.02  # so that ids do not repeat, and two are about as likely now and then


def audio_ways(model):
    """The requests in a batch and alone, plain and captured: way -> one result each."""
    ways = {}
    for steps in ("plain", "graph"):
        ways[f"{steps}, batch"] = generate_audio(model, PROMPTS, GREEDY, SEEDS, steps=steps)
        ways[f"{steps}, alone"] = [generate_audio(model, [p], GREEDY, [0], steps=steps)[0] for p in PROMPTS]
    return ways


def text_ways(model):
    ways = {}
    for steps in ("plain", "graph"):
        ways[f"{steps}, batch"] = generate_text(model, PROMPTS, GREEDY, SEEDS, steps)
        ways[f"{steps}, alone"] = [generate_text(model, [p], GREEDY, [0], steps)[0] for p in PROMPTS]
    return ways


def whole_rows(made) -> torch.Tensor:
    """(T, 8) row ids, with the frames between the streams as the grammar sets them."""
    parts = []
    for place, stream in enumerate(LAYOUT.streams):
        codes = made[stream.name].T + LAYOUT.offsets[place]
        parts += [codes, LAYOUT.closing(place).T] if place + 1 < len(LAYOUT.streams) else [codes]
        if place + 1 < len(LAYOUT.streams):
            parts.append(LAYOUT.opening(place + 1).T)
    return torch.cat(parts)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_id_is_the_same_in_float32(device, seed):
    model = tiny_model(seed, initializer_range=SMALL).to(device)
    audio_of, text_of = audio_ways(model), text_ways(model)
    first = audio_of["plain, batch"]
    for way, results in audio_of.items():
        for ours, theirs in zip(results, first, strict=True):
            assert torch.equal(whole_rows(ours), whole_rows(theirs)) and ours.reason == theirs.reason, way
    assert all(results == text_of["plain, batch"] for results in text_of.values())
    assert len({tuple(row) for made in first for row in whole_rows(made).tolist()}) > 30


@torch.inference_mode()
def logits_at(model, prompt, frames, codebook):
    """Logits (V,) of the id that follows `codebook` ids of the last of the frames (T, 8), one row at a time."""
    opening = audio_rows(LAYOUT.opening(), is_target=False)
    decoder, depth, heads = (
        RowDecoder(model, [concatenate([prompt, opening])], 60),
        FrameDecoder(model, 1),
        AudioHeads(model.audio_head, 1),
    )
    final, kept = decoder.prefill(), []
    for frame in frames[:-1]:
        final = decoder.feed_audio(frame[None].to(final.device))

    def choose(column, states):
        kept.append(heads.logits(column, states, [(0, LAYOUT.audio_size)])[0])
        return frames[-1, column][None].to(states.device)

    depth.frame(final, choose)
    return kept[codebook]


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
def test_ways_part_in_16_bits_only_where_two_ids_are_as_likely(device, dtype):
    """Among the ways is that of the same weights in float32, which the rounding of 16 bits does leave."""
    parted = 0
    for seed in range(2):
        exact = tiny_model(seed, initializer_range=SMALL).to(device=device, dtype=dtype).float()
        model = copy.deepcopy(exact).to(dtype)
        ways = audio_ways(model) | {"float32": generate_audio(exact, PROMPTS, GREEDY, SEEDS)}
        first = ways["plain, alone"]
        for way, results in ways.items():
            for prompt, ours, theirs in zip(PROMPTS, results, first, strict=True):
                a, b = whole_rows(ours), whole_rows(theirs)
                count = min(len(a), len(b))
                differs = (a[:count] != b[:count]).nonzero()
                if not len(differs):
                    continue
                parted += 1
                row, codebook = differs[0].tolist()
                logits = logits_at(exact, prompt, a[: row + 1], codebook)
                gap = (logits[a[row, codebook]] - logits[b[row, codebook]]).abs()
                # Each of some eight matrices on the way to the logits rounds what it gives.
                resolution = 8 * torch.finfo(dtype).eps * logits.abs().max()
                assert gap <= resolution, f"{way}: {gap:.4f} at row {row}, beyond {resolution:.4f}"
    assert parted
