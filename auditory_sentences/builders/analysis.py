"""The detailed analysis of a clip: what is heard, on several levels, from a summary down to the words.

ReasoningCodec is trained on three-level analyses of speech, sound and music (V0's prompt tasks speech_reasoning,
sound_reasoning, music_reasoning); their wording is not published. Ours is made of what a corpus knows for certain, so
that a program can check it; analysis.json names the levels and where each comes from:

    summary: a low voice speaks slowly details: gender: male, pitch: low, speed: slow words: seven three
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lm.words import as_number

if TYPE_CHECKING:
    from auditory_sentences.corpora.clip import Clip

_DATA = json.loads(Path(__file__).with_name("analysis.json").read_text(encoding="utf-8"))
LEVELS: Mapping[str, str] = _DATA["levels"]  # level, in the order in which it is written -> field of the clip
LEVEL_OF: Mapping[str, str] = {source: level for level, source in LEVELS.items()}
JUDGE_QUESTION: str = _DATA["judge"]  # with places {truth} and {said}
TEMPO_LABELS = ("bpm", "tempo")  # of these, the one that is a number is in beats per minute
_MARKS = re.compile(rf"(?:^|\s)(?:{'|'.join(map(re.escape, LEVELS))}):")


def is_count(label: str) -> bool:
    """Whether the label says how many: "count", "speaker_count"."""
    return label == "count" or label.endswith("_count")


def described_labels(clip: Clip) -> dict[str, str]:
    """The labels that an analysis states: words, tempi and counts. Other numbers are measured, not heard."""
    return {
        label: value
        for label, value in sorted(clip.labels.items())
        if value
        and label not in LEVELS  # it would be read as the next level
        and (as_number(value) is None or label in TEMPO_LABELS or is_count(label))
    }


def analysis_levels(clip: Clip) -> dict[str, str]:
    """What each level of the clip's analysis says; levels that nothing is known about are left out."""
    labels = ", ".join(f"{label}: {value}" for label, value in described_labels(clip).items())
    known = {"caption": clip.caption, "labels": labels, "text": clip.text}
    return {level: known[source].strip() for level, source in LEVELS.items() if known[source].strip()}


def write_analysis(clip: Clip) -> str:
    """The clip's true analysis; "" where nothing but a caption is known, or nothing at all."""
    levels = analysis_levels(clip)
    if not levels.keys() - {LEVEL_OF["caption"]}:
        return ""
    return " ".join(f"{level}: {content}" for level, content in levels.items())


def read_analysis(text: str) -> dict[str, str]:
    """Level -> what it says, for the levels that are found in their order. Never fails: a model may say anything."""
    places, at = [], 0
    for level in LEVELS:
        found = re.compile(rf"(?:^|\s){re.escape(level)}:").search(text, at)
        if found:
            places.append((level, found.start(), at := found.end()))
    ends = [*(start for _, start, _ in places), len(text)][1:]
    return {level: text[begin:end].strip() for (level, _, begin), end in zip(places, ends, strict=True)}


def is_well_formed(clip: Clip, text: str) -> bool:
    """Whether a text has just the levels that this clip's analysis has, each once, in order, none of them empty."""
    levels = read_analysis(text)
    whole = " ".join(f"{level}: {content}" for level, content in levels.items())
    return (
        list(levels) == list(analysis_levels(clip))
        and all(levels.values())
        and whole.split() == text.split()  # nothing stands before the first level
        and len(_MARKS.findall(text)) == len(levels)
    )


def read_labels(details: str) -> list[tuple[str, str]]:
    """(label, value) as often as they are stated in a level such as "gender: male, speed: slow"."""
    stated = (part.partition(":") for part in re.split(r",\s*(?=[^,:]+:)", details))
    return [(label.strip().lower(), value.strip()) for label, colon, value in stated if colon]
