"""Compiled generation is eager generation."""

import operator
import shutil

import pytest
import torch

from lm.generation import compiled_step
from lm.generation.cached_model import RowDecoder
from lm.generation.generate import generate_audio, generate_text
from lm.generation.settings import GenerationSettings
from lm.rows import drop_conditions
from tests.factories.language_model import LAYOUT, audio, shape, text, tiny_model
from tests.lm.generation.test_generate import same_audio

SEEDS = [11, 12, 13]
PROMPTS = [text(6, 4), audio(1, 3, 6), text(1, 7)]


def same(model, settings, **more):
    negatives = [drop_conditions(prompt, LAYOUT, stream=1) for prompt in PROMPTS]
    plain = generate_audio(model, PROMPTS, settings, SEEDS, negatives, **more)
    return plain, generate_audio(model, PROMPTS, settings, SEEDS, negatives, compiled=True, **more)


def same_text(model, settings):
    return [generate_text(model, PROMPTS, settings, SEEDS, compiled) for compiled in (False, True)]


@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.slow), 2.0])
def test_static_steps_are_eager_steps(monkeypatch, guidance):
    """The unit without its compiler: fixed shapes give the same ids, unequal prompts, ends and limits included."""
    monkeypatch.setattr(compiled_step, "_compiled", lambda device: compiled_step._step)
    plain, static = same(tiny_model(), GenerationSettings(max_rows=40, guidance=guidance))
    assert all(map(same_audio, plain, static))
    assert len({result.reason for result in plain}) > 1


def test_static_steps_keep_to_a_length(monkeypatch):
    monkeypatch.setattr(compiled_step, "_compiled", lambda device: compiled_step._step)
    plain, static = same(tiny_model(), GenerationSettings(max_rows=60, max_seconds=0.3))
    assert all(map(same_audio, plain, static)) and "max_rows" in {result.reason for result in plain}


def test_static_text_steps_are_eager_steps(monkeypatch):
    monkeypatch.setattr(compiled_step, "_compiled", lambda device: compiled_step._step)
    cut = {"cross_modal": shape(32, 2, max_position_embeddings=25)}  # the context ends before max_rows
    for more in ({}, cut):
        plain, static = same_text(tiny_model(**more), GenerationSettings(max_rows=22))
        assert plain == static and len({result.reason for result in plain}) > 1


@torch.no_grad()
def test_static_final_vectors_are_eager_ones():
    model, frames = tiny_model(), torch.stack([audio(2, 4, seed).ids[:, :8] for seed in range(3)], dim=1)
    finals = []
    for static in (False, True):
        decoder = RowDecoder(model, PROMPTS, 20, static=static)
        finals.append(torch.stack([decoder.prefill(), *map(decoder.feed_audio, frames)]))
    torch.testing.assert_close(*finals, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.parametrize(("both", "equal"), [(same, same_audio), (same_text, operator.eq)], ids=["audio", "text"])
def test_compiled_steps_are_eager_steps(both, equal):
    """Same ids under the same seeds; what is compiled once serves other seeds and lengths."""
    model = tiny_model(cross_modal=shape(32, 1), understanding_layers=1, generation_layers=1, depth=shape(16, 1))
    torch._dynamo.reset()
    plain, compiled = both(model, GenerationSettings(max_rows=30, guidance=2.0))
    assert all(map(equal, plain, compiled))
    with torch._dynamo.config.patch(error_on_recompile=True):
        plain, compiled = both(model, GenerationSettings(max_rows=21, guidance=2.0))
    assert all(map(equal, plain, compiled))
