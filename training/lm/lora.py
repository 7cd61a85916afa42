"""LoRA: low-rank adapters trained in place of matrices; merged for use, and alone in peft's format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from peft import LoraConfig
from torch import Tensor

from codec.io.errors import UserError
from codec.io.numbers import Filled, Positive, ProperShare, Width
from codec.tensor_files import save_tensors

# Where a group's layers lie. Embeddings, heads and the depth decoder's projection have no adapters.
LAYERS = {
    "understanding": r"understanding",
    "cross_modal": r"cross_modal",
    "generation": r"generation",
    "depth": r"depth_decoder\.transformer",
}
MATRICES = r"layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
PEFT_WEIGHTS = "adapter_model.safetensors"  # the name that peft looks for, beside adapter_config.json


@dataclass(frozen=True, kw_only=True)
class LoraRecipe:
    """Low-rank adapters on a model's matrices. The defaults are those of ReasoningCodec's text model."""

    # rank of every adapter
    rank: Width = 32
    # scale: the product of an adapter's two matrices is multiplied by alpha / rank
    alpha: Positive = 32.0
    # dropout on the input of every adapter, a share
    dropout: ProperShare = 0.1


@dataclass(frozen=True, kw_only=True)
class GroupLoraRecipe(LoraRecipe):
    """Low-rank adapters on the matrices of some groups of layers of the language model."""

    # groups trained through adapters; the rest of them, embeddings and heads included, is frozen
    groups: Annotated[tuple[Literal["understanding", "cross_modal", "generation", "depth"], ...], Filled()] = (
        "cross_modal",
    )
    # whether the other groups are frozen too; else they are trained in full where the stage trains them
    freeze_rest: bool = False

    def __post_init__(self) -> None:
        if len(set(self.groups)) < len(self.groups):
            raise UserError("lora.groups must name no group twice")

    @property
    def config(self) -> LoraConfig:
        """As peft's LoraConfig."""
        layers = "|".join(LAYERS[group] for group in self.groups)
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=rf"({layers})\.{MATRICES}",
        )


def merge_lora(state: dict[str, Tensor], lora: LoraRecipe) -> dict[str, Tensor]:
    """A state dict with the adapters added to the matrices they belong to: that of the model without LoRA."""
    merged = {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        if name.endswith(".base_layer.weight"):
            module = name.removesuffix(".base_layer.weight")
            down, up = (state[f"{module}.lora_{side}.default.weight"].float() for side in "AB")  # (r, in), (out, r)
            tensor = (tensor.float() + lora.alpha / lora.rank * up @ down).to(tensor.dtype)
            name = f"{module}.weight"
        merged[name] = tensor
    return merged


def save_adapter(state: dict[str, Tensor], lora: GroupLoraRecipe, base: str, folder: Path) -> None:
    """Write the adapters of a state dict alone, as peft's `PeftModel.from_pretrained(model, folder)` reads them.

    Args:
        state: of the model with adapters, by the model's parameter names.
        lora: their settings.
        base: the model that they belong to, by folder or hub id.
        folder: to write into.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = lora.config
    config.base_model_name_or_path, config.inference_mode = base, True
    adapters = {
        f"base_model.model.{name.replace('.default.weight', '.weight')}": tensor
        for name, tensor in state.items()
        if ".lora_" in name
    }
    save_tensors(adapters, folder / PEFT_WEIGHTS)
    config.save_pretrained(str(folder))
