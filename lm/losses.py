"""Losses of the language model: text cross-entropy, and stream-weighted cross-entropy over the codebooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_LOGITS = 1 << 24  # logits held at once (64 MiB in fp32); what bounds the memory of the loss


@dataclass(frozen=True)
class LossSettings:
    """Weights of the parts: loss = text_weight * text_loss + audio_weight * audio_loss."""

    # of the text loss
    text_weight: float = 1.0
    # of the audio loss
    audio_weight: float = 1.0
    # one weight per codebook; the audio loss is sum_c stream_weights[c] * loss_c. None is the plain mean. UniAudio 2.0
    # uses 2/8 for the first three and 1/8 for the rest in stage 2 (Eq. 16-17).
    stream_weights: tuple[float, ...] | None = None

    def weights_of(self, codebooks: int) -> tuple[float, ...]:
        """The weight of each codebook. Raises ValueError where there are not as many."""
        if self.stream_weights is None:
            return (1 / codebooks,) * codebooks
        if len(self.stream_weights) != codebooks:
            raise ValueError(f"stream_weights needs {codebooks} values, got {len(self.stream_weights)}")
        return self.stream_weights


@dataclass(frozen=True)
class LossCounts:
    """What the sums are divided by; the totals of all processes and accumulated batches for an exact mean."""

    # sum of the loss weights of text targets
    text: Tensor
    # number of audio targets, whatever their weight (published model, §A.4)
    audio: Tensor


def select_targets(mask: Tensor, loss: Tensor, position_ids: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows are targets, and how much each counts (published model, §A.4).

    Args:
        mask: (B, S+1, columns) bool, which columns are active.
        loss: (B, S+1) weight of each row as a target.
        position_ids: (B, S+1), restarting at 0 with every packed sentence; None: each entry is one sentence.

    Returns:
        is_text, is_audio (B, S) bool and weight (B, S) of the row *after* each of the first S rows. A row that opens a
        packed sentence (position 0) is nobody's target, just as the first row of a sentence on its own.
    """
    target_mask = mask[:, 1:]
    is_audio, is_text = target_mask[..., 0], target_mask[..., -1]
    if position_ids is not None:
        inside = position_ids[:, 1:] != 0
        is_audio, is_text = is_audio & inside, is_text & inside
    return is_text, is_audio, loss[:, 1:]


def cross_entropy(hidden: Tensor, heads: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy sums of C linear heads, without ever holding all logits.

    Differentiable in hidden and heads.

    Args:
        hidden: (N, C, d) inputs of the heads.
        heads: (C, d, V) matrices.
        targets: (N, C) int64.
        weights: Of rows (N,), or of each target (N, C).

    Returns:
        Sums (C,) fp32 over rows of weight * CE, in nats, and the weighted number (C,) of right argmaxes, detached.
    """
    weights = weights.float() if weights.ndim == 2 else weights.float()[:, None].expand(targets.shape)
    return _ChunkedCrossEntropy.apply(hidden, heads, targets, weights)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the gradients chunk by chunk on the way forward, so that neither logits nor their gradients are kept.

    Cheaper than checkpointing each chunk, which would compute every logit twice. Those of the heads are as large as the
    heads: every pass over them that can be saved is. The backward pass works once.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, heads: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        rows, codebooks, _ = hidden.shape
        chunk = max(1, CHUNK_LOGITS // heads.shape[-1])
        new = torch.empty_like if rows else torch.zeros_like
        hidden_grad = new(hidden) if ctx.needs_input_grad[0] else None
        heads_grad = new(heads) if ctx.needs_input_grad[1] else None
        sums = hidden.new_zeros(codebooks, dtype=torch.float32)
        correct = hidden.new_zeros(codebooks, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            for c in range(codebooks):
                head = heads[c].to(hidden.dtype)  # (d, V)
                for start in range(0, rows, chunk):
                    part = slice(start, start + chunk)
                    h, target, weight = hidden[part, c], targets[part, c, None], weights[part, c, None]
                    log_probs = torch.log_softmax((h @ head).float(), dim=-1)  # (n, V)
                    picked = log_probs.gather(1, target)  # (n, 1)
                    sums[c] -= (picked * weight).sum()
                    correct[c] += ((picked >= log_probs.amax(1, keepdim=True)) * weight).sum()
                    if hidden_grad is None and heads_grad is None:
                        continue
                    logits_grad = log_probs.exp_().scatter_add_(1, target, -torch.ones_like(picked))
                    logits_grad = logits_grad.mul_(weight).to(hidden.dtype)
                    if hidden_grad is not None:
                        hidden_grad[part, c] = logits_grad @ head.T
                    if heads_grad is not None and start == 0:
                        heads_grad[c] = h.T @ logits_grad
                    elif heads_grad is not None:
                        heads_grad[c] += h.T @ logits_grad
        ctx.save_for_backward(hidden_grad, heads_grad)
        ctx.mark_non_differentiable(correct)
        return sums, correct

    @staticmethod
    def backward(ctx: Any, sums_grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_grad, heads_grad = ctx.saved_tensors
        if hidden_grad is not None:
            hidden_grad = hidden_grad.mul_(sums_grad[None, :, None].to(hidden_grad.dtype))
        if heads_grad is not None:
            heads_grad = heads_grad.mul_(sums_grad[:, None, None].to(heads_grad.dtype))
        return hidden_grad, heads_grad, None, None
