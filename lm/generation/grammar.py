"""The grammar of generated audio: the frames of each stream in turn, between a BOS and an EOS frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lm.generation.cached_model import AudioHeads
from lm.generation.sampling import sample
from lm.generation.settings import GenerationSettings
from lm.vocabulary import VocabularyLayout


class AudioGrammar:
    """Where each request of a batch stands, and which ids it may draw next.

    A request is in one phase, the stream whose frames it writes; the phases follow each other in the layout's order.

        place in a phase                  codebook 0 may be   the other codebooks
        BOS frame (set, not drawn)        BOS                 BOS
        first frame                       a code              a code
        later frame                       a code or EOS       a code; after EOS, EOS
        limit of frames reached           EOS (set)           EOS

    So a phase holds at least one frame, codebook 0 alone decides whether a frame is the end, and what comes out can be
    decoded. Codebooks that a phase's stream does not have hold its padding id.
    """

    def __init__(
        self,
        layout: VocabularyLayout,
        batch: int,
        device: torch.device,
        stale: bool,
        max_frames: tuple[int, ...] | None = None,
    ):
        """
        Args:
            layout: Vocabulary of the model.
            batch: Number of requests.
            device: Where the state lies.
            stale: The host does not `look` after every frame.
            max_frames: Frames that each phase holds at most; its end is set then, not drawn.
        """
        streams = layout.streams
        self.names = [stream.name for stream in streams]
        self.last = len(streams) - 1
        self.edges = (*layout.offsets, layout.audio_size)  # the ids of phase p are edges[p] .. edges[p + 1] - 1
        self.codes = [stream.codes for stream in streams]
        self.codebooks = [stream.codebooks for stream in streams]
        self.bos = torch.tensor([int(layout.opening(p)[0, 0]) for p in range(len(streams))], device=device)
        self.eos = torch.tensor([int(layout.closing(p)[0, 0]) for p in range(len(streams))], device=device)
        self.pads = torch.tensor([layout.pad(p) for p in range(len(streams))], device=device)
        self.widths = torch.tensor(self.codebooks, device=device)
        self.uneven = len(set(self.codebooks)) > 1

        self.phase = torch.zeros(batch, dtype=torch.int64, device=device)
        self.frames = torch.zeros(batch, dtype=torch.int64, device=device)  # frames of the phase so far
        self.opening = torch.zeros(batch, dtype=torch.bool, device=device)  # the next frame is the phase's BOS
        self.max_frames = None if max_frames is None else torch.tensor(max_frames, device=device)
        self.cut = torch.zeros(batch, dtype=torch.bool, device=device)  # a phase would have gone on
        self.stale = stale
        # Phases that requests may be in, as far as the host knows: only their ids need logits.
        self.present = tuple(range(len(streams))) if stale else (0,)

        # Row 2 * phase is what codebooks behind the first, and a first frame, may draw; row 2 * phase + 1 EOS as well.
        forbidden = torch.full((2 * len(streams), layout.audio_size), float("-inf"), device=device)
        for phase, first in enumerate(layout.offsets):
            forbidden[2 * phase : 2 * phase + 2, first : first + self.codes[phase]] = 0
            forbidden[2 * phase + 1, self.eos[phase]] = 0
        self.forbidden = forbidden  # (2 phases, V)

    def chooser(
        self, heads: AudioHeads, settings: GenerationSettings, uniform: Tensor
    ) -> Callable[[int, Tensor], Tensor]:
        """The function that draws one frame, for `FrameDecoder.frame`.

        Args:
            heads: The output matrices.
            settings: How to generate.
            uniform: (B, C) noise in [0, 1). With guidance the states hold the guided and then the unguided half of the
                batch, and both are told the same ids.
        """
        guided = settings.guided
        guidance = self._of_phase(settings.guidance, [settings.guidance_of(name) for name in self.names])
        temperature = self._of_phase(settings.temperature, [settings.temperature_of(name) for name in self.names])
        windows = [(self.edges[p], self.edges[p + 1]) for p in self.present]
        low, high = windows[0][0], windows[-1][1]
        forced = torch.where(self.opening, self.bos[self.phase], -1)
        full = None if self.max_frames is None else ~self.opening & (self.frames >= self.max_frames[self.phase])

        def choose(codebook: int, states: Tensor) -> Tensor:
            nonlocal forced
            logits = heads.logits(codebook, states, windows)  # (B or 2 B, high - low)
            if guided:
                conditional, unconditional = logits.chunk(2)
                scale = settings.guidance if guidance is None else guidance[:, None]
                logits = unconditional + scale * (conditional - unconditional)
            if codebook > 0 and len(windows) == 1:
                logits = logits[:, : self.codes[self.present[0]]]  # exactly what everybody may draw
            else:
                may_end = (self.frames > 0) & (codebook == 0)
                logits += self.forbidden[2 * self.phase + may_end, low:high]
            ids = sample(logits, settings, uniform[:, codebook], temperature) + low
            if full is not None and codebook == 0:
                self.cut.logical_or_(full & (ids != self.eos[self.phase]))
                ids = torch.where(full, self.eos[self.phase], ids)
            ids = torch.where(forced >= 0, forced, ids)
            if codebook == 0:
                forced = torch.where(ids == self.eos[self.phase], ids, forced)
            if self.uneven:
                ids = torch.where(codebook < self.widths[self.phase], ids, self.pads[self.phase])
            return ids.repeat(2) if guided else ids

        return choose

    def _of_phase(self, common: float, values: list[float]) -> Tensor | None:
        """(B,) the value of each request's phase; None where all have the common one."""
        if set(values) == {common}:
            return None
        chosen = torch.full_like(self.phase, values[0], dtype=torch.float32)
        for phase, value in enumerate(values[1:], 1):
            chosen = torch.where(self.phase == phase, float(value), chosen)
        return chosen

    def advance(self, ids: Tensor) -> Tensor:
        """Take note of the frames just drawn (B, C); which requests ended with them (B,) bool."""
        ended = ids[:, 0] == self.eos[self.phase]
        finished = ended & (self.phase == self.last)
        # In place: a captured step finds them where they were.
        self.frames.copy_(torch.where(ended | self.opening, 0, self.frames + 1))
        self.opening.copy_(ended & (self.phase < self.last))
        self.phase.add_(ended & (self.phase < self.last))
        return finished

    def look(self) -> None:
        """Learn on the host which phases are present: a synchronisation."""
        present = set(self.phase.tolist())
        if not present:  # every request has ended
            return
        if self.stale:  # each may end before the next look
            present.update(range(min(present), self.last + 1))
        self.present = tuple(range(min(present), max(present) + 1))  # windows of ids adjoin each other

    def keep(self, entries: Tensor) -> None:
        """Forget every request but these."""
        self.phase, self.frames, self.opening = self.phase[entries], self.frames[entries], self.opening[entries]
        self.cut = self.cut[entries]
