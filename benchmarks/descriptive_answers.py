"""What the text model answers from descriptive tokens alone, on clips that training never saw.

    python benchmarks/descriptive_answers.py RUN [--split test] [--limit 500] [--continuous]

RUN is the folder of a descriptive run (recipe.yaml, model/). Prints the word error rate of the transcripts, digits and
sentences apart, and the share of right answers to every question that a label of the clips answers, with chance: the
share of the commonest answer. --continuous reads the vectors before quantisation instead.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import jiwer
import torch
from rich.console import Console
from rich.table import Table

from auditory_sentences.catalogue import label_values
from auditory_sentences.corpora import read_corpora
from auditory_sentences.prompts import PromptBank
from codec.descriptive_encoder import DescriptiveEncoder
from lm.text_tokenizer import TextTokenizer
from training.listener import load_listener
from training.listening import Augmentation, Listening
from training.recipe import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="test", choices=("train", "dev", "test"))
    parser.add_argument("--limit", type=int, default=500, help="clips of each task")
    parser.add_argument("--continuous", action="store_true", help="leave quantisation out")
    parser.add_argument("--corpora", nargs="+", help="instead of the recipe's")
    arguments = parser.parse_args()

    recipe, model = load_recipe(arguments.run / "recipe.yaml"), arguments.run / "model"
    encoder = DescriptiveEncoder.from_pretrained(model)
    tokenizer = TextTokenizer.from_pretrained(recipe.text_model)
    listener, *_ = load_listener(encoder.branch, model, recipe.text_model, tokenizer, torch.float32)
    listener.eval()
    every = read_corpora(arguments.corpora or recipe.corpora)
    clips = [clip for clip in every if clip.split == arguments.split]
    names = ["asr", *(f"audio_qa:{label}" for label in label_values(clips)), "audio_yes_no"]
    data = Listening(
        clips, dict.fromkeys(names, 1.0), encoder, PromptBank.load(), 32, recipe.max_seconds, Augmentation(), False
    )
    table = Table("task", "clips", "score", "chance")
    results = {}
    for name in data.clips_of:
        truth, said, content = [], [], []
        for batch in data.questions(name, arguments.limit):
            questions = [example.dialogue.question for example in batch.examples]
            said += listener.answer(
                batch.speech, batch.music, batch.frames, questions, quantise=not arguments.continuous
            )
            truth += [example.dialogue.answer for example in batch.examples]
            content += [example.clip.labels.get("content", "speech") for example in batch.examples]
        if name == "asr":
            for kind in sorted(set(content)):
                chosen = [i for i, c in enumerate(content) if c == kind]
                results[f"WER, {kind}"] = (
                    jiwer.wer([truth[i] for i in chosen], [said[i] for i in chosen]),
                    len(chosen),
                    1,
                )
            results["WER"] = jiwer.wer(truth, said), len(truth), 1
        else:
            right = sum(t == s for t, s in zip(truth, said, strict=True)) / len(truth)
            results[name] = right, len(truth), Counter(truth).most_common(1)[0][1] / len(truth)
    for name, (score, count, chance) in results.items():
        table.add_row(name, str(count), f"{score:.3f}", f"{chance:.3f}")
    Console().print(table)
    print(json.dumps({name: round(score, 4) for name, (score, _, _) in results.items()}))


if __name__ == "__main__":
    with torch.no_grad():
        main()
