"""The layers of a training step on a CPU: with the library's weights and numbers, in fewer passes over memory.

Half of such a step's time goes by between the matrix products. What is saved: scores of rows of different sentences,
copies from one precision to another, repeated keys, and all that autograd would keep of a norm and a rotation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from lm.packed_attention import PackedSentences, packed_attention

LEAN = "lean"  # the attn_implementation of a model whose layers are these: it makes no masks


def make_lean(model: PreTrainedModel) -> None:
    """Have every decoder layer inside compute with the parts of this module: to train, not to generate with a cache.

    A model that has other layers than LLaMA's, or dropout in their attention, computes with the library's, unfused.
    """
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer  # brings in lm.model, which needs this whole

    layers = [part for part in model.modules() if hasattr(part, "self_attn")]
    if not all(type(layer) is LlamaDecoderLayer and not layer.self_attn.attention_dropout for layer in layers):
        model.set_attn_implementation("eager")  # in 16 bits a quarter of a step faster than the fused kernel
        return
    model.set_attn_implementation(LEAN)
    for layer in layers:
        layer.self_attn = LeanAttention(layer.self_attn)
        layer.input_layernorm = LeanNorm(layer.input_layernorm)
        layer.post_attention_layernorm = LeanNorm(layer.post_attention_layernorm)


class LeanAttention(nn.Module):
    """In the place of a `LlamaAttention`, whose projections it takes over."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.o_proj = attention.v_proj, attention.o_proj
        self.head_dim: int = attention.head_dim
        self.scaling: float = attention.scaling

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        packed: PackedSentences | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """As the library's; `packed` says which rows form a sentence.

        Raises:
            ValueError: There is a mask, or a cache of keys.
        """
        if attention_mask is not None or past_key_values is not None:
            raise ValueError("lean layers are for training alone: they know neither masks nor a cache")
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        made = packed_attention(query, key, value, position_embeddings, self.head_dim, self.scaling, packed)
        return self.o_proj(made), None


class LeanNorm(nn.Module):
    """In the place of a `LlamaRMSNorm`, whose weight it takes over: x / rms(x) * weight, computed in float32.

    Under autocast it gives the 16 bits to which each of the linear layers behind it would round by itself.
    """

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight: nn.Parameter = norm.weight
        self.variance_epsilon: float = norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:  # (..., d)
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        return _RMSNorm.apply(x, self.weight, self.variance_epsilon, dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide, ctx.dtype = x.float(), x.dtype
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        width = x.shape[-1]
        grad, unit = grad.float(), x.float() * scale
        product = grad * unit
        weight_grad = product.view(-1, width).sum(0) if ctx.needs_input_grad[1] else None
        along = (product @ weight.float()).div_(-width)[..., None]
        x_grad = torch.mul(grad, weight).addcmul_(unit, along).mul_(scale)
        return x_grad.to(ctx.dtype), weight_grad, None, None


def _not_alone(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    raise ValueError(f"attn_implementation {LEAN} is set by make_lean, which replaces the layers as well")


AttentionInterface.register(LEAN, _not_alone)
