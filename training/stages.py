"""The four stages of the language model (UniAudio 2.0 §4.4): what learns in each, in full or through LoRA.

| stage | learns | loss |
|---|---|---|
| 1 understanding warm-up | understanding layers, audio embeddings | text + semantic distillation |
| 2 generation warm-up | generation layers, depth decoder, audio head | audio: streams 2/8 x 3, 1/8 x 5 |
| 3 audio-text pre-training | everything | 1.6 text + 1 audio |
| 4 audio-text mid-training | everything, on longer contexts of auditory sentences | 1.6 text + 1 audio |

The weights stand in the recipes; this table is what the code knows. With LoRA the cross-modal layers keep their weights
and learn low-rank differences; their embeddings and text head stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from lm.losses import LossCounts, LossSettings
from lm.model import UniAudioForConditionalGeneration, UniAudioOutput
from training.distillation import SemanticDecoder, SemanticTargets

Stage = Literal[1, 2, 3, 4]

EVERYTHING = ("understanding", "audio_embeddings", "cross_modal", "generation", "depth", "audio_head")
LEARNS: dict[int, tuple[str, ...]] = {
    1: ("understanding", "audio_embeddings"),
    2: ("generation", "depth", "audio_head"),
    3: EVERYTHING,
    4: EVERYTHING,
}
LORA_TARGETS = r"cross_modal\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"


@dataclass(frozen=True, kw_only=True)
class LoraRecipe:
    """Low-rank differences on the cross-modal layers' matrices. Defaults: those of ReasoningCodec's text model."""

    rank: int = 32
    alpha: float = 32.0
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class LossRecipe:
    """Weights of the loss: text x text loss + audio x sum over streams + distillation x distillation loss.

    streams: of the eight codebooks (Eq. 16-17). distillation: the lambda_rec of Eq. 13, whose value is not published.
    """

    text: float
    audio: float
    streams: tuple[float, float, float, float, float, float, float, float]
    distillation: float = 0.0

    @property
    def settings(self) -> LossSettings:
        return LossSettings(self.text, self.audio, self.streams)


def set_learning(model: UniAudioForConditionalGeneration, stage: Stage, lora: LoraRecipe | None) -> None:
    """Mark what learns in the stage and freeze the rest, after adding LoRA where it is asked for."""
    if lora is not None:
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=LORA_TARGETS)
        inject_adapter_in_model(config, model)
    for group, members in model.named_groups().items():
        for name, parameter in members:
            frozen = lora is not None and group == "cross_modal" and ".lora_" not in name
            parameter.requires_grad_(group in LEARNS[stage] and not frozen)


def merge_lora(state: dict[str, Tensor], lora: LoraRecipe) -> dict[str, Tensor]:
    """A state dict with LoRA's differences added to the matrices they belong to: that of the model without LoRA."""
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


class Learner(nn.Module):
    """What the engine trains: the model, and in stage 1 the decoder of the distillation, which is then thrown away."""

    def __init__(
        self, model: UniAudioForConditionalGeneration, loss: LossRecipe, targets: SemanticTargets | None = None
    ) -> None:
        super().__init__()
        self.model, self.loss_recipe, self.targets = model, loss, targets
        self.decoder = None
        if targets is not None:
            self.decoder = SemanticDecoder(model.config.cross_modal.hidden_size, targets.dims)
            model.understanding.register_forward_hook(self._keep_understood)

    def forward(
        self, ids: Tensor, mask: Tensor, loss: Tensor, position_ids: Tensor, counts: LossCounts
    ) -> tuple[UniAudioOutput, Tensor]:
        """Packed rows as `UniAudioForConditionalGeneration.forward` takes them.

        Returns the model's output, its losses divided by `counts`, and the distillation loss of this batch (0 without).
        """
        output = self.model(ids, mask, loss, position_ids, self.loss_recipe.settings, counts)
        if self.targets is None:
            return output, torch.zeros((), device=ids.device)
        return output, self.decoder.loss(self._understood, self.targets(ids[:, :-1], mask[:, :-1]))

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict) -> None:
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs)

    def _keep_understood(self, module: nn.Module, inputs: tuple, output) -> None:
        self._understood = output.last_hidden_state  # (B, S, d)
