"""Recipes: one YAML file that is the whole truth about one training run, read into strict dataclasses.

An unknown key, a missing key, a repeated key or a value of the wrong type is a `UserError` that names the file, the
key and, where one is near, the key that was probably meant. The command line may only override: `steps=200
optimiser.lr=1e-3`.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from codec.errors import UserError

T = TypeVar("T")

# What `kind:` may say, and where the recipe class and its `run(recipe, resume)` live.
TRAINERS = {
    "text_model": ("training.train_text", "TextModelRecipe"),
    "expert": ("training.train_expert", "ExpertRecipe"),
    "scalar": ("training.train_scalar", "ScalarRecipe"),
    "descriptive": ("training.train_descriptive", "DescriptiveRecipe"),
    "grpo": ("training.train_grpo", "GrpoRecipe"),
    "structural": ("training.train_structural", "StructuralRecipe"),
    "reflow": ("training.train_reflow", "ReflowRecipe"),
    "language_model": ("training.train_lm", "LanguageModelRecipe"),
}


@dataclass(frozen=True, kw_only=True)
class OptimiserRecipe:
    """AdamW and its schedule. The defaults are the published ones (UniAudio 2.0's argument defaults) but for the
    length of the warm-up.

    lr: peak learning rate, reached after `warmup_steps` updates
    weight_decay: on matrices and embeddings; gains and biases have none
    clip: largest global gradient norm of an update
    schedule: "cosine" falls to `final_lr` x lr at the last step; "constant" stays at lr after the warm-up
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.05
    clip: float = 1.0
    warmup_steps: int = 100
    schedule: Literal["cosine", "constant"] = "cosine"
    final_lr: float = 0.1

    def __post_init__(self) -> None:
        if not self.lr > 0 or not self.clip > 0 or self.warmup_steps < 0 or not 0 <= self.final_lr <= 1:
            raise UserError(
                "optimiser: lr and clip must be above 0, warmup_steps at least 0 and final_lr within [0, 1]"
            )


@dataclass(frozen=True, kw_only=True)
class EngineRecipe:
    """How the work is spread over processes and memory; nothing here changes what is computed, but for rounding.

    micro_batches: micro-batches whose mean gradient makes one update, over all processes together. Each of W processes
        takes micro_batches / W of them, one after the other: the same recipe gives the same updates on any number of
        processes.
    zero_stage: 0 nothing is split, 1 optimiser states, 2 also gradients, 3 also parameters
    precision: "bf16" keeps bfloat16 weights and activations with fp32 master weights in ZeRO, hence needs zero_stage
        >= 1; "mixed" keeps everything in fp32 and multiplies matrices in bfloat16 (autocast)
    """

    micro_batches: int = 1
    zero_stage: Literal[0, 1, 2, 3] = 0
    precision: Literal["fp32", "mixed", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    offload_optimiser: bool = False

    def __post_init__(self) -> None:
        if self.micro_batches < 1:
            raise UserError(f"engine.micro_batches must be at least 1, not {self.micro_batches}")
        if self.precision == "bf16" and self.zero_stage == 0:
            raise UserError(
                "engine.precision bf16 keeps its fp32 master weights in ZeRO: set engine.zero_stage to 1 or more "
                "(one process is enough)"
            )
        if self.offload_optimiser and self.zero_stage == 0:
            raise UserError("engine.offload_optimiser needs engine.zero_stage 1 or more")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every training run states. A trainer's own recipe adds its data, model and losses.

    out: the run's folder: recipe, journal, TensorBoard events, checkpoints
    steps: number of updates; seed: of initialisation, sample order and every random draw
    save_every, log_every, validate_every: in steps (validate_every 0: never); keep: newest checkpoints that stay
    """

    out: str
    steps: int
    seed: int = 2048
    save_every: int = 1000
    keep: int = 2
    log_every: int = 10
    validate_every: int = 0
    optimiser: OptimiserRecipe = OptimiserRecipe()
    engine: EngineRecipe = EngineRecipe()

    def __post_init__(self) -> None:
        if min(self.steps, self.save_every, self.keep, self.log_every) < 1 or self.validate_every < 0:
            raise UserError("steps, save_every, keep and log_every must be at least 1 and validate_every at least 0")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, after the overrides ("a.b=value"). Its `kind` picks the class."""
    tree = _read_yaml(Path(path))
    for override in overrides:
        _override(tree, override)
    kind = tree.pop("kind", None)
    if kind not in TRAINERS:
        raise UserError(
            f"{path}: kind must be one of {', '.join(TRAINERS)}, not {kind!r}{_nearest(str(kind), TRAINERS)}"
        )
    module, name = TRAINERS[kind]
    return parse(getattr(importlib.import_module(module), name), tree, str(path))


def train(path: str | Path, overrides: Sequence[str] = (), resume: bool | str | Path = False) -> Path:
    """Train what the recipe says and return the model's folder.

    resume: True goes on from the run's newest checkpoint, a path from that checkpoint.
    """
    recipe = load_recipe(path, overrides)
    return importlib.import_module(TRAINERS[kind_of(recipe)][0]).run(recipe, resume)


def kind_of(recipe: Recipe) -> str:
    """The `kind:` under which a recipe's class is known."""
    return next(kind for kind, (_, name) in TRAINERS.items() if name == type(recipe).__name__)


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; `load_recipe` reads back an equal one."""
    return yaml.safe_dump(
        {"kind": kind_of(recipe)} | _plain(dataclasses.asdict(recipe)), sort_keys=False, allow_unicode=True
    )


def parse(cls: type[T], tree: Any, source: str, key: str = "") -> T:
    """A dataclass from a tree of plain values. `source` names the file in errors, `key` the place in it."""
    where = f"{source}: {key}: " if key else f"{source}: "
    if not isinstance(tree, dict):
        raise UserError(f"{where}expected keys and values, found {tree!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    for name in tree:
        if name not in fields:
            raise UserError(f"{source}: unknown key {_join(key, str(name))!r}{_nearest(str(name), fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in tree:
            raise UserError(f"{source}: key {_join(key, name)!r} is missing; it has no default")
    values = {name: _convert(hints[name], value, source, _join(key, name)) for name, value in tree.items()}
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def _convert(kind: Any, value: Any, source: str, key: str) -> Any:
    """`value` as the annotated type `kind`, or a UserError. Lossless readings only: 1 for a float, no 1.5 for an int"""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        members = [arg for arg in args if arg is not type(None)]
        for member in members[:-1]:
            try:
                return _convert(member, value, source, key)
            except UserError:
                continue
        return _convert(members[-1], value, source, key)
    if dataclasses.is_dataclass(kind):
        return parse(kind, value, source, key)
    if origin is Literal:
        if any(value == arg and type(value) is type(arg) for arg in args):
            return value
        choices = ", ".join(map(str, args))
        raise UserError(
            f"{source}: {key!r} must be one of {choices}, not {value!r}{_nearest(str(value), map(str, args))}"
        )
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        if origin is list or (len(args) == 2 and args[1] is Ellipsis):
            members = [args[0]] * len(value)
        else:
            members = list(args)
        if len(members) != len(value):
            raise UserError(f"{source}: {key!r} needs {len(members)} values, not {len(value)}")
        return origin(
            _convert(m, v, source, f"{key}[{i}]") for i, (m, v) in enumerate(zip(members, value, strict=True))
        )
    if origin is dict and isinstance(value, dict):
        return {
            _convert(args[0], k, source, key): _convert(args[1], v, source, _join(key, str(k)))
            for k, v in value.items()
        }
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            return float(value)
        except ValueError:
            pass
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    expected = kind.__name__ if isinstance(kind, type) and not args else str(kind).replace("typing.", "")
    raise UserError(f"{source}: {key!r} must be {expected}, not {value!r}")


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a repeated key instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} stands twice, again on line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such recipe; the shipped ones lie in recipes/") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not a YAML recipe: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: not a recipe: expected keys and values at the top")
    return tree


def _override(tree: dict, text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"override {text!r} is not of the form key.sub=value")
    *parents, last = key.split(".")
    for parent in parents:
        child = tree.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"override {text!r}: {parent!r} is a value, not a group of keys")
        tree = child
    try:
        tree[last] = yaml.load(value, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise UserError(f"override {text!r}: the value is not YAML") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
