"""What the text model answers from descriptive tokens alone, on clips that training never saw.

    python benchmarks/descriptive_answers.py RUN [--split test] [--limit 500] [--continuous]
    python benchmarks/descriptive_answers.py CODEC --text-model FOLDER --corpora CORPUS

RUN is the folder of a descriptive or GRPO run, whose recipe says which text model and corpora; CODEC a codec with its
audio_llm.safetensors. Prints the word error rate of the transcripts, digits and sentences apart, the share of right
answers to every question that a label of the clips answers, and the verifiable rewards of the likeliest detailed
analyses (training/rl/rewards.py; means over the clips that each applies to), with the number of clips and chance: the
share of the commonest answer. --continuous reads the vectors before quantisation instead.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jiwer
import torch
from rich.console import Console
from rich.table import Table

from auditory_sentences.builders.catalogue import label_values
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.corpora.read import read_corpora
from codec.io.errors import UserError
from codec.io.terminal import run_program
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from lm.text_tokenizer import TextTokenizer
from training.codec.audio_llm import AudioLLM, load_audio_llm
from training.codec.audio_qa import AudioQAConfig, AudioQADataset, Example
from training.engine.checkpoint import resolve_model
from training.recipe import load_recipe
from training.rl.rewards import REWARDS, verified

_SECONDS = 30.0  # of the longest clips, where no recipe says it
_ANALYSIS_IDS = 96  # the starter's longest analyses have about 60


class Score(NamedTuple):
    value: float
    clips: int
    chance: float | None


def answers(
    audio_llm: AudioLLM, data: AudioQADataset, task: str, limit: int, quantise: bool
) -> list[tuple[Example, str]]:
    """Questions of a task and what is said."""
    pairs, most = [], _ANALYSIS_IDS if task == "analysis" else 48
    for batch in data.questions(task, limit):
        questions = [example.dialogue.question for example in batch.examples]
        said = audio_llm.answer(
            batch.speech, batch.music, batch.frames, questions, quantise=quantise, max_new_tokens=most
        )
        pairs += zip(batch.examples, said, strict=True)
    return pairs


def scores(task: str, pairs: list[tuple[Example, str]]) -> Iterator[tuple[str, Score]]:
    """Name and score, for each thing that a task measures."""
    if task == "asr":
        kinds = {example.clip.labels.get("content", "speech") for example, _ in pairs}
        chosen = {
            f"WER, {kind}": [p for p in pairs if p[0].clip.labels.get("content", "speech") == kind] for kind in kinds
        }
        for name, some in (*sorted(chosen.items()), ("WER", pairs)):
            truth, said = [example.dialogue.answer for example, _ in some], [text for _, text in some]
            yield name, Score(jiwer.wer(truth, said), len(some), 1.0)
    elif task == "analysis":
        found = [verified(example.clip, text, dict.fromkeys(REWARDS, 1.0)) for example, text in pairs]
        for name in REWARDS:
            values = [rewards[name] for rewards in found if name in rewards]
            if values:
                yield f"analysis: {name}", Score(sum(values) / len(values), len(values), None)
    else:
        truth = [example.dialogue.answer for example, _ in pairs]
        right = sum(answer == text for answer, (_, text) in zip(truth, pairs, strict=True))
        yield task, Score(right / len(pairs), len(pairs), Counter(truth).most_common(1)[0][1] / len(pairs))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="or the folder of a codec")
    parser.add_argument("--text-model", help="folder or hub id, instead of the recipe's")
    parser.add_argument("--split", default="test", choices=("train", "dev", "test"))
    parser.add_argument("--limit", type=int, default=500, help="clips of each task")
    parser.add_argument("--continuous", action="store_true", help="leave quantisation out")
    parser.add_argument("--corpora", nargs="+", help="instead of the recipe's")
    report(parser.parse_args())
    return 0


def report(arguments: argparse.Namespace) -> None:
    """Ask, and print table and JSON. Raises UserError for what a person can mend."""
    written, model = arguments.run / "recipe.yaml", resolve_model(arguments.run)
    recipe = load_recipe(written) if written.is_file() else None
    text_model, corpora = arguments.text_model, arguments.corpora
    if recipe is None and not (text_model and corpora):
        raise UserError(f"{arguments.run}: holds no recipe.yaml; name --text-model and --corpora")
    text_model, corpora = text_model or recipe.text_model, corpora or recipe.corpora
    encoder = DescriptiveEncoder.from_pretrained(model)
    tokenizer = TextTokenizer.from_pretrained(text_model)
    audio_llm, *_ = load_audio_llm(encoder.branch, model, text_model, tokenizer, torch.float32)
    audio_llm.eval()
    every = read_corpora(corpora)
    clips = [clip for clip in every if clip.split == arguments.split]
    names = [
        "asr",
        *(f"audio_qa:{label}" for label in label_values(clips)),
        "audio_yes_no",
        "speaker_verification",
        "analysis",
    ]
    config = AudioQAConfig(bank=PromptBank.load(), batch=32, max_seconds=recipe.max_seconds if recipe else _SECONDS)
    data = AudioQADataset(clips, dict.fromkeys(names, 1.0), encoder, config)
    table = Table("task", "clips", "score", "chance")
    results = {}
    for task in data.clips_of:
        for name, score in scores(task, answers(audio_llm, data, task, arguments.limit, not arguments.continuous)):
            chance = "–" if score.chance is None else f"{score.chance:.3f}"
            table.add_row(name, str(score.clips), f"{score.value:.3f}", chance)
            results[name] = round(score.value, 4)
    Console().print(table)
    print(json.dumps(results))


if __name__ == "__main__":
    with torch.no_grad():
        run_program("descriptive_answers", main)
