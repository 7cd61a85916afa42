"""What the judges of a run make of silence, of noise, of the codec and of the recordings: how far each can be believed.

A judge that gives silence or noise a score beside that of speech says nothing about speech.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from evaluation.report.side_by_side import Cell, Table
from evaluation.report.text import shown

ABOUT = (
    "Every score of sound, with other sounds in the answers' place: silence, noise with the recordings' spectra, what "
    "the codec gives back, and the recordings. A score says something where these differ."
)
_SOUNDS = {"silence": "Silence", "noise": "Noise", "codec": "Codec", "original": "Originals"}


def judged_sounds(results: Mapping) -> Table | None:
    """A row for each score of sound, once where several codecs or numbers of shots have it; None where there is none.

    Args:
        results: As in results.json.
    """
    scores: dict[tuple[str, str], Mapping] = {}
    for task in results["tasks"]:
        for score in task["scores"]:
            if "silence" in score:
                scores.setdefault((task["title"], score["name"]), score)
    if not scores:
        return None
    # Where the codec itself is evaluated, what it gives back is in the other tables.
    sounds = {key: title for key, title in _SOUNDS.items() if any(score[key] for score in scores.values())}
    rows = [_row(" · ".join(names), score, sounds) for names, score in scores.items()]
    return Table([Cell("Score of sound", name=True), *map(Cell, sounds.values())], [[row] for row in rows])


def _row(title: str, score: Mapping, sounds: Iterable[str]) -> list[Cell]:
    by = f"{score['scorer'].replace('_', ' ')}, {score['direction']} is better"
    return [Cell(title, by, name=True), *(Cell(shown(score, score[sound])) for sound in sounds)]
