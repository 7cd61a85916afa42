"""Former names are read as the present ones, and change no fingerprint."""

from __future__ import annotations

import importlib

import pytest

from codec.io import aliases
from codec.io.errors import UserError
from codec.io.strict import parse, without_defaults
from codec.reasoning.config import DescriptiveConfig
from evaluation.task import EvalTask, Score
from lm.generation.settings import GenerationSettings
from training.codec.losses.best_rq import MaskedPredictionConfig
from training.recipe import TRAINERS


def classes() -> dict[str, type]:
    found = {
        cls.__name__: cls for cls in (DescriptiveConfig, EvalTask, GenerationSettings, MaskedPredictionConfig, Score)
    }
    for module, name in TRAINERS.values():
        found[name] = getattr(importlib.import_module(module), name)
    return found


@pytest.mark.parametrize("name", aliases.KEYS)
def test_a_former_key_stands_for_a_present_one(name):
    cls = classes()[name]
    for old, new in aliases.KEYS[name].items():
        if "." in new:  # a member of a mapping, below
            continue
        assert new in cls.__dataclass_fields__ and old not in cls.__dataclass_fields__
        assert aliases.present(cls, {old: 1}, "r.yaml") == {new: 1}
        assert aliases.former(cls, new, 1) == (old, 1)
        with pytest.raises(UserError, match=f"r.yaml: '{old}' is a former name of '{new}'"):
            aliases.present(cls, {old: 1, new: 1}, "r.yaml")


def test_a_former_value_too_and_the_identity_keeps_it():
    read = parse(DescriptiveConfig, {"gather": "pooling"}, "config.json")
    assert read == DescriptiveConfig(downsampling="mean_pool")
    assert without_defaults(read) == {"gather": "pooling"}
    assert parse(DescriptiveConfig, {"gather": "queries"}, "config.json") == DescriptiveConfig()


def test_a_task_of_former_names_is_the_same_task():
    former = {"name": "class", "metric": "accuracy", "judge": "named", "label": "class"}
    read = parse(Score, former, "task.yaml")
    assert read == Score("class", "accuracy", "label_in_text", label="class")
    assert aliases.first_names(read).items() >= former.items()


def test_a_former_key_may_be_a_member_of_a_mapping():
    read = parse(
        GenerationSettings, {"max_rows": 9, "structural_temperature": 0.2, "structural_guidance": None}, "task.yaml"
    )
    assert read == GenerationSettings(9, stream_temperature={"structural": 0.2})
    assert aliases.first_names(read).items() >= {"structural_temperature": 0.2, "structural_guidance": None}.items()
    assert "max_seconds" not in aliases.first_names(read) and "max_seconds" in aliases.first_names(
        GenerationSettings(max_seconds=2.0)
    )
    other = aliases.first_names(GenerationSettings(9, stream_guidance={"semantic": 2.0}))
    assert other["stream_guidance"] == {"semantic": 2.0} and "stream_temperature" not in other


def test_a_removed_key_is_left_out_where_that_changes_nothing():
    cls = classes()["LanguageModelRecipe"]
    assert aliases.present(cls, {"validation_mixture": {}, "stage": 1}, "r.yaml") == {"stage": 1}
    assert aliases.present(cls, {"validation_mixture": {"asr": 1}}, "r.yaml") == {"validation_mixture": {"asr": 1}}


def test_dataclasses_inside_are_read_too():
    cls = classes()["DescriptiveRecipe"]
    tree = {"steps": 3, "descriptive": {"gather": "pooling"}, "experts": [{"role": "music"}]}
    expected = tree | {"descriptive": {"downsampling": "mean_pool"}}
    assert aliases.present_tree(cls, tree, "r.yaml") == expected
    assert aliases.present_tree(cls, {"descriptive": None, "experts": 4}, "r.yaml") == {
        "descriptive": None,
        "experts": 4,
    }
