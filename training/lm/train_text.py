"""The starter's text model: a small LLaMA with its tokenizer, trained on plain text, in the format of transformers.

It has the part that LLaMA-3.2 has at full size: the descriptive branch is supervised through it (training/codec/
train_descriptive.py), and the language model's cross-modal layers start from it (lm/text_backbone.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from auditory_sentences.builders.analysis import write_analysis
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.corpora.read import read_corpora
from auditory_sentences.rng import KeyedRng
from auditory_sentences.starter.texts import starter_text
from codec.io.errors import UserError
from codec.io.numbers import Layers, Name, Share, Size, Width
from codec.tensor_files import share_weights
from lm.text_backbone import load_text_model
from lm.text_tokenizer import SentencePieceTokenizer, TextTokenizer
from training.engine.engine import Engine
from training.lm.prompt_template import Dialogue
from training.lm.text_lines import read_lines
from training.recipe import Recipe, check_heads
from training.resume import Resume
from training.run import Run

_LINE = 6  # ids of the shortest lines, about: a row of `context` ids needs at most context / _LINE lines


@dataclass(frozen=True, kw_only=True)
class TextModelRecipe(Recipe):
    """Text, tokenizer and sizes of a text model. Rows hold several lines, each between BOS and EOS."""

    READS = ("init", "texts", "tokenizer", "corpora")

    # folder or hub id of a LLaMA whose training continues, with its tokenizer and sizes; empty: a new model
    init: str = ""
    # text files with one example on each line; left out: the starter's own text
    texts: tuple[Name, ...] = ()
    # folders or descriptions of corpora, whose transcripts, captions and analyses are added to the texts
    corpora: tuple[Name, ...] = ()
    # share of lines that become a dialogue with the line in a recording's place: the model is trained to use its prompt
    dialogues: Share = 0.4
    # folder or hub id; empty: a sentencepiece model is trained on the text
    tokenizer: str = ""
    # pieces of that sentencepiece model, at most
    vocabulary: Width = 1024
    # transformer layers
    layers: Layers = 4
    # dimensions of the hidden states
    width: Width = 256
    # attention heads
    heads: Width = 4
    # heads of keys and values, shared by groups of attention heads
    kv_heads: Width = 2
    # dimensions inside the feed-forward layers
    mlp: Width = 768
    # text tokens in a row
    context: Size = 128
    # rows in a micro-batch
    batch: Size = 32

    def __post_init__(self) -> None:
        check_heads(self)
        if self.init and self.tokenizer:
            raise UserError("tokenizer: leave it out where init names a model, which comes with its own")


def run(recipe: TextModelRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the model: config.json, model.safetensors and the tokenizer."""
    with Run(recipe, resume) as run:
        text = Text(recipe)
        tokenizer = text.tokenizer
        run.check({"tokenizer": tokenizer.fingerprint})
        model = trained_llama(recipe.init) if recipe.init else LlamaForCausalLM(llama_config(recipe, tokenizer))

        def write_model(folder: Path, state: dict[str, Tensor]) -> None:
            model.save_pretrained(folder, state_dict=state)
            share_weights(folder)
            tokenizer.save_pretrained(folder)

        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        for step in run.steps():
            for index in engine.micro_batches(step):
                ids = text.batch(index).to(engine.device)  # (batch, context)
                loss = engine(input_ids=ids, labels=ids, use_cache=False).loss
                engine.backward(loss)
                engine.record(loss=loss)
                run.metric_logger.count(text_tokens=ids.numel())
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics())
            if run.validate_due(step):
                with engine.evaluating():
                    ids = text.batch(0, held_out=True).to(engine.device)
                    loss = float(engine(input_ids=ids, labels=ids).loss)
                run.metric_logger.write(step, {"val/loss": loss})
            if run.save_due(step):
                run.save(step, {"model": engine}, write_model, {"tokenizer": tokenizer.fingerprint})
    return run.model


def llama_config(recipe: TextModelRecipe, tokenizer: TextTokenizer) -> LlamaConfig:
    """Of a new model in the recipe's sizes."""
    return LlamaConfig(
        vocab_size=tokenizer.size,
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.bos,
        eos_token_id=tokenizer.eos,
        pad_token_id=tokenizer.pad,
    )


def trained_llama(source: str) -> LlamaForCausalLM:
    """A folder's or hub id's LLaMA, in float32 and training mode."""
    return load_text_model(source, torch.float32, LlamaForCausalLM).train()


class Text:
    """The recipe's text as rows of ids: row i is a pure function of the recipe and i."""

    def __init__(self, recipe: TextModelRecipe) -> None:
        self.recipe = recipe
        self.bank = PromptBank.load()
        self.files = [read_lines(path) for path in recipe.texts]
        if recipe.corpora:
            self.files.append(corpus_lines(recipe.corpora))
        if recipe.init or recipe.tokenizer:
            self.tokenizer = TextTokenizer.from_pretrained(recipe.init or recipe.tokenizer)
        else:
            self.tokenizer = SentencePieceTokenizer.train(self._tokenizer_text(), recipe.vocabulary)

    def batch(self, index: int, held_out: bool = False) -> Tensor:
        """Micro-batch `index`: (batch, context) int64. Held-out rows come from lines that training never draws."""
        rows = range(index * self.recipe.batch, (index + 1) * self.recipe.batch)
        return torch.tensor([self._row(i, held_out) for i in rows])

    def _row(self, index: int, held_out: bool) -> list[int]:
        ids: list[int] = []
        rng = KeyedRng("text", self.recipe.seed, held_out, index)
        count = self.recipe.context // _LINE + 1
        for line in self._lines(rng, count, held_out):
            if rng.bernoulli(self.recipe.dialogues):
                line = self._dialogue(line, rng)
            ids += self.tokenizer.wrap(line)
            if len(ids) >= self.recipe.context:
                break
        # A text of very few, short lines repeats itself.
        return (ids * (self.recipe.context // len(ids) + 1))[: self.recipe.context]

    def _lines(self, rng: KeyedRng, count: int, held_out: bool) -> Iterator[str]:
        starter = () if self.recipe.texts else tuple(starter_text(rng.randrange(1 << 62), count))
        for number in range(count):
            which = rng.randrange(len(self.files) + bool(starter)) if self.files else 0
            if which == len(self.files):
                yield starter[number]
                continue
            lines = self.files[which]
            # every fiftieth line of a file is held out
            index = rng.randrange(len(lines))
            yield lines[index - index % 50 if held_out else index if index % 50 else min(index + 1, len(lines) - 1)]

    def _dialogue(self, line: str, rng: KeyedRng) -> str:
        """A dialogue with the line in the recording's place."""
        recording, answer = line, line
        question = self.bank.prompt(rng.choice(("asr", "sound_caption", "music_caption")), rng)
        if "? " in line:  # a caption, a question and its answer
            stem, answer = line.rsplit("? ", 1)
            recording, _, question = stem.partition(". ")
            question += "?"
        return Dialogue(question, answer).text(recording)

    def _tokenizer_text(self) -> Iterator[str]:
        """What the tokenizer is trained on: the text, and the words of all prompts."""
        for task in sorted(self.bank.prompts):
            yield from self.bank.prompts[task]
        for phrasings in (*self.bank.questions.values(), *self.bank.yes_no.values()):
            yield from (phrasing.replace("{", "").replace("}", "") for phrasing in phrasings)
        yield from (Dialogue("?", "").text("") for _ in range(50))
        yield from (line for lines in self.files for line in islice(lines, 200_000))
        if not self.recipe.texts:
            yield from starter_text(self.recipe.seed, 20_000)


def corpus_lines(corpora: tuple[str, ...]) -> list[str]:
    """Transcript, caption and analysis of every training clip that has them."""
    clips = [clip for clip in read_corpora(corpora) if clip.split == "train"]
    lines = [line for clip in clips for line in (clip.text, clip.caption, write_analysis(clip)) if line.strip()]
    if len(lines) < 2:
        raise UserError(f"{', '.join(corpora)}: the training clips hold fewer than two lines of text")
    return lines
