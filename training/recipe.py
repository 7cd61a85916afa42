"""Recipes: one YAML file that is the whole truth about one training run, read into strict dataclasses.

An unknown key, a missing key, a repeated key or a value of the wrong type is a `UserError` that names the file, the
key and, where one is near, the key that was probably meant. The command line may only override: `steps=200
optimiser.lr=1e-3`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml

from codec.io.errors import UserError
from codec.io.numbers import Count, Filled, Index, Name, NonNegative, Positive, ProperShare, Seed, Share, Size
from codec.io.reading import load_yaml, read_yaml
from codec.io.shipped import names_shipped, shipped
from codec.io.strict import nearest, parse
from codec.io.terminal import shown
from training.engine.precision import Precision
from training.resume import Resume, plain

Corpora = Annotated[tuple[Name, ...], Filled()]  # folders or descriptions of corpora
Weights = dict[str, NonNegative]  # name -> weight

# Values of `kind:`, and where the recipe class and its `run(recipe, resume)` lie.
TRAINERS = {
    "text_model": ("training.lm.train_text", "TextModelRecipe"),
    "expert": ("training.codec.experts.train_expert", "ExpertRecipe"),
    "ctc": ("training.codec.experts.train_ctc", "CTCRecipe"),
    "scalar": ("training.codec.train_scalar", "ScalarRecipe"),
    "descriptive": ("training.codec.train_descriptive", "DescriptiveRecipe"),
    "grpo": ("training.codec.train_grpo", "GrpoRecipe"),
    "structural": ("training.codec.train_structural", "StructuralRecipe"),
    "joint": ("training.codec.train_joint", "JointRecipe"),
    "xcodec": ("training.codec.train_xcodec", "XCodecRecipe"),
    "almtokenizer": ("training.codec.almtokenizer.train_almtokenizer", "ALMTokenizerRecipe"),
    "reflow": ("training.codec.train_reflow", "ReflowRecipe"),
    "language_model": ("training.lm.train_lm", "LanguageModelRecipe"),
}


@dataclass(frozen=True, kw_only=True)
class OptimiserRecipe:
    """AdamW and its schedule. The defaults are UniAudio 2.0's argument defaults but for the length of the warm-up."""

    # peak learning rate, reached after warmup_steps updates
    lr: Positive = 2e-4
    # decay rates of AdamW's moving averages
    betas: tuple[ProperShare, ProperShare] = (0.9, 0.95)
    # added to AdamW's denominator
    eps: Positive = 1e-8
    # on matrices and embeddings; gains and biases have none
    weight_decay: NonNegative = 0.05
    # global gradient norm of an update, at most
    clip: Positive = 1.0
    # updates of the linear warm-up
    warmup_steps: Index = 100
    # after the warm-up: cosine falls to final_lr x lr at the last step, constant stays at lr
    schedule: Literal["cosine", "constant"] = "cosine"
    # of the cosine schedule, as a share of lr
    final_lr: Share = 0.1


@dataclass(frozen=True, kw_only=True)
class EngineRecipe:
    """How the work is spread over processes and memory: results do not depend on it, but for rounding.

    Each of W processes takes micro_batches / W micro-batches of an update, one after the other: the same recipe gives
    the same updates on any number of processes.
    """

    # micro-batches whose mean gradient makes one update, over all processes together
    micro_batches: Size = 1
    # ZeRO: 0 nothing is split over processes, 1 optimiser states, 2 also gradients, 3 also parameters
    zero_stage: Literal[0, 1, 2, 3] = 0
    # fp32; tf32: the same, products on a GPU rounded to 10 bits; mixed: fp32 weights, matrices multiplied in bfloat16;
    # fp16: the same in float16, the loss scaled, for GPUs without bfloat16; bf16: bfloat16 weights, fp32 master weights
    # in ZeRO 1 to 3
    precision: Precision = "fp32"
    # whether activations are computed again in the backward pass, which saves memory
    activation_checkpointing: bool = False
    # whether the optimiser's state lies in the CPU's memory; needs zero_stage 1 or more
    offload_optimiser: bool = False

    def __post_init__(self) -> None:
        if self.precision == "bf16" and self.zero_stage == 0:
            raise UserError(
                "engine.precision bf16 keeps its fp32 master weights in ZeRO: set engine.zero_stage to 1 or more "
                "(one process is enough)"
            )
        if self.offload_optimiser and self.zero_stage == 0:
            raise UserError("engine.offload_optimiser needs engine.zero_stage 1 or more")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every training run states. A trainer's own recipe adds its data, model and losses."""

    # Keys that name files and folders to read: their content is part of the run.
    READS: ClassVar[tuple[str, ...]] = ()

    # the run's folder: recipe, metrics log, TensorBoard events, checkpoints
    out: Name
    # updates of the whole run
    steps: Count
    # of initialisation, sample order and every other random number
    seed: Seed = 2048
    # steps between checkpoints
    save_every: Count = 1000
    # newest checkpoints that stay
    keep: Count = 2
    # steps between entries of the metrics log
    log_every: Count = 10
    # steps between validations; 0: none
    validate_every: Index = 0
    # AdamW and its schedule
    optimiser: OptimiserRecipe = OptimiserRecipe()
    # processes, precision and memory
    engine: EngineRecipe = EngineRecipe()

    def read_under(self, key: str) -> list[str]:
        """The paths and ids that are named under one of READS; "a.b" is b of a, or of each member of a."""
        values: list[Any] = [self]
        for name in key.split("."):
            values = [getattr(value, name) for value in values]
            values = [one for value in values for one in (value if isinstance(value, tuple) else (value,)) if one]
        return values


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, or the shipped one of that name, after the overrides. Its `kind` picks the class.

    Args:
        source: A file, or a name such as "starter/stage1"; a file that is there comes first.
        overrides: "key=value" or "group.key=value", the value as YAML.

    Raises:
        UserError: It cannot be read, or a key or value is missing, unknown, repeated or of another type.
    """
    path = Path(source)
    if not path.is_file():
        path = shipped("recipes", source) or path
    tree = read_yaml(path, "recipe", f"check the path; {names_shipped('recipes', source)}")
    try:
        cls = recipe_class(tree.pop("kind", None))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    _override(tree, overrides)
    return parse(cls, tree, str(path))


def recipe_class(kind: object) -> type[Recipe]:
    """The dataclass of a kind of recipe. Raises UserError where there is no such kind."""
    if not isinstance(kind, str) or kind not in TRAINERS:
        raise UserError(f"kind must be one of {', '.join(TRAINERS)}, not {shown(kind)}{nearest(str(kind), TRAINERS)}")
    module, name = TRAINERS[kind]
    return getattr(importlib.import_module(module), name)


def train(source: str | Path, overrides: Sequence[str] = (), resume: Resume = False) -> Path:
    """Train what a recipe says.

    Args:
        source, overrides: As of `load_recipe`.
        resume: As of `training.run.Run`.

    Returns:
        The folder of the trained model.
    """
    recipe = load_recipe(source, overrides)
    return importlib.import_module(TRAINERS[kind_of(recipe)][0]).run(recipe, resume)


def check_weights(key: str, weights: Mapping[str, float]) -> None:
    """Check that something has a weight.

    Raises:
        UserError: nothing has.
    """
    if not any(weights.values()):
        raise UserError(f"{key}: name at least one, with a weight above 0")


def check_heads(sizes: Any, key: str = "") -> None:
    """Check that attention heads divide the width.

    Args:
        sizes: has width, heads and kv_heads.
        key: where they stand in the recipe, such as "depth.".

    Raises:
        UserError: they do not.
    """
    width, heads, kv_heads = sizes.width, sizes.heads, sizes.kv_heads
    if width % heads or width // heads % 2:
        raise UserError(
            f"{key}heads: {heads} heads cannot share a width of {width}: {key}width must be an even multiple of it"
        )
    if heads % kv_heads:
        raise UserError(f"{key}kv_heads: must divide {key}heads, which is {heads}, not {kv_heads}")


def kind_of(recipe: Recipe) -> str:
    """The `kind:` under which a recipe's class is known."""
    return next(kind for kind, (_, name) in TRAINERS.items() if name == type(recipe).__name__)


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; `load_recipe` reads back an equal one."""
    return yaml.safe_dump(
        {"kind": kind_of(recipe)} | plain(dataclasses.asdict(recipe)), sort_keys=False, allow_unicode=True
    )


def _override(tree: dict, overrides: Sequence[str]) -> None:
    """Put "key.sub=value" into a recipe's tree, each key once."""
    given: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        *parents, last = key.split(".")
        if not equals or not all(part.strip() == part != "" for part in (*parents, last)):
            raise UserError(f"override {shown(text)} is not of the form key.sub=value")
        if key == "kind":
            raise UserError(f"override {shown(text)}: the kind of a recipe cannot be changed; give another recipe")
        if any(f"{key}.".startswith(f"{one}.") or f"{one}.".startswith(f"{key}.") for one in given):
            raise UserError(f"override {shown(text)}: {shown(key)} is given twice; give it once")
        given.append(key)
        group = tree
        for parent in parents:
            child = group[parent] = {} if group.get(parent) is None else group[parent]
            if not isinstance(child, dict):
                raise UserError(f"override {shown(text)}: {shown(parent)} is a value, not a group of keys")
            group = child
        group[last] = load_yaml(value, f"override {shown(text)}")
