"""Rewards of an analysis that can be verified: its statements against the labels of the corpus.

Each reward is one function of a clip and the text of an analysis (auditory_sentences/builders/analysis.py), in [0, 1],
and applies where the clip has the ground truth for it. ReasoningCodec's published reward is a judge of the consistency
with the ground truth (llm_judge.py); these check the same by rules, which only a right analysis satisfies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jiwer

from auditory_sentences.builders.analysis import (
    LEVEL_OF,
    TEMPO_LABELS,
    analysis_levels,
    described_labels,
    is_count,
    is_well_formed,
    read_analysis,
    read_labels,
)
from auditory_sentences.corpora.clip import Clip
from lm.words import as_number, normalise_words

TEMPO_TOLERANCE = 0.04  # MIREX audio tempo estimation
_PITCHES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1}
_KEY = re.compile(r"([a-g])\s?(#|♯|sharp|b|♭|flat|)\s+(major|minor)")


class Reward(NamedTuple):
    """A rule that scores an analysis."""

    # whether the clip has the ground truth for it
    applies: Callable[[Clip], bool]
    # (clip, analysis) -> [0, 1]
    score: Callable[[Clip, str], float]


def format_reward(clip: Clip, analysis: str) -> float:
    """1 where the analysis has the levels of this clip, each once and in order."""
    return float(is_well_formed(clip, analysis))


def words_reward(clip: Clip, analysis: str) -> float:
    """1 - word error rate of the transcript, 0 from one error per word on; case and punctuation do not count."""
    truth, stated = normalise_words(clip.text), normalise_words(read_analysis(analysis).get(LEVEL_OF["text"], ""))
    return max(0.0, 1.0 - jiwer.wer(truth, stated))


def tags_reward(clip: Clip, analysis: str) -> float:
    """F1 of the stated labels whose values are words: what is missing, wrong, invented or stated twice is penalised."""
    truth = {(label.lower(), normalise_words(value)) for label, value in _tags(clip).items()}
    others = {label.lower() for label in described_labels(clip).keys() - _tags(clip).keys()}
    stated = [(label, normalise_words(value)) for label, value in _stated(analysis) if label not in others]
    return 2 * len(truth & set(stated)) / (len(truth) + len(stated))


def tempo_reward(clip: Clip, analysis: str) -> float:
    """1 within 4 % of the beats per minute, 0.5 within 4 % of their double or half (MIREX's octave errors)."""
    label = _tempo_label(clip)
    truth, stated = as_number(clip.labels[label]), as_number(_only(analysis, label))
    for factor, reward in ((1.0, 1.0), (2.0, 0.5), (0.5, 0.5)):
        if stated is not None and abs(stated - factor * truth) <= TEMPO_TOLERANCE * factor * truth:
            return reward
    return 0.0


def key_reward(clip: Clip, analysis: str) -> float:
    """MIREX's weighted key score: 1 the same, 0.5 a fifth above, 0.3 the relative and 0.2 the parallel key."""
    truth, stated = read_key(clip.labels["key"]), read_key(_only(analysis, "key"))
    if stated is None:
        return 0.0
    above = (stated[0] - truth[0]) % 12  # semitones
    if stated[1] == truth[1]:
        return {0: 1.0, 7: 0.5}.get(above, 0.0)
    relative = 9 if truth[1] == "major" else 3
    return {relative: 0.3, 0: 0.2}.get(above, 0.0)


def count_reward(clip: Clip, analysis: str) -> float:
    """Mean over the clip's counts of 1 - |stated - true| / max(stated, true); a count that is not stated earns 0."""
    scores = []
    for label, value in _counts(clip).items():
        truth, stated = float(value), as_number(_only(analysis, label))
        right = stated is not None and 0 <= stated < float("inf")
        scores.append((1.0 if stated == truth else 1 - abs(stated - truth) / max(stated, truth)) if right else 0.0)
    return sum(scores) / len(scores)


# Name in a recipe -> reward.
REWARDS: Mapping[str, Reward] = {
    "format": Reward(lambda clip: bool(analysis_levels(clip)), format_reward),
    "words": Reward(lambda clip: bool(normalise_words(clip.text)), words_reward),
    "tags": Reward(lambda clip: bool(_tags(clip)), tags_reward),
    "tempo": Reward(lambda clip: _tempo_label(clip) is not None, tempo_reward),
    "key": Reward(lambda clip: read_key(clip.labels.get("key")) is not None, key_reward),
    "count": Reward(lambda clip: bool(_counts(clip)), count_reward),
}


def verified(clip: Clip, analysis: str, names: Mapping[str, float]) -> dict[str, float]:
    """Those of the named rewards that apply to the clip."""
    return {name: r.score(clip, analysis) for name, r in REWARDS.items() if name in names and r.applies(clip)}


def weighted_mean(scores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """One reward out of many, in [0, 1]; 0 where there is none."""
    total = sum(weights[name] for name in scores)
    return sum(weights[name] * score for name, score in scores.items()) / total if total else 0.0


def read_key(value: str | None) -> tuple[int, str] | None:
    """(pitch class of the tonic, "major" or "minor") of a key such as "F# minor"; None where it is none."""
    found = _KEY.fullmatch((value or "").strip().lower())
    if not found:
        return None
    letter, accidental, mode = found.groups()
    return (_PITCHES[letter] + _ACCIDENTALS[accidental]) % 12, mode


def _tempo_label(clip: Clip) -> str | None:
    return next((label for label in TEMPO_LABELS if (as_number(clip.labels.get(label)) or 0) > 0), None)


def _counts(clip: Clip) -> dict[str, str]:
    return {n: v for n, v in clip.labels.items() if is_count(n) and (as_number(v) is not None and as_number(v) >= 0)}


def _tags(clip: Clip) -> dict[str, str]:
    """The labels that are compared as words: those that no other reward compares."""
    own = {_tempo_label(clip), *_counts(clip)} | ({"key"} if read_key(clip.labels.get("key")) else set())
    return {label: value for label, value in described_labels(clip).items() if label not in own}


def _stated(analysis: str) -> list[tuple[str, str]]:
    return read_labels(read_analysis(analysis).get(LEVEL_OF["labels"], ""))


def _only(analysis: str, label: str) -> str | None:
    """The value stated for a label; None where it is stated twice: naming every value must not be rewarded."""
    values = [value for name, value in _stated(analysis) if name == label.lower()]
    return values[0] if len(values) == 1 else None
