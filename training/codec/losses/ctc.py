"""CTC: an encoder of speech learns to write what is said, without being told when (Graves et al. 2006).

Letters are read off several depths (intermediate CTC, Lee and Watanabe 2021, arXiv 2102.03216), so that a state from
the middle tells phones apart as well: the last ones say most frames to be blank. Spans of time and a band of the
spectra are hidden meanwhile (SpecAugment, Park et al. 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.experts.music_encoder import STACK, MusicEncoder
from codec.io.errors import UserError
from codec.io.numbers import Count, NonNegative, Range, Share
from lm.words import normalise_words
from training.codec.losses.best_rq import draw_spans

BLANK = 0


@dataclass(frozen=True)
class CTCConfig:
    """What is read, and what is hidden."""

    # hidden states that letters are read off, as an expert's taps count them; -1: the last
    depths: tuple[Annotated[int, Range(-1024, 1024)], ...] = (6, -1)
    # share of the frames that is hidden, on average
    mask_share: Share = 0.15
    # frames that are hidden together
    span: Count = 8
    # bands of the spectra that are hidden, at most
    bands: Annotated[int, Range(0, 4096)] = 12
    # standard deviation of the noise in the place of hidden frames, in the scale of the normalised spectra
    noise: NonNegative = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        if not self.depths:
            raise UserError("depths: name a state that letters are read off, such as -1")


class Letters:
    """The characters of the words of some texts, and their ids; 0 is CTC's blank.

    Args:
        texts: whose words are to be written.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.characters = "".join(sorted({character for text in texts for character in normalise_words(text)}))
        self._ids = {character: number for number, character in enumerate(self.characters, start=1)}

    def ids(self, text: str) -> list[int]:
        """Of the characters of a text's words; those that no text of training has are left out."""
        return [self._ids[character] for character in normalise_words(text) if character in self._ids]

    def read(self, frames: Sequence[int]) -> str:
        """What the likeliest id of each frame spells: repeated ids are one, and blanks nothing."""
        kept = [n for place, n in enumerate(frames) if n != BLANK and (place == 0 or frames[place - 1] != n)]
        return "".join(self.characters[n - 1] for n in kept)


def frames_needed(ids: Sequence[int] | str) -> int:
    """Frames that CTC needs to write some ids: one each, and a blank between equal ones."""
    return len(ids) + sum(first == second for first, second in zip(ids, ids[1:], strict=False))


class CTCReader(nn.Module):
    """An encoder with a head at each depth. Only the encoder is kept after training."""

    def __init__(self, encoder: MusicEncoder, config: CTCConfig, letters: Letters) -> None:
        """Raises UserError where the encoder has no such depth."""
        super().__init__()
        self.config, self.encoder, self.letters = config, encoder, letters
        layers = encoder.config.layers
        if any(not -layers - 1 <= depth <= layers for depth in config.depths):
            raise UserError(f"depths {list(config.depths)}: an encoder of {layers} layers has the states 0 to {layers}")
        self.heads = nn.ModuleList(nn.Linear(encoder.config.dim, len(letters.characters) + 1) for _ in config.depths)

    def forward(self, waveforms: Tensor, frames: Tensor, texts: Sequence[str]) -> Tensor:
        """Mean loss of the depths, in nats a letter (a scalar). What is hidden is drawn from torch's generator.

        Args:
            waveforms: (B, n), zero beyond each clip.
            frames: (B,) of each clip, at least `frames_needed`.
            texts: What is said in each.
        """
        log_probabilities = self.log_probabilities(self._hidden(self.encoder.mel(waveforms)))
        ids = [self.letters.ids(text) for text in texts]
        targets = torch.tensor([n for of_clip in ids for n in of_clip], device=frames.device)
        lengths = torch.tensor([len(of_clip) for of_clip in ids], device=frames.device)
        losses = [F.ctc_loss(at.transpose(0, 1), targets, frames, lengths, blank=BLANK) for at in log_probabilities]
        return torch.stack(losses).mean()

    def log_probabilities(self, mel: Tensor) -> list[Tensor]:
        """(B, T, letters + 1) at each depth, of spectra (B, mel_bands, 4 T)."""
        states = self.encoder.states(mel)
        with torch.autocast(mel.device.type, enabled=False):
            read = [head(states[depth].float()) for head, depth in zip(self.heads, self.config.depths, strict=True)]
            return [logits.log_softmax(-1) for logits in read]

    def read(self, waveforms: Tensor, frames: Tensor) -> list[str]:
        """What the last depth writes of waveforms (B, n), of `frames` (B,) each."""
        likeliest = self.log_probabilities(self.encoder.mel(waveforms))[-1].argmax(-1).tolist()
        return [self.letters.read(row[:count]) for row, count in zip(likeliest, frames.tolist(), strict=True)]

    def _hidden(self, mel: Tensor) -> Tensor:
        config, (clips, bands, columns) = self.config, mel.shape
        if config.mask_share:
            spans = draw_spans(clips, columns // STACK, config.span, config.mask_share).repeat_interleave(STACK, dim=1)
            noise = config.noise * torch.randn(mel.shape)
            mel = torch.where(spans[:, None].to(mel.device), noise.to(mel.device), mel)
        width = (torch.rand(clips, 1) * (min(config.bands, bands) + 1)).long()
        first = (torch.rand(clips, 1) * (bands - width + 1)).long()
        band = torch.arange(bands)
        in_band = (band >= first) & (band < first + width)  # (B, bands)
        return mel.masked_fill(in_band[:, :, None].to(mel.device), 0.0)
