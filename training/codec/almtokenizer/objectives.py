"""What an ALMTokenizer learns beside reconstruction (Yang et al. 2025): masked autoencoding and predictable queries.

The paper names both losses; what they compare is ours. Both networks here are thrown away after training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from codec.almtokenizer.codec import ALMTokenizer
from codec.almtokenizer.config import TransformerConfig
from codec.almtokenizer.transformer import Transformer
from codec.io.errors import UserError
from codec.io.numbers import Layers, NonNegative, Range, Share, Width
from codec.layers.masks import length_mask
from codec.tokens import SAMPLE_RATE

_FFT = 1024  # samples of the spectra that are predicted
_MELS = 80


@dataclass(frozen=True)
class MaskedRecipe:
    """Masked autoencoding: patches are hidden from the encoder, and the decoder says what was there."""

    # share of the patches that is hidden; 0: none, and no such loss
    share: Share = 0.3
    # patches that are hidden together: neighbours hold part of each other's samples
    span: Annotated[int, Range(1, 1024)] = 4
    # weight of the loss
    weight: NonNegative = 1.0


@dataclass(frozen=True)
class NextQueryRecipe:
    """A small causal transformer that predicts each quantised query from those before."""

    # weight of the loss; 0: none
    weight: NonNegative = 0.1
    # transformer layers
    layers: Layers = 2
    # channels
    dim: Width = 256
    # attention heads
    heads: Width = 4
    # queries that a layer looks back
    look_back: Annotated[int, Range(1, 2**15)] = 64

    def __post_init__(self) -> None:
        if self.dim % (2 * self.heads):
            raise UserError(f"next_query.dim {self.dim} must be an even multiple of next_query.heads, {self.heads}")


class MaskedAutoencoder(nn.Module):
    """Hides patches, and predicts log mel spectra where they were.

    Args:
        recipe: How much is hidden.
        samples: Of a patch.
        dim: Channels of patches and of the decoder's states.
    """

    filters: Tensor  # (bins, mels)
    window: Tensor  # (_FFT,)

    def __init__(self, recipe: MaskedRecipe, samples: int, dim: int) -> None:
        super().__init__()
        self.recipe, self.samples = recipe, samples
        self.hidden_patch = nn.Parameter(0.02 * torch.randn(dim))
        self.predict = nn.Linear(dim, _MELS)
        nn.init.constant_(self.predict.bias, -5.0)  # nepers: about the mean of recordings
        filters = melscale_fbanks(_FFT // 2 + 1, 0.0, SAMPLE_RATE / 2, _MELS, SAMPLE_RATE)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(_FFT), persistent=False)

    def choose(self, mask: Tensor) -> Tensor:
        """(B, T) bool: what to hide of the patches that are a clip's, mask (B, T); by torch's generator.

        Time is cut into spans at a random place, and each span is hidden with the recipe's chance.
        """
        clips, patches = mask.shape
        spans = torch.rand(clips, patches // self.recipe.span + 2, device=mask.device) < self.recipe.share
        starts = torch.randint(self.recipe.span, (clips, 1), device=mask.device)
        span_of = (torch.arange(patches, device=mask.device) + starts) // self.recipe.span  # (B, T)
        return spans.gather(1, span_of) & mask

    def hide(self, patches: Tensor, hidden: Tensor) -> Tensor:
        """Patches (B, T, dim) with one learned vector in place of what `hidden` (B, T) says."""
        return torch.where(hidden[..., None], self.hidden_patch.to(patches.dtype), patches)

    def spectra(self, waveforms: Tensor) -> Tensor:
        """Log mel amplitudes (B, T, mels) in nepers of waveforms (B, samples T), one spectrum centred on each patch."""
        rest = _FFT - self.samples
        padded = F.pad(waveforms, (rest // 2, rest - rest // 2)) if rest > 0 else waveforms
        spectrum = torch.stft(
            padded, _FFT, self.samples, window=self.window, center=False, return_complex=True
        )  # (B, bins, T)
        amplitude = spectrum.abs().transpose(1, 2) * (2.0 / self.window.sum())
        return torch.log(amplitude @ self.filters + 1e-3)

    def loss(self, states: Tensor, waveforms: Tensor, hidden: Tensor) -> Tensor:
        """Mean absolute error in nepers where patches were hidden. States (B, T, dim), waveforms (B, samples T)."""
        error = (self.predict(states) - self.spectra(waveforms)).abs().mean(2)  # (B, T)
        return (error * hidden).sum() / hidden.sum().clamp(min=1)


class NextQuery(nn.Module):
    """Predicts each quantised query from those before it. Its loss has no unit: queries cannot shrink to lower it.

    Args:
        recipe: Its sizes.
        dim: Channels of the quantised queries.
    """

    def __init__(self, recipe: NextQueryRecipe, dim: int) -> None:
        super().__init__()
        self.begin = nn.Parameter(torch.zeros(recipe.dim))
        self.take = nn.Linear(dim, recipe.dim)
        sizes = TransformerConfig(recipe.layers, recipe.heads, 2 * recipe.dim, recipe.look_back, look_ahead=0)
        self.transformer = Transformer(recipe.dim, sizes)
        self.predict = nn.Linear(recipe.dim, dim)

    def predictions(self, quantised: Tensor) -> Tensor:
        """Of each query of (B, T, dim), from those before it alone: (B, T, dim)."""
        before = self.take(quantised[:, :-1])
        read = torch.cat([self.begin.to(before.dtype).expand(len(before), 1, -1), before], dim=1)
        return self.predict(self.transformer(read, torch.arange(read.shape[1], device=read.device).float()))

    def loss(self, quantised: Tensor, mask: Tensor) -> Tensor:
        """Share of the variance of the queries (B, T, dim), where mask (B, T) is True, that is not predicted.

        1 is what their mean alone would give. Gradients reach the queries as context and as targets.
        """
        error = (self.predictions(quantised) - quantised)[mask]
        queries = quantised[mask]  # (N, dim)
        return error.square().sum() / (queries - queries.mean(0)).square().sum().clamp(min=1e-6)


@dataclass
class ALMOutput:
    """What training compares, of B clips."""

    # (B, n) decoded
    waveforms: Tensor
    # name -> scalar: masked, next_query, commitment, as far as there are such
    losses: dict[str, Tensor]
    # (B, T, codebooks), -1 beyond each clip; None where nothing was quantised
    ids: Tensor | None


class ALMObjectives(nn.Module):
    """A tokenizer with what is trained beside it.

    Args:
        tokenizer: To train.
        quantise: Whether queries are quantised; else they go through the channels of the codes as they are.
        masked: Hides patches; None: nothing is hidden.
        next_query: Makes queries predictable; None: nothing does.
    """

    def __init__(
        self,
        tokenizer: ALMTokenizer,
        quantise: bool,
        masked: MaskedAutoencoder | None = None,
        next_query: NextQuery | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer, self.quantise, self.masked, self.next_query = tokenizer, quantise, masked, next_query

    def forward(self, waveforms: Tensor, lengths: Tensor, window: int) -> ALMOutput:
        """Encode and decode with gradients.

        Args:
            waveforms: (B, n) float32 at 24 kHz, n whole frames of `window` patches; zero beyond each clip.
            lengths: (B,) samples of each clip.
            window: Patches of a query.
        """
        tokenizer = self.tokenizer.with_window(window)
        frames = -(-lengths // tokenizer.samples_per_frame)
        mask = length_mask(frames, waveforms.shape[1] // tokenizer.samples_per_frame)  # (B, T)
        of_patches = mask.repeat_interleave(window, dim=1)  # (B, w T)
        patches, losses, ids = tokenizer.patchify(waveforms), {}, None
        if self.masked is not None and self.training:
            hidden = self.masked.choose(of_patches)
            patches = self.masked.hide(patches, hidden)
        queries = tokenizer.queries_of(patches, of_patches)
        if self.quantise:
            with torch.autocast(queries.device.type, enabled=False):  # distances to codes need their precision
                quantised, ids, commitment = tokenizer.quantiser(queries.float(), mask)
            losses["commitment"] = commitment.mean()
            if self.next_query is not None:
                losses["next_query"] = self.next_query.loss(quantised, mask)
        else:
            quantised = tokenizer.unquantised(queries)
        states = tokenizer.states_of(quantised, mask)
        if self.masked is not None and self.training:
            losses["masked"] = self.masked.loss(states, waveforms, hidden)
        return ALMOutput(tokenizer.unpatchify(states), losses, ids)
