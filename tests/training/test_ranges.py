"""Every number of every recipe has a range, and what lies outside is refused by its key before anything is made."""

from __future__ import annotations

import dataclasses
import importlib
import math
import typing
from typing import Annotated, Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codec.io.errors import UserError
from codec.io.numbers import Range
from tests import ROOT
from training.recipe import TRAINERS, Recipe, load_recipe

RECIPES = ROOT / "recipes"
KINDS = [kind for kind in TRAINERS if kind != "tiny"]  # the tests' own
FILES = {
    "text_model": "starter/text",
    "expert": "starter/expert",
    "ctc": "starter/ctc_expert",
    "scalar": "starter/scalar",
    "descriptive": "starter/descriptive",
    "grpo": "full/grpo",
    "structural": "starter/codec",
    "joint": "starter/joint",
    "reflow": "starter/reflow",
    "xcodec": "full/xcodec",
    "almtokenizer": "full/almtokenizer_quantiser",
    "language_model": "full/finetune_lora",
}
# Texts that name no file or folder.
NO_PATHS = {"out", "tasks", "prompts", "url", "key_variable", "role", "scale", "held_out_tasks", "corpora", "store"}


def recipe_class(kind: str) -> type[Recipe]:
    module, name = TRAINERS[kind]
    return getattr(importlib.import_module(module), name)


def members(hint: Any, limits: tuple = ()) -> list[tuple[Any, tuple]]:
    """(plain type, what restricts it) of everything that an annotation is made of."""
    if typing.get_origin(hint) is Annotated:
        inner, *more = typing.get_args(hint)
        return members(inner, tuple(more))
    if typing.get_origin(hint) is not typing.Literal and typing.get_args(hint):
        return [found for part in typing.get_args(hint) for found in members(part)]
    return [(hint, limits)]


def numbers(cls: type, key: str = "") -> list[tuple[str, type, tuple]]:
    """(key, int or float, ranges) of every number in a recipe, those of nested groups included."""
    hints, found = typing.get_type_hints(cls, include_extras=True), []
    for field in dataclasses.fields(cls):
        for plain, limits in members(hints[field.name]):
            if plain in (int, float):
                found.append((key + field.name, plain, limits))
            elif dataclasses.is_dataclass(plain) and plain.__module__.startswith("training."):
                found += numbers(plain, f"{key}{field.name}.")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_has_a_range(kind):
    without = [key for key, _, limits in numbers(recipe_class(kind)) if not any(isinstance(x, Range) for x in limits)]
    assert not without, f"give these a kind of codec/io/numbers.py: {without}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_that_names_what_is_read_is_known_as_such(kind):
    """A path that is not among READS would not be compared when a run is resumed."""
    cls = recipe_class(kind)
    hints = typing.get_type_hints(cls, include_extras=True)
    texts = {f.name for f in dataclasses.fields(cls) if any(plain is str for plain, _ in members(hints[f.name]))}
    weights = {name for name in texts if typing.get_origin(hints[name]) is dict}
    rewards = {"rewards"}
    assert texts - weights - rewards - NO_PATHS <= {key.split(".")[0] for key in cls.READS}
    for key in cls.READS:
        assert key.split(".")[0] in {field.name for field in dataclasses.fields(cls)}


def tree_of(kind: str) -> dict:
    return yaml.safe_load((RECIPES / f"{FILES[kind]}.yaml").read_text())


@st.composite
def bad_numbers(draw) -> tuple[str, str, Any]:
    """(kind, key, number outside its range)"""
    kind = draw(st.sampled_from(KINDS))
    key, plain, limits = draw(st.sampled_from([n for n in numbers(recipe_class(kind)) if "." not in n[0]]))
    limit = next(x for x in limits if isinstance(x, Range))
    bad = [2**70, -(2**70), True, "many", None, [], {}]
    if plain is float:
        bad += [math.nan, math.inf, -math.inf]
    else:
        bad += [0.5]
    if math.isfinite(limit.low):
        bad += [limit.low - 1, -(2**40)] + ([limit.low] if limit.open else [])
    if math.isfinite(limit.high) and limit.high < 2**60:
        bad += [int(limit.high) + 1]
    return kind, key, draw(st.sampled_from(bad))


@settings(max_examples=300, deadline=None)
@given(bad_numbers())
@example(("text_model", "heads", 0))
@example(("text_model", "context", 0))
@example(("text_model", "layers", -1))
@example(("language_model", "understanding_layers", -1))
def test_a_number_outside_its_range_is_refused_by_its_key(tmp_path_factory, case):
    kind, key, value = case
    hint = typing.get_type_hints(recipe_class(kind), include_extras=True)[key]
    plain = typing.get_origin(typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint)
    if value is None and type(None) in typing.get_args(hint):
        return  # left out
    if plain is tuple and value == []:
        return  # as good as left out
    if plain is dict:
        value = {"asr": value}
        if value == {"asr": {}}:
            return
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree_of(kind) | {key: value}))
    with pytest.raises(UserError, match=f"{key}|is no finite number|fit 64 bits"):  # or the line of the YAML
        load_recipe(path)


@pytest.mark.parametrize(
    ("kind", "override", "words"),
    [
        ("text_model", "optimiser.betas=[1,1]", "optimiser.betas"),
        ("text_model", "optimiser.betas=[-0.1,0.9]", "optimiser.betas"),
        ("text_model", "optimiser.eps=-1", "optimiser.eps"),
        ("text_model", "optimiser.eps=0", "optimiser.eps"),
        ("text_model", "optimiser.weight_decay=.nan", "optimiser.weight_decay"),
        ("text_model", "optimiser.lr=.inf", "optimiser.lr"),
        ("text_model", "optimiser.final_lr=1.5", "optimiser.final_lr"),
        ("text_model", "optimiser.warmup_steps=-1", "optimiser.warmup_steps"),
        ("text_model", "engine.micro_batches=1180591620717411303424", "engine.micro_batches"),
        ("text_model", "heads=5", "heads: 5 heads cannot share"),
        ("text_model", "kv_heads=3", "kv_heads: must divide"),
        ("text_model", "texts=['']", "texts"),
        ("text_model", "out=", "out"),
        ("text_model", "out='  '", "out"),
        ("language_model", "mixture={}", "mixture: name at least one"),
        ("language_model", "mixture={asr: 0}", "mixture: name at least one"),
        ("language_model", "mixture={asr: .nan}", "is no finite number"),
        ("language_model", "mixture={asr: -1}", "mixture.asr"),
        ("language_model", "validation_mixture={asr: 1}", "unknown key 'validation_mixture'"),
        ("language_model", "loss.streams=[1,1,1,1,1,1,1,-1]", "loss.streams"),
        ("language_model", "loss={text: 0, audio: 0, streams: [1,1,1,1,1,1,1,1]}", "loss: "),
        ("language_model", "loss={text: 0, audio: 1, streams: [0,0,0,0,0,0,0,0]}", "loss: "),
        ("language_model", "lora.rank=0", "lora.rank"),
        ("language_model", "lora.dropout=1", "lora.dropout"),
        ("language_model", "lora.groups=[]", "lora.groups"),
        ("language_model", "depth.kv_heads=5", "depth.kv_heads"),
        ("language_model", "store=''", "store"),
        ("scalar", "corpora=[]", "corpora"),
        ("scalar", "adversary.fft_sizes=[]", "adversary.fft_sizes"),
        ("scalar", "adversary.fft_sizes=[0]", "adversary.fft_sizes"),
        ("scalar", "quietest_db=4", "quietest_db"),
        ("descriptive", "experts=[]", "experts"),
        ("descriptive", "tasks={asr: 0}", "tasks: name at least one"),
        ("descriptive", "augmentation.warp=1", "augmentation.warp"),
        ("grpo", "group=1", "group"),
        ("grpo", "temperature=0", "temperature"),
        ("grpo", "clip=1", "clip"),
        ("grpo", "rewards={}", "rewards"),
        ("grpo", "rewards={words: 0}", "rewards.words"),
        ("structural", "decode_guidance=0.5", "decode_guidance"),
        ("structural", "kinds={speach: 1}", "kinds: 'speach' is no kind of clip.*did you mean 'speech'"),
        ("structural", "kinds={speech: 0}", "kinds: name at least one"),
        ("joint", "kinds={sing: 1}", "kinds: 'sing' is no kind of clip"),
        ("structural", "corpus_shares=[1, 2, 3]", "corpus_shares: give each of the 1 corpora a number"),
        ("joint", "corpus_shares=[0]", "corpus_shares: give each of the 1 corpora a number, one of them above 0"),
        ("structural", "prefix_share=1.01", "prefix_share"),
        ("reflow", "student_steps=25", "student_steps"),
    ],
)
def test_what_cannot_work_is_refused(kind, override, words):
    with pytest.raises(UserError, match=words):
        load_recipe(RECIPES / f"{FILES[kind]}.yaml", [override])
