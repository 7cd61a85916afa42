"""Graphs that are kept between calls: the ids of plain steps whatever comes, within a stated memory."""

import copy
import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from codec.layers import graph
from lm.generation import kept_runs
from lm.generation.batch import AudioRun
from lm.generation.generate import generate_audio, generate_text, stream_audio
from lm.generation.kept_runs import KeptRuns, forget_runs, run_of
from lm.generation.settings import GenerationSettings
from lm.rows import drop_conditions
from tests.factories.language_model import LAYOUT, audio, text, tiny_model
from tests.lm.generation.test_generate import same_audio

PROMPTS = [text(6, 4), audio(1, 3, 6), text(1, 7), text(9, 2), audio(2, 5, 8)]
NEGATIVES = [drop_conditions(prompt, LAYOUT, stream=1) for prompt in PROMPTS]


def sound(model, settings, count, steps, first=0):
    chosen = slice(first, first + count)
    return generate_audio(model, PROMPTS[chosen], settings, range(7, 7 + count), NEGATIVES[chosen], steps)


@pytest.fixture
def captures(monkeypatch):
    """How often something was captured."""
    counted = []
    capture = graph.capture
    monkeypatch.setattr(graph, "capture", lambda step, device: counted.append(1) or capture(step, device))
    return counted


@pytest.fixture(scope="module")
def one_model():
    return tiny_model()


requests = st.tuples(
    st.integers(1, 4),
    st.integers(0, 1),
    st.builds(
        GenerationSettings,
        max_rows=st.integers(3, 18),
        temperature=st.sampled_from([0.0, 0.4, 1.0]),
        top_k=st.sampled_from([None, 1, 5, 9]),
        guidance=st.sampled_from([1.0, 1.5, 3.0]),
        stream_temperature=st.sampled_from([{}, {"structural": 0.2}]),
        stream_guidance=st.sampled_from([{}, {"structural": 1.0}]),
        max_seconds=st.sampled_from([None, 0.3]),
    ),
)


@tried(max_examples=6, deadline=None)
@given(st.lists(requests, min_size=2, max_size=4))
def test_whatever_came_before_the_ids_are_those_of_plain_steps(one_model, asked):
    for count, first, settings in asked:
        plain, kept = (sound(one_model, settings, count, steps, first) for steps in ("plain", "graph"))
        assert all(map(same_audio, plain, kept))


def test_text_after_text(one_model):
    for count, seed, limit, temperature in ((3, 1, 20, 0.9), (2, 5, 11, 0.3), (4, 9, 20, 0.0), (3, 2, 15, 1.5)):
        asked = PROMPTS[:count], GenerationSettings(max_rows=limit, temperature=temperature), range(seed, seed + count)
        assert generate_text(one_model, *asked, "graph") == generate_text(one_model, *asked, "plain")


def test_other_settings_need_no_new_graph(captures):
    """Temperature, guidance, top-k of one range, prompts, seeds, lengths, and batches of up to the same power of 2."""
    model = tiny_model()
    sound(model, GenerationSettings(max_rows=20, guidance=2.0, top_k=50), 4, "graph")
    made = len(captures)
    for count, settings in (
        (3, GenerationSettings(max_rows=12, guidance=1.5, top_k=40)),
        (4, GenerationSettings(max_rows=20, temperature=0.3, top_k=33, stream_guidance={"structural": 2.5})),
        (3, GenerationSettings(max_rows=16, guidance=3.0, top_k=64, stream_temperature={"descriptive": 0.0})),
    ):
        plain, kept = (sound(model, settings, count, steps, 1) for steps in ("plain", "graph"))
        assert all(map(same_audio, plain, kept))
    assert made == len(captures) == 1


@pytest.mark.parametrize("moved", [False, True])
def test_changed_weights_are_seen(captures, moved):
    """In place, as an optimiser changes them, without a new graph; at another place with one."""
    model, settings = tiny_model(), GenerationSettings(max_rows=14, temperature=0.0)
    before = sound(model, settings, 2, "graph")
    other = tiny_model(seed=1)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        if moved:
            mine.data = theirs.data.clone()
        else:
            mine.data.copy_(theirs.data)
    after, plain = sound(model, settings, 2, "graph"), sound(model, settings, 2, "plain")
    assert all(map(same_audio, after, plain)) and not all(map(same_audio, before, after))
    assert len(captures) == 1 + moved


def test_longer_requests_take_the_place_of_shorter_ones():
    model = tiny_model()
    for rows in (10, 300):
        with run_of(AudioRun, model, PROMPTS[:1], GenerationSettings(max_rows=rows), [1], steps="graph") as run:
            capacity = run.decoder.capacity
        assert capacity == (256 if rows == 10 else 512) and len(kept_runs._KEPT[model]) == 1
    with run_of(AudioRun, model, PROMPTS[:1], GenerationSettings(max_rows=10), [1], steps="graph") as again:
        assert again.decoder.capacity == 512


def test_a_listener_that_leaves_takes_nothing_along(captures):
    model, settings = tiny_model(), GenerationSettings(max_rows=20)
    for _ in range(2):
        frames = stream_audio(model, PROMPTS[:2], settings, [1, 2], steps="graph")
        assert [next(frames) for _ in range(6)]
        frames.close()
    whole = list(stream_audio(model, PROMPTS[:2], settings, [1, 2], steps="graph"))
    assert whole == list(stream_audio(model, PROMPTS[:2], settings, [1, 2], steps="plain")) and len(captures) == 1


def test_two_at_once_have_each_their_own():
    model, settings = tiny_model(), GenerationSettings(max_rows=20)
    one, two = (stream_audio(model, PROMPTS[:1], settings, [seed], steps="graph") for seed in (1, 2))
    made = [[], []]
    for _ in range(10):
        made[0].append(next(one))
        made[1].append(next(two))
    for seed, frames in zip((1, 2), made, strict=True):
        plain = list(stream_audio(model, PROMPTS[:1], settings, [seed], steps="plain"))
        assert frames == plain[:10]


def test_what_is_kept_goes_with_its_model():
    """At once, caches are gigabytes of which Python knows nothing; and a copy of the model has none of it."""
    model = tiny_model()
    gc.collect()
    gc.disable()
    try:
        sound(model, GenerationSettings(max_rows=8), 1, "graph")
        (run,) = kept_runs._KEPT[model]._runs.values()
        keys = weakref.ref(run.decoder.cross_modal.keys)
        del run
        assert copy.deepcopy(model) not in kept_runs._KEPT and keys() is not None
        del model
        assert keys() is None
    finally:
        gc.enable()


def test_they_can_be_forgotten():
    model = tiny_model()
    sound(model, GenerationSettings(max_rows=8), 1, "graph")
    forget_runs(model)
    forget_runs(model)
    assert model not in kept_runs._KEPT
    assert all(map(same_audio, *(sound(model, GenerationSettings(max_rows=8), 1, way) for way in ("graph", "plain"))))


class Cache:
    """As much of a run as keeping it needs."""

    def __init__(self, size):
        self.bytes = size

    def serve(self, model):
        assert model is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60)), max_size=30))
def test_no_more_is_kept_than_the_memory_allows(given_back):
    kept, last = KeptRuns(100), {}
    kept.take("none", (1,))
    for key, size in given_back:
        kept.take(key, (1,))
        kept.give(key, Cache(size), (1,))
        last[key] = size
        assert kept.bytes <= 100 and kept.take(key, (1,)).bytes == size
        kept.give(key, Cache(size), (1,))
    kept.give("large", Cache(101), (1,))
    assert kept.take("large", (1,)) is None
    kept.take("none", (2,))
    assert len(kept) == 0


def test_a_run_of_weights_that_are_gone_is_not_kept():
    kept = KeptRuns(100)
    kept.take("a", (1,))
    kept.take("a", (2,))
    kept.give("a", Cache(1), (1,))
    assert len(kept) == 0


def test_a_step_that_fails_is_not_kept(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(AudioRun, "feed", lambda self, ids: torch.ones(1) / "nothing")
    with pytest.raises(TypeError):
        sound(model, GenerationSettings(max_rows=8), 1, "graph")
    assert len(kept_runs._KEPT[model]) == 0


@pytest.mark.parametrize("enough", [True, False])
def test_what_is_kept_gives_way_where_memory_is_short(monkeypatch, enough):
    model, settings = tiny_model(), GenerationSettings(max_rows=8)
    sound(model, settings, 1, "graph")
    make = AudioRun.__init__

    def short(self, model, prompts, *arguments):
        if not enough or len(kept_runs._KEPT[model]):
            raise torch.OutOfMemoryError("CUDA out of memory")
        make(self, model, prompts, *arguments)

    monkeypatch.setattr(AudioRun, "__init__", short)
    if enough:
        made = sound(model, settings, 2, "graph")
        monkeypatch.undo()
        assert all(map(same_audio, made, sound(model, settings, 2, "plain")))
    else:
        with pytest.raises(torch.OutOfMemoryError):
            sound(model, settings, 2, "graph")
