"""Codebooks that start from what expert encoders hear (ALMTokenizer's semantic prior, Yang et al. 2025).

The paper starts its codebooks from k-means of the features of wav2vec 2.0 and BEATs, and does not say how vectors of
another dimension become codes. Here the features of an expert, averaged over each query's window, are clustered; the
code of a cluster is the mean of what its queries leave the level to code. So the codes lie where the queries lie, and
queries of sounds that the expert takes for alike begin with codes that are alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from vector_quantize_pytorch.vector_quantize_pytorch import kmeans

from codec.almtokenizer.codec import ALMTokenizer
from codec.experts.base import ExpertEncoder
from codec.io.errors import UserError
from codec.layers.masks import length_mask
from codec.tokens import SAMPLE_RATE

_ITERATIONS = 20
_MOST = 64  # vectors for a code, at most


@torch.no_grad()
def set_codebooks(
    tokenizer: ALMTokenizer, experts: Sequence[ExpertEncoder], batches: Iterable[tuple[Tensor, Tensor, int]]
) -> None:
    """Set the codebooks of a tokenizer whose encoder is trained; random numbers come from torch's generator.

    Args:
        tokenizer: In eval mode, on the device of the experts and the batches.
        experts: The first starts the first codebook, the second the second; those beyond, and all where there is no
            expert, start from k-means of what they have to code.
        batches: Waveforms (B, n), zero beyond lengths (B,), and the window of the queries to take of them.

    Raises:
        UserError: There are fewer queries than codes.
    """
    gathered: list[list[Tensor]] = [[] for _ in range(1 + len(experts))]
    count = 0
    for waveforms, lengths, window in batches:
        at_window = tokenizer.with_window(window)
        frames = -(-lengths // at_window.samples_per_frame)
        mask = length_mask(frames, waveforms.shape[1] // at_window.samples_per_frame)
        queries = at_window.queries_of(at_window.patchify(waveforms), mask.repeat_interleave(window, dim=1))
        gathered[0].append(at_window.quantiser.project_in(queries)[mask].cpu())
        for features, expert in zip(gathered[1:], experts, strict=True):
            features.append(features_of_queries(at_window, expert, waveforms, lengths)[mask].cpu())
        count += 1
    residual, *heard = (torch.cat(parts) for parts in gathered)  # (N, codebook_dim), (N, C) each
    codes = tokenizer.config.codes
    if len(residual) < codes:
        raise UserError(
            f"fit_batches: {count} batches have {len(residual)} queries, too few for {codes} codes; take more batches"
        )
    kept = torch.randperm(len(residual))[: _MOST * codes]
    residual, heard = residual[kept], [features[kept] for features in heard]
    for number, level in enumerate(tokenizer.quantiser.layers):
        labels = clusters(heard[number] if number < len(heard) else residual, codes)
        sizes = torch.bincount(labels, minlength=codes)
        means = torch.zeros(codes, residual.shape[1]).index_add_(0, labels, residual) / sizes.clamp(min=1)[:, None]
        empty = sizes == 0
        means[empty] = residual[torch.randint(len(residual), (int(empty.sum()),))]
        book = level._codebook
        book.embed[0].copy_(means)
        book.cluster_size[0].copy_(sizes.clamp(min=1) / count)  # as many as a batch would add
        book.embed_avg.copy_(book.embed * book.cluster_size[..., None])
        book.initted.fill_(True)
        nearest = torch.cat([torch.cdist(part, means).argmin(1) for part in residual.split(4096)])
        residual = residual - means[nearest]


def features_of_queries(tokenizer: ALMTokenizer, expert: ExpertEncoder, waveforms: Tensor, lengths: Tensor) -> Tensor:
    """The last of an expert's features, averaged over the window of each query: (B, T, C)."""
    features = expert.features(waveforms, lengths)[list(expert.dims)[-1]]  # (B, C, frames)
    patches = waveforms.shape[1] // tokenizer.config.patches.samples
    middles = (torch.arange(patches) + 0.5) * tokenizer.config.patches.samples
    places = (middles * expert.rate / SAMPLE_RATE).long().clamp(max=features.shape[2] - 1)
    return features[:, :, places].unflatten(2, (-1, tokenizer.config.window)).mean(3).transpose(1, 2)


def clusters(vectors: Tensor, count: int) -> Tensor:
    """Cluster (N,) of each of (N, C) vectors, by k-means of what has mean 0 and deviation 1 in each channel."""
    vectors = (vectors - vectors.mean(0)) / vectors.std(0).clamp(min=1e-6)
    means, _ = kmeans(vectors[None], count, _ITERATIONS)
    return torch.cat([torch.cdist(part, means[0]).argmin(1) for part in vectors.split(4096)])
