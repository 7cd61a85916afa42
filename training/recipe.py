"""Recipes: one YAML file that is the whole truth about one training run, read into strict dataclasses.

An unknown key, a missing key, a repeated key or a value of the wrong type is a `UserError` that names the file, the
key and, where one is near, the key that was probably meant. The command line may only override: `steps=200
optimiser.lr=1e-3`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from codec.errors import UserError
from codec.reading import load_yaml, read_yaml
from codec.strict import nearest, parse
from codec.terminal import shown

# What `kind:` may say, and where the recipe class and its `run(recipe, resume)` live.
TRAINERS = {
    "text_model": ("training.train_text", "TextModelRecipe"),
    "expert": ("training.train_expert", "ExpertRecipe"),
    "scalar": ("training.train_scalar", "ScalarRecipe"),
    "descriptive": ("training.train_descriptive", "DescriptiveRecipe"),
    "grpo": ("training.train_grpo", "GrpoRecipe"),
    "structural": ("training.train_structural", "StructuralRecipe"),
    "joint": ("training.train_joint", "JointRecipe"),
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


_RECIPES = (
    "the shipped ones lie in recipes/ of the source tree, not in an installed package; what is trained already is used "
    "with --model and --codec"
)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, after the overrides ("a.b=value"). Its `kind` picks the class."""
    tree = read_yaml(path, "recipe", _RECIPES)
    for override in overrides:
        _override(tree, override)
    kind = tree.pop("kind", None)
    if kind not in TRAINERS:
        raise UserError(
            f"{path}: kind must be one of {', '.join(TRAINERS)}, not {kind!r}{nearest(str(kind), TRAINERS)}"
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
    tree[last] = load_yaml(value, f"override {shown(text)}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
