"""How a new language model is initialised from the codec and from the audio LLM that the codec was trained with.

The codec's codebooks give the distances between audio ids, and in the audio LLM (training/codec/audio_llm.py) a text
model has been trained to read descriptive frames. Neither needs to be learned again from random embeddings: a row
enters the model as the sum of its eight embeddings, and the vector of a residual quantiser is an affine function of the
sum of its eight codes, so embeddings can be chosen whose sum is that vector. The heads start from the codebooks too:
similar codes start with similar logits, so that an update for one code also serves its neighbours. The published
project does not state how its audio embeddings and heads are initialised; this is ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from codec.io.errors import UserError
from codec.streams import StreamSpec
from codec.tokenizer import AudioTokenizer
from lm.model import UniAudioForConditionalGeneration
from training.lm.audio_projector import AudioProjector


def codebook_vectors(codec: AudioTokenizer, spec: StreamSpec) -> Tensor:
    """(codebooks, codes, dim): a vector for each code of a stream; those of a frame sum to its dequantised vector.

    That holds where dequantisation is affine in the sum over codebooks, as residual codebooks are.

    Args:
        codec: of the stream.
        spec: of the stream.
    """
    books = spec.codebooks
    ids = torch.zeros(books, spec.codes, books, dtype=torch.int64)
    for codebook in range(books):
        ids[codebook, :, codebook] = torch.arange(spec.codes)
    first = codec.dequantise(spec.name, ids[:1, :1])[0, 0]  # every codebook's code 0
    return (codec.dequantise(spec.name, ids) - first * (1 - 1 / books)).float()


@torch.no_grad()
def init_from_codec(
    model: UniAudioForConditionalGeneration, codec: AudioTokenizer, projector: AudioProjector | None
) -> None:
    """Give a new model the codec's codebooks as audio embeddings and heads, and the audio LLM's adapters.

    Embeddings of the first stream are the audio LLM's projection of its codebooks; those of the others (without a
    projector of all) and the heads are random projections that keep distances. Ids that are no codes stay random. The
    scale of audio rows, at which they enter the cross-modal layers, becomes that of the first stream's frames.

    Args:
        model: is changed in place.
        codec: whose ids it reads.
        projector: of the audio LLM; None: the model does without.

    Raises:
        UserError: the audio LLM belongs to another codec or text model.
    """
    layout, table, heads = model.config.layout, model.audio_embeddings.weight, model.audio_head
    width, dtype = table.shape[1], table.dtype
    scale = model.understanding.norm.weight.float().mean()  # of the text model's embeddings
    rows = table.view(layout.num_codebooks, layout.audio_size, width)

    vectors = [codebook_vectors(codec, spec) for spec in codec.streams]
    first = vectors[0]
    if projector is None:
        embedded = _projected(first, width, scale)
    else:
        _adapt(model, projector.adapters)
        if projector.projection.shape != (width, first.shape[-1]):
            raise UserError(
                f"the audio LLM projects {projector.projection.shape[1]} to {projector.projection.shape[0]} values, "
                f"but the codec's frames have {first.shape[-1]} and the text model {width}; use those it was "
                "trained with"
            )
        embedded = first @ projector.projection.T + projector.bias / len(first)
        scale = frame_scale(embedded)
        model.understanding.norm.weight.fill_(scale)
    rows.normal_(std=float(scale) / layout.num_codebooks**0.5)
    for i, (offset, one) in enumerate(zip(layout.offsets, vectors, strict=True)):
        here, books = slice(offset, offset + one.shape[1]), slice(len(one))
        rows[books, here] = (embedded if i == 0 else _projected(one, width, scale)).to(dtype)
        heads[books, :, here] = _heads(one, heads.shape[1]).to(dtype)


def frame_scale(vectors: Tensor) -> Tensor:
    """Root mean square of the sums of a vector from each codebook (codebooks, codes, dim), drawn independently."""
    mean = vectors.mean(1)  # (8, dim)
    spread = (vectors - mean[:, None]).square().mean((1, 2)).sum()
    return (mean.sum(0).square().mean() + spread).sqrt()


def _projected(vectors: Tensor, width: int, scale: Tensor) -> Tensor:
    """(8, codes, dim) -> (8, codes, width) through one random matrix, its sums of scale `scale` and mean 0."""
    vectors = vectors - vectors.mean(1, keepdim=True)
    projected = vectors @ torch.randn(vectors.shape[-1], width)
    return projected * (scale / frame_scale(projected).clamp(min=1e-12))


def _heads(vectors: Tensor, width: int) -> Tensor:
    """(8, codes, dim) -> (8, width, codes): the logits of each codebook start with a standard deviation of about 1.

    The depth decoder's vectors, which are multiplied with it, have a mean square of 1.
    """
    vectors = vectors - vectors.mean(1, keepdim=True)
    projected = vectors @ torch.randn(vectors.shape[-1], width)
    scale = projected.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-12)
    return (projected / (scale * width**0.5)).mT


def _adapt(model: UniAudioForConditionalGeneration, adapters: Mapping[str, Tensor]) -> None:
    for name, adapter in adapters.items():
        try:
            weight = model.cross_modal.get_submodule(name).weight
        except AttributeError as error:
            raise UserError(f"the audio LLM adapts '{name}', which the text model does not have") from error
        if weight.shape != adapter.shape:
            raise UserError(
                f"the audio LLM's '{name}' is {tuple(adapter.shape)}, the text model's {tuple(weight.shape)}; "
                "use the text model that it was trained with"
            )
        weight.copy_((weight.float() + adapter.to(weight.device)).to(weight.dtype))
