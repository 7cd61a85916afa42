"""Resuming a run: what of its recipe and its inputs may differ from before, and what only if it is allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codec.io import aliases
from codec.io.errors import UserError
from codec.io.reading import load_yaml
from codec.io.strict import nearest, parse
from codec.io.terminal import shown

# Keys that may differ between a run and its continuation without being allowed. None of them changes what a step
# computes, but for `steps`, which stretches the schedule, and the spreading over processes and memory, which changes
# roundings (tests/training/engine/test_processes.py).
MAY_CHANGE = (
    "out",
    "steps",
    "save_every",
    "keep",
    "log_every",
    "validate_every",
    "engine.zero_stage",
    "engine.offload_optimiser",
    "engine.activation_checkpointing",
    "store",  # compared by its content, the fact `token_store`
)

# Facts of trainers (Run.check) that belong to keys of the recipe, and change with them. The others (vocabulary,
# tokenizers) may never change: the weights mean nothing without them.
FACT_KEYS = {
    "clips": ("corpora",),
    "init": ("init",),
    "supervised_model": ("init",),
    "audio_llm": ("audio_llm",),
    "token_store": ("store",),
    "order_of_sentences": ("store", "mixture", "texts", "seed", "context"),
}


@dataclass(frozen=True)
class Continuation:
    """How to resume."""

    # from which checkpoint; None: from the newest whole one
    checkpoint: Path | None = None
    # keys of the recipe that may have changed, which changes the run; "optimiser" stands for all keys under it
    allow_change: tuple[str, ...] = ()

    def allows(self, key: str) -> bool:
        """Whether a key of the recipe may have changed."""
        return any(f"{key}.".startswith(f"{allowed}.") for allowed in self.allow_change)


Resume = bool | str | Path | Continuation


def continuation(resume: Resume) -> Continuation | None:
    """The continuation that `resume` asks for: False none, True from the newest checkpoint, a path from that one."""
    if isinstance(resume, Continuation):
        return resume
    return Continuation(None if isinstance(resume, bool) else Path(resume)) if resume else None


def compare_recipes(
    recorded: str, recipe: str, cls: type, source: str, asked: Continuation, same_content: Sequence[str] = ()
) -> list[str]:
    """Compare the recipe of a checkpoint with that of the run that resumes from it.

    Args:
        recorded: the checkpoint's, as YAML, in former names too (codec/io/aliases.py).
        recipe: the run's, as YAML.
        cls: class of the run's recipe.
        source: names the checkpoint.
        asked: what may have changed.
        same_content: keys whose paths may differ, because what lies there is the same.

    Returns:
        A line for each change that was allowed.

    Raises:
        UserError: a key differs that may not; the first one is named.
    """
    trees = [aliases.present_tree(cls, load_yaml(recorded, source), source), load_yaml(recipe, source)]
    with contextlib.suppress(UserError):  # a recipe that this version cannot read any more stands as it is
        trees = [_written_out(cls, tree, source) for tree in trees]
    before, now = (dict(_leaves(tree)) for tree in trees)
    for key in asked.allow_change:
        known = {part for leaf in now for part in _prefixes(leaf)} - {"kind", "out"}
        if key not in known:
            raise UserError(f"--allow-change {shown(key)}: no key of this recipe{nearest(key, known)}")
    changes = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old == new or key in same_content:
            continue
        change = f"{key}: {old} before, {new} now"
        if key == "steps":
            changes.append(f"{change}, to which the schedule of the learning rate is stretched")
        elif asked.allows(key):
            changes.append(change)
        elif key == "kind":
            raise UserError(
                f"{source}: is a checkpoint of kind {old}, not {new}; train into another folder with out=..."
            )
        elif key not in MAY_CHANGE:
            raise UserError(
                f"{source}: its recipe has {key}: {old}, this one {key}: {new}; resume with the same, allow it with "
                f"--allow-change {key}, or train into another folder with out=..."
            )
    return changes


def compare_contents(
    recorded: Mapping[str, Any], contents: Mapping[str, Sequence[str]], recipe: Any, source: str, asked: Continuation
) -> tuple[list[str], list[str]]:
    """Compare hashes of what a recipe reads (training/inputs.py) with those of a checkpoint.

    Args:
        recorded: hashes of the checkpoint, by key, in former names too.
        contents: those of now.
        recipe: of the run that resumes.
        source: names the checkpoint.
        asked: what may have changed.

    Returns:
        The keys under which the content is the same, and a line for each change that was allowed.

    Raises:
        UserError: a file or folder changed; it is named.
    """
    recorded = aliases.present(type(recipe), recorded, source)
    same, changes = [], []
    for key, hashes in contents.items():
        if key not in recorded or not all(hashes):
            continue
        if list(hashes) == recorded[key]:
            same.append(key)
            continue
        if len(hashes) != len(recorded[key]):
            continue  # another list: compared with the rest of the recipe
        places = [
            place for place, old, new in zip(recipe.read_under(key), recorded[key], hashes, strict=True) if old != new
        ]
        if not asked.allows(key):
            raise UserError(
                f"{key}: {places[0]}: not what the run was trained on until {source}; resume with what was there, "
                f"allow it with --allow-change {key}, or train into another folder with out=..."
            )
        changes.append(f"{key}: what lies at {', '.join(places)} has changed")
    return same, changes


def compare_facts(
    recorded: Mapping[str, Any], facts: Mapping[str, Any], source: str, asked: Continuation
) -> tuple[list[str], list[str]]:
    """Compare a trainer's facts with those of a checkpoint; both are JSON values.

    Args:
        recorded: facts of the checkpoint.
        facts: those of the run that resumes.
        source: names the checkpoint.
        asked: what may have changed.

    Returns:
        A line for each change that was allowed, and the facts that the checkpoint does not state.

    Raises:
        UserError: a fact differs that may not; both sides are named.
    """
    changes, unknown = [], []
    for name, value in facts.items():
        if name not in recorded:
            unknown.append(name)
        elif recorded[name] != value:
            keys = FACT_KEYS.get(name, ())
            if not any(map(asked.allows, keys)):
                hint = f", or allow it with --allow-change {keys[0]}" if keys else ""
                raise UserError(
                    f"{source}: it was trained with {name} {recorded[name]}, this run has {value}; resume with the "
                    f"same{hint}"
                )
            changes.append(f"{name}: {recorded[name]} before, {value} now")
    return changes, unknown


def _written_out(cls: type, tree: dict[str, Any], source: str) -> dict[str, Any]:
    """A recipe with every key: a run from before a key was there has done what is its default now."""
    recipe = parse(cls, {name: value for name, value in tree.items() if name != "kind"}, source)
    return {name: tree[name] for name in ("kind",) if name in tree} | plain(asdict(recipe))


def plain(value: Any) -> Any:
    """A value as YAML holds it."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", value) of everything in nested groups that is no group itself; an empty group is a value."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, tree


def _prefixes(key: str) -> Iterator[str]:
    parts = key.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))
