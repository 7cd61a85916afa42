"""The four stages of the language model (UniAudio 2.0 §4.4): what is trained in each, in full or through LoRA.

| stage | trained | loss |
|---|---|---|
| 1 understanding warm-up | understanding layers, audio embeddings | text + semantic distillation |
| 2 generation warm-up | generation layers, depth decoder, audio head | audio: streams 2/8 x 3, 1/8 x 5 |
| 3 audio-text pre-training | everything | 1.6 text + 1 audio |
| 4 audio-text mid-training | everything, on longer contexts of auditory sentences | 1.6 text + 1 audio |

The weights of the loss stand in the recipes, the rest of the table here. With LoRA the groups it names, by default the
cross-modal layers, keep their weights and low-rank adapters are trained; their embeddings and heads stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from peft import inject_adapter_in_model
from torch import Tensor, nn

from codec.io.errors import UserError
from codec.io.numbers import Filled, NonNegative
from lm.losses import LossCounts, LossSettings
from lm.model import UniAudioForConditionalGeneration, UniAudioOutput
from training.lm.distillation import SemanticDecoder, SemanticTargets
from training.lm.lora import GroupLoraRecipe

Stage = Literal[1, 2, 3, 4]

EVERYTHING = ("understanding", "audio_embeddings", "cross_modal", "generation", "depth", "audio_head")
TRAINABLE: dict[int, tuple[str, ...]] = {
    1: ("understanding", "audio_embeddings"),
    2: ("generation", "depth", "audio_head"),
    3: EVERYTHING,
    4: EVERYTHING,
}


def default_streams(codebooks: int) -> tuple[float, ...]:
    """Weights of the codebooks: 2/8 for the first three, 1/8 for the others, as Eq. 16-17 have it for eight."""
    return (0.25,) * min(3, codebooks) + (0.125,) * max(0, codebooks - 3)


@dataclass(frozen=True, kw_only=True)
class LossRecipe:
    """Weights of the loss: text x text loss + audio x sum over codebooks + distillation x distillation loss."""

    # weight of the text loss
    text: NonNegative
    # weight of the audio loss
    audio: NonNegative
    # weights of the codebooks within the audio loss, one each; left out: 2/8 for the first three, 1/8 for the others
    streams: Annotated[tuple[NonNegative, ...], Filled()] = default_streams(8)
    # weight of the semantic distillation, lambda_rec of Eq. 13, whose value is not published
    distillation: NonNegative = 0.0

    def __post_init__(self) -> None:
        if not self.text + self.distillation and not (self.audio and sum(self.streams)):
            raise UserError("loss: text, audio and distillation must not all be without a weight")

    @property
    def settings(self) -> LossSettings:
        """As the model takes them."""
        return LossSettings(self.text, self.audio, self.streams)


def freeze_for_stage(model: UniAudioForConditionalGeneration, stage: Stage, lora: GroupLoraRecipe | None) -> None:
    """Make trainable what the stage trains and freeze the rest.

    Args:
        model: is changed in place.
        stage: 1 to 4.
        lora: adapters, which are added first; None: none.
    """
    if lora is not None:
        inject_adapter_in_model(lora.config, model)
    for group, parameters in model.named_groups().items():
        adapted = lora is not None and group in lora.groups
        frozen = group not in TRAINABLE[stage] or (lora is not None and lora.freeze_rest and not adapted)
        for name, parameter in parameters:
            parameter.requires_grad_(not frozen and (not adapted or ".lora_" in name))


class TrainingModule(nn.Module):
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
        """Forward pass over packed rows, as `UniAudioForConditionalGeneration.forward` takes them.

        Returns:
            The model's output, its losses divided by `counts`, and the distillation loss of this batch (0 without).
        """
        output = self.model(ids, mask, loss, position_ids, self.loss_recipe.settings, counts)
        if self.targets is None:
            return output, torch.zeros((), device=ids.device)
        return output, self.decoder.loss(self._understood, self.targets(ids[:, :-1], mask[:, :-1]))

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: dict) -> None:
        """Recompute the model's activations in the backward pass; as transformers' models."""
        self.model.activation_checkpointing_enable(activation_checkpointing_kwargs)

    def _keep_understood(self, module: nn.Module, inputs: tuple, output) -> None:
        self._understood = output.last_hidden_state  # (B, S, d)
