"""Keys of dataclasses with types, defaults and help, from the source."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from codec.field_help import field_comments, keys_of
from codec.io.numbers import Count, Range, Seed
from codec.io.strict import parse


@dataclass(frozen=True)
class Inner:
    """A group.

    width: of the network; depth: layers
        of it
    """

    width: Count = 4
    depth: Annotated[int, Range(1, 8)] = 2
    # The comment above
    # goes over two lines.
    name: str = "#1"  # behind # wins


@dataclass(frozen=True, kw_only=True)
class Outer:
    """The whole. seed, mode: both of these"""

    steps: Count  # number of updates
    seed: Seed = 0
    mode: Literal["a", "b"] = "a"
    rates: tuple[float, float] = (0.5, 1.0)
    inner: Inner = Inner(width=9)
    members: tuple[Inner, ...] = (Inner(depth=3),)
    perhaps: Inner | None = None
    weights: dict[str, float] = field(default_factory=lambda: {"x": 1.0})
    # No default and no words.


@dataclass(frozen=True, kw_only=True)
class Longer(Outer):
    steps: Count = 7
    more: bool = False  # of its own


def test_help_is_the_comment_else_what_the_docstring_says():
    assert field_comments(Inner) == {"width": "of the network", "depth": "layers of it", "name": "behind # wins"}
    assert field_comments(Longer)["steps"] == "number of updates", "inherited where it has no comment of its own"
    assert field_comments(Longer)["more"] == "of its own"


def test_every_key_that_is_read_is_described():
    keys = {key.name: key for key in keys_of(Outer)}
    assert list(keys)[:6] == ["steps", "seed", "mode", "rates", "inner.width", "inner.depth"]
    assert (keys["steps"].kind, keys["steps"].default) == ("integer at least 1", "")
    assert keys["seed"].kind == "integer at least 0" and keys["mode"].kind == "one of a, b"
    assert keys["rates"].kind == "list of 2 x number" and keys["rates"].default == "[0.5, 1.0]"
    assert keys["inner.width"].default == "9", "the default of the group, not of its class"
    assert keys["members"].default == "[{depth: 3}]" and keys["members[].depth"].default == "2"
    assert keys["perhaps"].default == "null" and keys["perhaps.width"].default == "4"
    assert keys["weights"].kind == "names with number each" and keys["weights"].default == "{x: 1.0}"
    assert keys["inner.depth"].kind == "integer at least 1 and at most 8"


def test_defaults_are_what_parse_reads():
    tree = {"steps": 1, "inner": {"width": 9}, "members": [{"depth": 3}], "rates": [0.5, 1.0]}
    assert parse(Outer, tree, "x") == Outer(steps=1)


@pytest.mark.parametrize(
    "kind", ["text_model", "scalar", "descriptive", "grpo", "structural", "joint", "reflow", "expert", "language_model"]
)
def test_keys_of_recipes(kind):
    from training.recipe import recipe_class

    keys = [key.name for key in keys_of(recipe_class(kind))]
    assert {"out", "steps", "optimiser.lr", "engine.precision"} <= set(keys) and len(keys) == len(set(keys))
