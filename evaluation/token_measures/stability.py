"""How many ids stay when a recording changes in a way that nobody hears: one sample of delay, a gain, faint noise.

The share of equal ids at the same place, over all frames and codebooks of a stream (`levels`: of each codebook), on
the task's test clips. Chance: the share of equal ids of two different clips, frame by frame. Standard errors: clips
resampled with replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from auditory_sentences.rng import stable_hash
from codec.tokens import AudioTokens
from evaluation.metrics.estimate import ratio
from evaluation.token_measures.coded import CodedClips, Measured

GAIN_DB = -6.0
SNR_DB = 30.0


def stable_shift(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Share of ids that stay when the sound begins one sample later."""
    return _measured(coded, stream, "shift", lambda wave, clip: torch.cat([wave.new_zeros(1), wave[:-1]]))


def stable_gain(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Share of ids that stay when the sound is 6 dB quieter."""
    return _measured(coded, stream, "gain", lambda wave, clip: wave * 10 ** (GAIN_DB / 20))


def stable_noise(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Share of ids that stay under white noise at a signal-to-noise ratio of 30 dB, over the whole clip."""
    return _measured(coded, stream, "noise", partial(_noisy, seed=coded.seed))


def _noisy(wave: Tensor, clip: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(stable_hash("noise", seed, clip) % 2**63)
    noise = torch.randn(len(wave), generator=generator)
    return wave + noise * wave.square().mean().sqrt() * 10 ** (-SNR_DB / 20)


def _measured(coded: CodedClips, stream: str, name: str, change: Callable[[Tensor, str], Tensor]) -> Measured:
    original = coded.tokens(coded.test)
    waves = ((coded.waveform(clip), clip.id) for clip in coded.test)
    changed = coded.once(("changed", name), lambda: coded.encode([change(wave, clip) for wave, clip in waves]))
    half = len(original) // 2
    others = [*original[half:], *original[:half]]
    same = _same(stream, original, changed)
    total = torch.stack([each.sum(1) for each in same])  # (clips, codebooks)
    frames = torch.tensor([each.shape[1] for each in same])
    estimate = ratio(total.sum(1).tolist(), (frames * total.shape[1]).tolist())
    levels = tuple((total.sum(0) / frames.sum()).tolist())
    chance = None
    if len(original) > 1:
        by_chance = _same(stream, original, others)
        chance = sum(float(each.sum()) for each in by_chance) / sum(each.numel() for each in by_chance)
    return Measured(estimate, chance, None, levels)


def _same(stream: str, clips: Sequence[AudioTokens], others: Sequence[AudioTokens]) -> list[Tensor]:
    """(codebooks, T) whether the ids are equal, of the frames that both have."""
    found = []
    for one, other in zip(clips, others, strict=True):
        frames = min(one[stream].shape[1], other[stream].shape[1])
        found.append(one[stream][:, :frames] == other[stream][:, :frames])
    return found
