"""Generation whose steps are captured or compiled is plain generation."""

import gc
import operator
import shutil
import weakref

import pytest
import torch

from codec.layers import graph
from lm.generation import cached_model, static_step
from lm.generation.batch import AudioRun
from lm.generation.cached_model import RowDecoder
from lm.generation.generate import generate_audio, generate_text, stream_audio
from lm.generation.settings import GenerationSettings
from lm.rows import drop_conditions
from tests.factories.language_model import LAYOUT, audio, shape, text, tiny_model
from tests.lm.generation.test_generate import same_audio

SEEDS = [11, 12, 13]
PROMPTS = [text(6, 4), audio(1, 3, 6), text(1, 7)]


def both(model, settings, steps="compiled"):
    negatives = [drop_conditions(prompt, LAYOUT, stream=1) for prompt in PROMPTS]
    return [generate_audio(model, PROMPTS, settings, SEEDS, negatives, way) for way in ("plain", steps)]


def both_texts(model, settings, steps="compiled"):
    return [generate_text(model, PROMPTS, settings, SEEDS, way) for way in ("plain", steps)]


@pytest.fixture(params=["graph", "compiled"])
def steps(request, monkeypatch):
    """Graphs, recorded and replayed where there is no GPU; the compiled unit without its compiler."""
    monkeypatch.setattr(static_step, "_compiled", lambda device: static_step._step)
    return request.param


@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.slow), 2.0])
def test_static_steps_are_plain_steps(device, steps, guidance):
    """Fixed shapes give the same ids, unequal prompts, ends and limits included."""
    plain, static = both(tiny_model().to(device), GenerationSettings(max_rows=40, guidance=guidance), steps)
    assert all(map(same_audio, plain, static))
    assert len({result.reason for result in plain}) > 1


@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {"top_k": 3}, {"stream_temperature": {"structural": 0.0}}])
def test_static_steps_sample_as_plain_ones(device, steps, changes):
    plain, static = both(tiny_model().to(device), GenerationSettings(max_rows=24, **changes), steps)
    assert all(map(same_audio, plain, static))


def test_static_steps_keep_to_a_length(device, steps):
    plain, static = both(tiny_model().to(device), GenerationSettings(max_rows=60, max_seconds=0.3), steps)
    assert all(map(same_audio, plain, static)) and "max_rows" in {result.reason for result in plain}


def test_static_text_steps_are_plain_steps(device, steps):
    cut = {"cross_modal": shape(32, 2, max_position_embeddings=25)}  # the context ends before max_rows
    for more in ({}, cut):
        plain, static = both_texts(tiny_model(**more).to(device), GenerationSettings(max_rows=22), steps)
        assert plain == static and len({result.reason for result in plain}) > 1


def test_a_graph_sees_more_columns_as_they_fill(device, monkeypatch):
    """It is captured again at every multiple, and never reads the columns beyond."""
    captured = []
    monkeypatch.setattr(cached_model, "STATIC_ROWS", 8)
    capture = graph.capture
    monkeypatch.setattr(graph, "capture", lambda step, device: captured.append(1) or capture(step, device))
    plain, static = both(tiny_model().to(device), GenerationSettings(max_rows=40), "graph")
    assert all(map(same_audio, plain, static))
    longest = max(len(prompt) for prompt in PROMPTS) + 1
    made = max(sum(ids.shape[1] for ids in result.streams.values()) for result in plain)
    assert 3 <= len(captured) <= (longest + made) // 8 + 2


@pytest.mark.parametrize("left", [False, True])
def test_the_caches_of_a_run_go_with_it(steps, left):
    """At once, though step and run hold each other: on a GPU they are gigabytes, of which Python knows nothing."""
    negatives = [drop_conditions(prompt, LAYOUT, stream=1) for prompt in PROMPTS]
    settings = GenerationSettings(max_rows=12, guidance=2.0)
    gc.collect()
    gc.disable()
    try:
        run = AudioRun(tiny_model(), PROMPTS, settings, SEEDS, negatives, steps)
        keys, made = weakref.ref(run.decoder.cross_modal.keys), run.steps()
        for _ in range(5):
            next(made)
        if not left:
            list(made)
        del run, made
        assert keys() is None
    finally:
        gc.enable()


def test_captured_frames_are_streamed(device):
    model, settings = tiny_model().to(device), GenerationSettings(max_rows=20)
    plain, graph = (list(stream_audio(model, PROMPTS, settings, SEEDS, steps=way)) for way in ("plain", "graph"))
    assert plain == graph and len(plain) > 20


@torch.no_grad()
def test_static_final_vectors_are_plain_ones():
    model, frames = tiny_model(), torch.stack([audio(2, 4, seed).ids[:, :8] for seed in range(3)], dim=1)
    finals = []
    for static in (False, True):
        decoder = RowDecoder(model, PROMPTS, 20, static=static)
        finals.append(torch.stack([decoder.prefill(), *map(decoder.feed_audio, frames)]))
    torch.testing.assert_close(*finals, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.parametrize(("run", "equal"), [(both, same_audio), (both_texts, operator.eq)], ids=["audio", "text"])
def test_compiled_steps_are_plain_steps(run, equal):
    """Same ids under the same seeds; what is compiled once serves other seeds and lengths."""
    model = tiny_model(cross_modal=shape(32, 1), understanding_layers=1, generation_layers=1, depth=shape(16, 1))
    torch._dynamo.reset()
    plain, compiled = run(model, GenerationSettings(max_rows=30, guidance=2.0))
    assert all(map(equal, plain, compiled))
    with torch._dynamo.config.patch(error_on_recompile=True):
        plain, compiled = run(model, GenerationSettings(max_rows=21, guidance=2.0))
    assert all(map(equal, plain, compiled))
