"""Former names: what keys and values of recipes, configurations and checkpoints were called before.

Files of people outlive our names. `codec.io.strict.parse` reads a former key as the present one, everywhere and for
good; what is written has the present names. The identity of a codec is spelled in the names it first had, so that a new
name changes no fingerprint. Engines' states in checkpoints and the recipes recorded there are read through it too.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from codec.io.errors import UserError

# class -> former key -> present key; "a.b" is b of the mapping a
KEYS: dict[str, dict[str, str]] = {
    "DescriptiveConfig": {"gather": "downsampling"},
    "EvalTask": {"episode": "classification"},
    "GenerationSettings": {
        "structural_guidance": "stream_guidance.structural",
        "structural_temperature": "stream_temperature.structural",
    },
    "GrpoRecipe": {"branch_learns": "train_branch", "max_ids": "max_new_tokens"},
    "JointRecipe": {"keep_heard": "cache_features", "listener": "audio_llm"},
    "LanguageModelRecipe": {"listener": "audio_llm"},
    "MaskedPredictionConfig": {"hidden": "mask_share"},
    "Score": {"judge": "scorer"},
    "StructuralRecipe": {"keep_heard": "cache_features"},
}
# (class, present key) -> former value -> present value
VALUES: dict[tuple[str, str], dict[str, str]] = {
    ("DescriptiveConfig", "downsampling"): {"queries": "query", "pooling": "mean_pool"},
    ("Score", "scorer"): {"named": "label_in_text", "likeliest": "max_likelihood", "signal": "signal_classifier"},
}
# class -> key that is no more -> the value at which leaving it out changes nothing
REMOVED: dict[str, dict[str, Any]] = {
    "LanguageModelRecipe": {"validation_mixture": {}},
}
# class -> key that came later -> the value at which nothing is different from before
ADDED: dict[str, dict[str, Any]] = {
    "Classification": {"arbitrary_names": False, "examples_from": "train"},
    "EvalTask": {"apart": "", "dataset": None, "training": 600},
    "GenerationSettings": {"candidates": 1, "max_seconds": None},
    "Score": {"measure": "", "of": "", "published": None, "stream": ""},
}
# former part of a tensor's name in an engine's state -> present part
TENSORS = {"listener": "audio_llm", "judge": "output"}


def tensor(name: str) -> str:
    """The present name of a tensor in an engine's state."""
    return ".".join(TENSORS.get(part, part) for part in name.split("."))


def present_tree(cls: type, tree: Any, source: str) -> Any:
    """As `present`, of the dataclasses inside `cls` too; what is not of their form is left as it is.

    Args:
        cls: a dataclass.
        tree: plain values, such as YAML holds.
        source: names the file in errors.
    """
    if not isinstance(tree, Mapping):
        return tree
    kinds = typing.get_type_hints(cls)
    named = present(cls, tree, source)
    for key, value in named.items():
        members = (kind for kind in _members(kinds.get(key)) if isinstance(kind, type))
        inner = next((kind for kind in members if dataclasses.is_dataclass(kind)), None)
        if inner is not None and isinstance(value, (list, tuple)):
            named[key] = [present_tree(inner, member, source) for member in value]
        elif inner is not None:
            named[key] = present_tree(inner, value, source)
    return named


def _members(kind: Any) -> Iterator[Any]:
    """A type and the types it is made of: of `tuple[A, ...] | None` also A."""
    yield kind
    for member in typing.get_args(kind):
        yield from _members(member)


def present(cls: type, tree: Mapping[Any, Any], source: str) -> dict[Any, Any]:
    """Keys and values of a dataclass as they are called now. Raises UserError for a key under both names."""
    named: dict[Any, Any] = {}
    removed = REMOVED.get(cls.__name__, {})
    for key, value in tree.items():
        if key in removed and value == removed[key]:
            continue
        name = KEYS.get(cls.__name__, {}).get(key, key)
        if name in named or (name != key and name in tree):
            raise UserError(f"{source}: {key!r} is a former name of {name!r}; give it once, as {name!r}")
        group, _, member = name.partition(".") if name != key else (name, "", "")
        if member:
            if value is not None:  # which stood for no value of its own
                named[group] = {**named.get(group, tree.get(group) or {}), member: value}
            continue
        former = VALUES.get((cls.__name__, name), {})
        if group not in named:
            named[name] = former.get(value, value) if isinstance(value, str) else value
    return named


def former(cls: type, key: str, value: Any) -> tuple[str, Any]:
    """The key and the value under the names that they first had."""
    old_key = next((old for old, new in KEYS.get(cls.__name__, {}).items() if new == key), key)
    old_values = {new: old for old, new in VALUES.get((cls.__name__, key), {}).items()}
    return old_key, old_values.get(value, value) if isinstance(value, str) else value


def first_names(value: Any) -> Any:
    """Plain values of a dataclass, nested ones included, under the names that they first had, without later ones."""
    if dataclasses.is_dataclass(value):
        named: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            content = getattr(value, field.name)
            added = ADDED.get(type(value).__name__, {})
            if field.name not in added or content != added[field.name]:
                named |= _first_names(type(value), field.name, content)
        return named
    if isinstance(value, Mapping):
        return {key: first_names(content) for key, content in value.items()}
    return [first_names(content) for content in value] if isinstance(value, list | tuple) else value


def _first_names(cls: type, name: str, value: Any) -> dict[str, Any]:
    """One field, or those that it first was: of a mapping, each member that was a key."""
    keys = KEYS.get(cls.__name__, {}).items()
    members = {new.partition(".")[2]: old for old, new in keys if new.startswith(f"{name}.")}
    if not members:
        key, content = former(cls, name, value)
        return {key: first_names(content)}
    rest = {member: content for member, content in value.items() if member not in members}
    return {old: value.get(member) for member, old in members.items()} | ({name: rest} if rest else {})
