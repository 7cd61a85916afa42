"""Conversations: several requests and their answers in a row, as one auditory sentence; what a session is made of.

Not one of the paper's five constructions: those link clips that belong together, few-shot episodes repeat one task, and
in a session with a person the next request may be anything. Training on some teaches the model that earlier turns are
there and need not matter.
"""

from __future__ import annotations

from auditory_sentences.builders.catalogue import Catalogue
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import TASKS, build, is_eligible
from auditory_sentences.lengths import row_limit
from auditory_sentences.rng import KeyedRng
from auditory_sentences.sentence import AuditorySentence, Segment

MIN_TURNS, MAX_TURNS = 2, 4
# What people ask for; tasks without a request (audio_only, text_only) are no turns. Analyses teach the codec, not the
# language model, whose turns are short, and so are about one clip each. Which turns there are, runs depend on.
_NO_TURNS = ("descriptive_to_structural", "structural_to_descriptive", "analysis", "speech_with_sound")
TURNS = tuple(task for task in TASKS.values() if task.prompted and not task.paths and task.name not in _NO_TURNS)


def turns_about(catalogue: Catalogue, position: int, bank: PromptBank) -> list[str]:
    """Names of the tasks that a turn can be.

    Args:
        catalogue: Of the split.
        position: Of the clip that the turn is about.
        bank: Prompts and label values.
    """
    return [task.name for task in TURNS if is_eligible(task, catalogue.clip(position), bank)]


def conversation(catalogue: Catalogue, bank: PromptBank, first: int, rng: KeyedRng, max_rows: int) -> AuditorySentence:
    """2 to 4 unrelated requests in a row, each with its answer, which is learned.

    Args:
        catalogue: Of the split.
        bank: Prompts and label values.
        first: Position of the clip that the first turn is about.
        rng: Draws the other clips and what the turns ask.
        max_rows: Of the sentence; turns that do not fit are left out from the end.

    Returns:
        A pure function of the arguments.
    """
    segments: list[Segment] = []
    clips = [first, *rng.sample(catalogue.members, rng.randint(MIN_TURNS, MAX_TURNS) - 1)]
    for position in clips:
        names = turns_about(catalogue, position, bank)
        if not names:
            continue
        longer = [*segments, *build(rng.choice(names), catalogue.stored(position), rng, bank).segments]
        if segments and row_limit(longer) > max_rows:
            break
        segments = longer
    return AuditorySentence(tuple(segments), f"conversation:{catalogue.clip(first).id}")
