"""A release's own prompts: a JSON file of task -> sentences, kept in the model's folder and used in place of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import TASKS
from codec.io.errors import UserError
from codec.io.files import write_text
from codec.io.reading import read_json
from codec.io.terminal import shown

PROMPTS_FILE = "prompts.json"
MAX_TASKS, MAX_SENTENCES, MAX_LENGTH = 1000, 10_000, 10_000  # of a file, of a task, of a sentence in characters

# The release's name of a task -> ours; a file may use ours, too.
_RELEASED = {
    "ASR": "asr",
    "TTS": "tts",
    "InstructTTS": "instruct_tts",
    "TTA": "sound_generation",
    "TTM": "music_generation",
    "LTS": "song_generation",
    "lyric_recognition": "lyric_recognition",
    "audio_caption": "sound_caption",
    "music_caption": "music_caption",
    "audio_understanding": "audio_qa",
    "prompt_instruct_tts": "prompt_instruct_tts",
    "speech_edit": "speech_editing",
    "speech_denoise": "denoising",
    "speech_ss": "separation",
    "speech_s2s": "spoken_answer",
    "speech_s2t": "written_answer",
    "reason_to_semantic": "descriptive_to_structural",
    "semantic_to_reason": "structural_to_descriptive",
}
_PROMPTED = {name for name, task in TASKS.items() if task.prompted}


def read_prompts(path: str | Path) -> dict[str, list[str]]:
    """Task -> sentences, as a release's file has them. Raises UserError that names the file and the place."""
    remedy = "give the JSON file of the release that lists sentences for each task"
    values = read_json(path, "file of prompts", remedy)
    if not isinstance(values, dict) or not values:
        raise UserError(f"{path}: expected tasks with lists of sentences, found {shown(values)}; {remedy}")
    if len(values) > MAX_TASKS:
        raise UserError(f"{path}: {len(values)} tasks are more than {MAX_TASKS}; {remedy}")
    for task, sentences in values.items():
        if not isinstance(sentences, list) or not 0 < len(sentences) <= MAX_SENTENCES:
            raise UserError(f"{path}: {shown(task)} must list 1 to {MAX_SENTENCES} sentences, not {shown(sentences)}")
        for number, sentence in enumerate(sentences, 1):
            if not isinstance(sentence, str) or not sentence.strip() or len(sentence) > MAX_LENGTH:
                raise UserError(
                    f"{path}: {shown(task)}, sentence {number}: must be text of 1 to {MAX_LENGTH} characters, not "
                    f"{shown(sentence)}"
                )
    named: dict[str, str] = {}  # our task -> its name in the file
    for task in values:
        other = named.setdefault(_RELEASED.get(task) or task, task)
        if other != task:
            raise UserError(f"{path}: {shown(other)} and {shown(task)} are one task; keep one")
    if not used(values):
        raise UserError(f"{path}: names no task that this program has; it knows {', '.join(_RELEASED)}")
    return values


def used(prompts: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Our task -> sentences, of the tasks that we have."""
    named = {_RELEASED.get(task, task): sentences for task, sentences in prompts.items()}
    return {task: sentences for task, sentences in named.items() if task in _PROMPTED}


def unused(prompts: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of the tasks that we do not have."""
    return [task for task in prompts if _RELEASED.get(task, task) not in _PROMPTED]


def save_prompts(prompts: Mapping[str, Sequence[str]], folder: str | Path) -> None:
    """Write a release's prompts into a model's folder."""
    write_text(Path(folder) / PROMPTS_FILE, json.dumps(dict(prompts), indent=1, ensure_ascii=False) + "\n")


def bank_of(folder: str | Path) -> PromptBank:
    """The prompts of a model's folder where it has some, for the tasks that they cover; ours for all others."""
    own = PromptBank.load()
    path = Path(folder) / PROMPTS_FILE
    return replace(own, prompts={**own.prompts, **used(read_prompts(path))}) if path.exists() else own
