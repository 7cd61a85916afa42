"""Phone codes as units of the phone expert: k-means of its frames, found before training (HuBERT, Hsu et al. 2021).

Where the phone branch learns from nothing beside the others, it comes to carry what the sound needs next, and hardly a
word (LOG.md). Units stay what the expert hears: all that lies before the codebook is set here, once, and learns no
more. The codebook goes on following the data.
"""

from __future__ import annotations

from itertools import count

import torch
from torch import Tensor, nn
from vector_quantize_pytorch.vector_quantize_pytorch import kmeans

from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.structural_branch import BRANCHES, FEATURE_FRAMES, StructuralBranch
from training.codec.audio_crops import AudioCrops, load_batch

PHONE_PARTS = ("downsample.phone", "fusion.phone", "film.phone", "quantiser.phone", "phone_decoder")
_FRAMES_PER_CODE = 64
_ITERATIONS = 30


def before_codebook(branch: StructuralBranch) -> nn.ModuleList:
    """What lies between the phone expert's features and the phone codebook."""
    into: nn.Module = branch.quantiser["phone"].project_in  # type: ignore[assignment]  # a layer, or the identity
    return nn.ModuleList([branch.downsample["phone"], branch.fusion["phone"], branch.film["phone"], into])


@torch.no_grad()
def set_phone_units(codec: ReasoningCodec, crops: AudioCrops) -> None:
    """Set the phone branch of a codec in eval mode; random numbers come from torch's generator.

    The frames of a structural frame, side by side, are projected on their first principal components and clustered.

    Args:
        codec: whose other branches have their scales, which the units are given too.
        crops: of training, from the first batch on.
    """
    branch, stacked = codec.structural, FEATURE_FRAMES["phone"]
    config, channels = branch.config, codec.experts["phone"].dims["phone"]
    codes, width = config.quantiser.codebook_size, config.quantiser.codebook_dim
    frames = _frames(codec, crops, codes * _FRAMES_PER_CODE)  # (N, 4 C)
    kept = min(channels, config.dim, width)
    mean = frames.mean(0)
    centred = frames - mean
    principal = torch.linalg.eigh(centred.T @ centred / len(frames)).eigenvectors[:, -kept:]  # (4 C, kept)
    quantiser = branch.quantiser["phone"]
    projects = isinstance(quantiser.project_out, nn.Linear)
    wanted = _deviation_of_others(codec, crops)
    principal = principal * (1.0 if projects else wanted) / (centred @ principal).std()
    units = nn.functional.pad(centred @ principal, (0, width - kept))
    means, counts = kmeans(units[None], codes, _ITERATIONS)
    _set(branch.downsample["phone"], principal.T.unflatten(1, (stacked, channels)).transpose(1, 2), -mean @ principal)
    _set(branch.fusion["phone"], torch.eye(kept, channels), None)
    for parameter in branch.film["phone"].parameters():  # the identity, with which it begins
        nn.init.zeros_(parameter)
    if projects:
        _set(quantiser.project_in, torch.eye(kept, config.dim), None)
        nn.init.normal_(quantiser.project_out.weight)
        nn.init.zeros_(quantiser.project_out.bias)
        quantiser.project_out.weight.mul_(wanted / quantiser.project_out(means[0]).std())
    book = quantiser.layers[0]._codebook
    book.embed.copy_(means)
    book.cluster_size.copy_(counts.clamp(min=1) * crops.size / len(frames))
    book.embed_avg.copy_(book.embed * book.cluster_size[..., None])
    book.initted.fill_(True)


def _frames(codec: ReasoningCodec, crops: AudioCrops, wanted: int) -> Tensor:
    """(N, 4 C) phone features of structural frames, from batches until there are enough."""
    gathered: list[Tensor] = []
    for index in count():  # small corpora come again
        features = codec.extract_features(*load_batch(crops.batch(index)))
        phone = features.values["phone"].transpose(1, 2).unflatten(1, (-1, FEATURE_FRAMES["phone"])).flatten(2)
        gathered.append(phone[features.structural_mask])
        if sum(map(len, gathered)) >= wanted:
            break
    return torch.cat(gathered)[:wanted]


def _deviation_of_others(codec: ReasoningCodec, crops: AudioCrops) -> float:
    """Mean deviation of what the other branches add to the condition, before they are quantised."""
    features = codec.extract_features(*load_batch(crops.batch(0)))
    branch = codec.structural
    fused = branch.fuse(features.values)
    others = [branch.quantiser[name] for name in BRANCHES if name != "phone"]
    added = [q.project_out(q.project_in(fused[name])) for q, name in zip(others, BRANCHES[1:], strict=True)]
    return float(torch.stack([part[features.structural_mask].std() for part in added]).mean())


def _set(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """The first outputs of a linear layer or convolution, and of a linear one the first inputs; all else is zero."""
    layer.weight.zero_()
    layer.bias.zero_()
    layer.weight[tuple(slice(size) for size in weight.shape)] = weight
    if bias is not None:
        layer.bias[: len(bias)] = bias
