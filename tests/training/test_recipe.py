"""Recipes: strict reading, overrides, writing out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from codec.io.errors import UserError
from tests import ROOT
from tests.factories.trainer import TinyRecipe
from training.recipe import EngineRecipe, OptimiserRecipe, load_recipe, parse, to_yaml

RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
STAGES = [path for path in RECIPES if path.stem.startswith("stage")]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    width: int = 4
    share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Everything:
    name: str
    flag: bool = False
    mode: Literal["fast", "slow"] = "fast"
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[int, ...] = ()
    weights: dict[str, float] | None = None
    sizes: Sizes = Sizes()
    path: Path = Path(".")


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_values_of_every_kind():
    tree = yaml.safe_load(
        "{name: x, flag: true, mode: slow, pair: [1, 2.5], many: [3], weights: {a: 1}, sizes: {width: 8, share: 1e-4}, "
        "path: a/b}"
    )
    read = parse(Everything, tree, "file")
    assert read == Everything(
        name="x",
        flag=True,
        mode="slow",
        pair=(1.0, 2.5),
        many=(3,),
        weights={"a": 1.0},
        sizes=Sizes(width=8, share=1e-4),
        path=Path("a/b"),
    )
    assert isinstance(read.weights["a"], float)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({}, ["'name'", "missing"]),
        ({"name": "x", "flags": True}, ["'flags'", "did you mean 'flag'"]),
        ({"name": "x", "sizes": {"widht": 3}}, ["'sizes.widht'", "did you mean 'width'"]),
        ({"name": 3}, ["'name'", "str", "3"]),
        ({"name": "x", "flag": 1}, ["'flag'", "bool"]),
        ({"name": "x", "sizes": {"width": 1.5}}, ["'sizes.width'", "int", "1.5"]),
        ({"name": "x", "sizes": {"width": True}}, ["'sizes.width'", "int", "True"]),
        ({"name": "x", "sizes": {"share": "half"}}, ["'sizes.share'", "float", "half"]),
        ({"name": "x", "sizes": 3}, ["sizes", "keys and values"]),
        ({"name": "x", "mode": "fsat"}, ["'mode'", "fast, slow", "did you mean 'fast'"]),
        ({"name": "x", "pair": [1]}, ["'pair'", "2 values"]),
        ({"name": "x", "many": [1, "a"]}, ["'many[1]'", "int"]),
        ({"name": "x", "weights": {"a": None}}, ["'weights.a'", "float"]),
    ],
)
def test_what_is_wrong_is_named(tree, words):
    with pytest.raises(UserError) as error:
        parse(Everything, tree, "my.yaml")
    assert all(word in str(error.value) for word in ["my.yaml", *words]), str(error.value)


@given(st.sampled_from(["lr", "betas", "warmup_steps", "schedule"]), st.sampled_from([None, [], {}, "?", [[1]]]))
def test_a_value_of_another_type_is_never_taken(key, value):
    with pytest.raises(UserError, match=key):
        parse(OptimiserRecipe, {key: value}, "f")


def test_overrides_win_and_are_checked(tmp_path):
    path = write(tmp_path, "kind: tiny\nout: runs/x\nsteps: 5\noptimiser: {lr: 0.1}\n")
    recipe = load_recipe(
        path, ["steps=7", "optimiser.warmup_steps=3", "optimiser.betas=[0.5, 0.6]", "engine.zero_stage=2"]
    )
    assert (recipe.steps, recipe.optimiser.lr, recipe.optimiser.warmup_steps) == (7, 0.1, 3)
    assert recipe.optimiser.betas == (0.5, 0.6) and recipe.engine.zero_stage == 2
    for override, words in (
        ("stepps=7", "did you mean 'steps'"),
        ("steps", "key.sub=value"),
        ("steps.more=1", "is a value"),
        ("=1", "key.sub=value"),
        ("steps=[", "cannot be read as YAML"),
    ):
        with pytest.raises(UserError, match=words):
            load_recipe(path, [override])


def test_a_key_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="recipe.yaml.*'steps' stands twice, again on line 4"):
        load_recipe(write(tmp_path, "kind: tiny\nout: x\nsteps: 5\nsteps: 6\n"))


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "kind: {"])
def test_what_is_no_recipe_is_refused(tmp_path, text):
    with pytest.raises(UserError, match="recipe.yaml"):
        load_recipe(write(tmp_path, text))


def test_missing_file_and_unknown_kind(tmp_path):
    with pytest.raises(UserError, match="nothing.yaml: no such recipe"):
        load_recipe(tmp_path / "nothing.yaml")
    with pytest.raises(UserError, match="did you mean 'structural'"):
        load_recipe(write(tmp_path, "kind: structual\n"))
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not text in UTF-8"):
        load_recipe(tmp_path / "recipe.yaml")


def test_written_out_and_read_back(tmp_path):
    recipe = TinyRecipe(out="x", steps=3, optimiser=OptimiserRecipe(lr=1e-5), engine=EngineRecipe(micro_batches=2))
    assert load_recipe(write(tmp_path, to_yaml(recipe))) == recipe


def test_the_order_of_keys_means_nothing(tmp_path):
    tree = yaml.safe_load(to_yaml(TinyRecipe(out="x", steps=3)))
    reversed_text = yaml.safe_dump(dict(reversed(tree.items())), sort_keys=False)
    assert load_recipe(write(tmp_path, reversed_text)) == TinyRecipe(out="x", steps=3)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("engine.precision=bf16", "zero_stage"),
        ("engine.offload_optimiser=true", "zero_stage"),
        ("engine.micro_batches=0", "at least 1"),
        ("optimiser.lr=0", "above 0"),
        ("save_every=0", "at least 1"),
    ],
)
def test_values_that_cannot_work_are_refused_with_the_file(tmp_path, override, words):
    with pytest.raises(UserError, match=f"recipe.yaml: .*{words}"):
        load_recipe(write(tmp_path, "kind: tiny\nout: x\nsteps: 1\n"), [override])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_recipes_are_read_and_written(path, tmp_path):
    recipe = load_recipe(path)
    assert load_recipe(write(tmp_path, to_yaml(recipe))) == recipe


@pytest.mark.parametrize("path", STAGES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_recipes_of_the_stages(path):
    """Weights as published, but for the text in the starter; each stage goes on from the one before."""
    recipe = load_recipe(path)
    streams = (0.25,) * 3 + (0.125,) * 5  # UniAudio 2.0 Eq. 16-17
    text, audio = {1: (1, 0), 2: (0, 1), 3: (1.6, 1), 4: (1.6, 1)}[recipe.stage]  # Eq. 13, 16, 18
    if path.parent.name == "starter" and recipe.stage > 2:
        text = 0 if path.stem == "stage3_from_text" else 0.2
    assert (recipe.loss.text, recipe.loss.audio, recipe.loss.streams) == (text, audio, streams)
    assert (recipe.loss.distillation > 0) == (recipe.stage == 1)
    assert path.stem.startswith(f"stage{recipe.stage}")
    if recipe.stage > 1:
        (before,) = (other for other in map(load_recipe, path.parent.glob("stage*.yaml")) if other.out == recipe.init)
        assert before.stage in (recipe.stage - 1, recipe.stage) and recipe.store == before.store
        assert recipe.context == before.context * (2 if recipe.stage == 4 else 1)
