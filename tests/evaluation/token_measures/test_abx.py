"""Phone ABX on tokens whose answers are known, and against the definition spelt out."""

import itertools

import numpy as np
import pytest

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.corpora.phones import Phone
from codec.io.errors import UserError
from evaluation.token_measures.abx import (
    AbxItem,
    abx_across,
    abx_error,
    abx_within,
    distance_matrix,
    frames_of,
    items_of,
)
from tests.evaluation.token_measures.planted import coded, plant, spoken


@pytest.mark.parametrize("measure", [abx_within, abx_across])
def test_a_codec_of_phones_makes_no_error_and_random_ids_half(tmp_path, measure):
    right = measure(coded(tmp_path / "a", spoken(tmp_path / "a", {f"p{i}": i for i in range(5)})), "codes")
    assert right.estimate.value == 0.0 and right.estimate.n == 60 and right.chance == 0.5
    random = measure(coded(tmp_path / "b", spoken(tmp_path / "b", None, speakers=10)), "codes")
    assert random.estimate.value == pytest.approx(0.5, abs=4 * random.estimate.stderr)
    assert 0.0 < random.estimate.stderr < 0.05


def test_phones_that_share_their_ids_are_told_apart_by_chance(tmp_path):
    same = abx_across(coded(tmp_path, spoken(tmp_path, {f"p{i}": 3 for i in range(5)})), "codes")
    assert same.estimate.value == 0.5


def test_speakers_with_ids_of_their_own_are_an_error_across_and_none_within(tmp_path):
    """Each speaker has other ids: X of another speaker is as far from A as from B."""
    clips = []
    for s in range(3):
        for take in range(2):
            ids, times = [], []
            for p in range(3):
                times.append((len(ids), len(ids) + 4, f"p{p}"))
                ids += 4 * [1 + 3 * s + p]
            clips.append(plant(tmp_path, f"s{s}-{take}", ids, phones=times, speaker=f"s{s}"))
    made = coded(tmp_path, clips)
    assert abx_within(made, "codes").estimate.value == 0.0
    assert abx_across(made, "codes").estimate.value == 0.5


def test_the_reference_is_the_spectrum(tmp_path):
    """Levels are no spectra: constant sounds of any level look alike but for their loudness and edges."""
    found = abx_within(coded(tmp_path, spoken(tmp_path, {f"p{i}": i + 1 for i in range(5)})), "codes")
    assert 0.0 < found.original.value < 0.5 and found.original.n == found.estimate.n


def test_without_phone_times_or_speakers_it_says_what_is_missing(tmp_path):
    clip = plant(tmp_path, "a", [1, 2, 3], speaker="s")
    with pytest.raises(UserError, match="phone times and speakers"):
        abx_within(coded(tmp_path, [clip]), "codes")
    once = plant(tmp_path / "b", "a", [1, 2], phones=[(0, 1, "p"), (1, 2, "q")], speaker="s")
    with pytest.raises(UserError, match="twice by one speaker"):
        abx_within(coded(tmp_path / "b", [once]), "codes")


def naive_warped(distance):
    """Every path, by the definition: the least sum, then the shortest, over its length."""
    m, n = distance.shape
    best = {}

    def walk(i, j, total, steps):
        total, steps = total + distance[i, j], steps + 1
        if (i, j) == (m - 1, n - 1):
            best[()] = min(best.get((), (np.inf, 0)), (total, steps))
            return
        for a, b in ((i + 1, j + 1), (i + 1, j), (i, j + 1)):
            if a < m and b < n:
                walk(a, b, total, steps)

    walk(0, 0, 0.0, 0)
    total, steps = best[()]
    return total / steps


def test_distances_are_those_of_every_path_tried():
    rng = np.random.default_rng(0)
    items = [rng.standard_normal((length, 3)) for length in (1, 2, 3, 4, 4, 5)]
    found = distance_matrix(items)
    for (i, a), (j, b) in itertools.product(enumerate(items), repeat=2):
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
        angles = np.arccos(np.clip(unit[0] @ unit[1].T, -1, 1)) / np.pi
        assert found[i, j] == pytest.approx(naive_warped(angles), abs=2e-6)
    assert np.array_equal(found, found.T) and not found.diagonal().any()


def test_an_opposite_vector_is_one_away_and_a_repeated_one_nowhere():
    x = np.array([[1.0, 0.0]])
    found = distance_matrix([x, -x, np.array([[0.0, 2.0]]), np.repeat(3 * x, 4, axis=0)])
    assert found[0].tolist() == [0.0, 1.0, 0.5, 0.0]


def naive_error(items, distances, across):
    by_pair = {}
    for p, q in itertools.permutations(sorted({item.phone for item in items}), 2):
        cells = {}
        for (a, x), b in itertools.product(itertools.permutations(range(len(items)), 2), range(len(items))):
            first, second, third = items[a], items[x], items[b]
            fits = (first.phone, second.phone, third.phone) == (p, p, q) and third.speaker == first.speaker
            if fits and (second.speaker != first.speaker) == across:
                error = float(distances[x, a] > distances[x, b]) + 0.5 * float(distances[x, a] == distances[x, b])
                cells.setdefault((first.speaker, second.speaker), []).append(error)
        if cells:
            by_pair[p, q] = np.mean([np.mean(cell) for cell in cells.values()])
    return np.mean(list(by_pair.values()))


@pytest.mark.parametrize("across", [False, True])
def test_errors_are_those_of_every_triple_counted(across):
    rng = np.random.default_rng(1)
    items = [AbxItem(f"s{rng.integers(3)}", f"p{rng.integers(4)}", rng.standard_normal((2, 3))) for _ in range(30)]
    distances = distance_matrix([item.frames for item in items]).round(1)  # with ties
    found = abx_error(items, distances, across)
    assert found.value == pytest.approx(naive_error(items, distances, across), abs=1e-6)


def test_the_standard_error_is_about_the_spread_of_new_speakers():
    """Over many draws of speakers, scores spread as one draw's standard error says."""
    rng = np.random.default_rng(2)

    def draw():
        items = []
        for s in range(8):
            kept = rng.uniform(0, 1)  # of the speaker: how much of the phone is there
            for p in range(3):
                for _ in range(2):
                    frame = kept * np.eye(3)[p] + 0.4 * rng.standard_normal(3)
                    items.append(AbxItem(f"s{s}", f"p{p}", frame[None]))
        return abx_error(items, distance_matrix([item.frames for item in items]), across=False)

    drawn = [draw() for _ in range(40)]
    spread = np.std([one.value for one in drawn], ddof=1)
    assert 0.6 < np.mean([one.stderr for one in drawn]) / spread < 1.6


def test_frames_of_a_phone_are_those_whose_middle_lies_in_it():
    assert frames_of(Phone(0.1, 0.2, "a"), 50.0, 100) == slice(5, 10)
    assert frames_of(Phone(0.11, 0.13, "a"), 50.0, 100) == slice(5, 6)  # 0.11 is a middle, 0.13 the next
    assert frames_of(Phone(0.5, 0.55, "a"), 5.0, 100) == slice(2, 3)  # no middle: the frame around it
    assert frames_of(Phone(1.9, 2.4, "a"), 5.0, 10) == slice(9, 10)  # longer than the clip
    assert frames_of(Phone(2.5, 2.6, "a"), 5.0, 10) == slice(9, 10)


def test_items_of_one_phone_by_one_speaker_are_limited():
    clips = [Clip(f"c{i}", "x", "speech", "test", speaker="s") for i in range(9)]
    phones = [(Phone(0.0, 0.04, "p"), Phone(0.04, 0.08, "q"))] * 9
    frames = [np.arange(8.0).reshape(4, 2)] * 9
    items = items_of(clips, phones, frames, 50.0, most=4)
    assert [item.phone for item in items] == 4 * ["p"] + 4 * ["q"]
    assert items[0].frames.tolist() == [[0, 1], [2, 3]] and items[-1].frames.tolist() == [[4, 5], [6, 7]]
