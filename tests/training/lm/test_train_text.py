"""The starter's text model: it learns, it resumes bit for bit, and transformers reads what it wrote."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from auditory_sentences.rng import KeyedRng
from codec.io.errors import UserError
from lm.text_tokenizer import TextTokenizer
from tests import ROOT
from training.lm.prompt_template import Dialogue
from training.lm.train_text import Text, TextModelRecipe, run
from training.metrics import read_metrics
from training.recipe import load_recipe, parse

RECIPES = ROOT / "recipes"


def tiny(out: Path, **changes) -> TextModelRecipe:
    values = {
        "out": str(out),
        "steps": 4,
        "save_every": 2,
        "keep": 3,
        "log_every": 1,
        "vocabulary": 700,
        "layers": 1,
        "width": 32,
        "mlp": 64,
        "context": 48,
        "batch": 4,
        "optimiser": {"lr": 1e-2, "warmup_steps": 3},
    }
    return parse(TextModelRecipe, values | changes, "the test")


def test_learns_and_transformers_reads_the_result(tmp_path):
    folder = run(tiny(tmp_path / "run", steps=40, save_every=40, validate_every=20))
    entries = read_metrics(tmp_path / "run")
    held_out = [entry["val/loss"] for entry in entries if "val/loss" in entry]
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert losses[-1] < 0.6 * losses[0] and held_out[1] < held_out[0]
    model, tokenizer = LlamaForCausalLM.from_pretrained(folder), TextTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == tokenizer.size and model.config.eos_token_id == tokenizer.eos
    ids = torch.tensor([tokenizer.wrap("two five nine")])
    assert model(input_ids=ids, labels=ids).loss < losses[0]


def test_interrupted_equals_uninterrupted(tmp_path):
    whole = run(tiny(tmp_path / "whole"))
    run(tiny(tmp_path / "cut"))
    (tmp_path / "cut" / "checkpoints" / "step-00000004").rename(tmp_path / "set_aside")  # as if killed before it
    resumed = run(tiny(tmp_path / "cut"), resume=True)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_rows_are_a_function_of_their_number(tmp_path):
    recipe = tiny(tmp_path)
    first, second = Text(recipe), Text(recipe)
    assert first.tokenizer.fingerprint == second.tokenizer.fingerprint
    assert torch.equal(first.batch(3), second.batch(3))
    assert not torch.equal(first.batch(3), first.batch(4))
    assert not torch.equal(first.batch(3), first.batch(3, held_out=True))
    assert first.batch(0).shape == (4, 48)


def test_dialogues_have_the_line_before_the_question(tmp_path):
    text = Text(tiny(tmp_path, dialogues=1.0, context=200))
    rows = text.tokenizer.decode(text.batch(0)[0].tolist())
    assert rows.startswith("USER: ") and " ASSISTANT: " in rows
    question = text._dialogue("a loud bell rings. what do you hear? bell", KeyedRng("any"))
    assert question == "USER: a loud bell rings\nwhat do you hear?\nASSISTANT: bell"


def test_own_text_files_serve_too(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"the number {i} comes after {i - 1}" for i in range(1, 200)))
    text = Text(tiny(tmp_path, texts=[str(tmp_path / "text.txt")], dialogues=0.0))
    held_out = text.tokenizer.decode(text.batch(0, held_out=True).flatten().tolist())
    trained = text.tokenizer.decode(text.batch(0).flatten().tolist())
    assert "the number 51 comes after 50" in held_out  # every fiftieth line, from the first
    assert "the number 51 comes after 50" not in trained


def test_it_learns_on_from_a_model_and_the_text_of_a_corpus(tmp_path):
    first = run(tiny(tmp_path / "first"))
    line = {"kind": "sound", "path": "0.wav", "split": "train", "caption": "a bell", "labels": {"class": "bell"}}
    lines = [json.dumps(line | {"id": "a"}), json.dumps(line | {"id": "b", "split": "dev", "caption": "unheard"})]
    (tmp_path / "clips.jsonl").write_text("\n".join(lines) + "\n")
    soundfile.write(tmp_path / "0.wav", [0.1] * 2400, 24000)
    changes = {"init": str(first), "corpora": [str(tmp_path)], "dialogues": 0.0}
    recipe = tiny(tmp_path / "second", steps=1, save_every=1, optimiser={"lr": 1e-12, "warmup_steps": 0}, **changes)
    said = " ".join(Text(recipe).tokenizer.decode(row) for row in Text(recipe).batch(0).tolist())
    assert "summary: a bell details: class: bell" in said and "unheard" not in said
    second = run(recipe)
    before, after = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.allclose(before[n], after[n], atol=1e-6) for n in before)
    assert TextTokenizer.from_pretrained(first).fingerprint == TextTokenizer.from_pretrained(second).fingerprint
    with pytest.raises(UserError, match="nothing"):
        run(replace(recipe, init=str(tmp_path / "nothing"), out=str(tmp_path / "third")))


def test_dialogue_ids_join_to_the_text(tmp_path):
    tokenizer = Text(tiny(tmp_path)).tokenizer
    dialogue = Dialogue("Which sound is this?", "dog")
    before, between, answer = dialogue.ids(tokenizer)
    assert before[0] == tokenizer.bos and answer[-1] == tokenizer.eos
    joined = [*before, *tokenizer.encode("a dog barks"), *between, *answer]
    assert joined == tokenizer.wrap(dialogue.text("a dog barks"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "heads: 5 heads cannot share"),
        ({"dialogues": 1.5}, "'dialogues' must be at least 0 and at most 1"),
        ({"init": "x", "tokenizer": "y"}, "tokenizer: leave it out"),
    ],
)
def test_impossible_recipes(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        tiny(tmp_path, **changes)


def test_text_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.txt: no such file of text"):
        Text(tiny(tmp_path, texts=["nowhere.txt"]))
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match="fewer than two lines"):
        Text(tiny(tmp_path, texts=[str(tmp_path / "empty.txt")]))


@pytest.mark.parametrize("name", ["text.yaml", "analysis_text.yaml"])
def test_the_shipped_recipes_are_valid(name):
    recipe = load_recipe(RECIPES / "starter" / name)
    assert replace(recipe, steps=1).steps == 1
