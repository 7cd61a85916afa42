"""The grammar of generated audio: the frames of each stream in turn, between a BOS and an EOS frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lm.generation.cached_model import AudioHeads
from lm.generation.sampling import Sampling, sample
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

    def __init__(self, layout: VocabularyLayout, batch: int, device: torch.device, stale: bool):
        """
        Args:
            layout: Vocabulary of the model.
            batch: Number of requests.
            device: Where the state lies.
            stale: The host does not `look` after every frame.
        """
        streams = layout.streams
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
        self.cut = torch.zeros(batch, dtype=torch.bool, device=device)  # a phase would have gone on
        self.stale = stale

        # Row 2 * phase is what codebooks behind the first, and a first frame, may draw; row 2 * phase + 1 EOS as well.
        forbidden = torch.full((2 * len(streams), layout.audio_size), float("-inf"), device=device)
        for phase, first in enumerate(layout.offsets):
            forbidden[2 * phase : 2 * phase + 2, first : first + self.codes[phase]] = 0
            forbidden[2 * phase + 1, self.eos[phase]] = 0
        self.forbidden = forbidden  # (2 phases, V)
        self.restart()

    def restart(self) -> None:
        """All requests begin again. In place: a captured step finds them where they were."""
        for state in (self.phase, self.frames, self.opening, self.cut):
            state.zero_()
        # Phases that requests may be in, as far as the host knows: only their ids need logits.
        self.present = tuple(range(self.last + 1)) if self.stale else (0,)

    def chooser(self, heads: AudioHeads, sampling: Sampling, uniform: Tensor) -> Callable[[int, Tensor], Tensor]:
        """The function that draws one frame, for `FrameDecoder.frame`.

        Args:
            heads: The output matrices.
            sampling: How the requests are drawn.
            uniform: (B, C) noise in [0, 1). With guidance the states hold the guided and then the unguided half of the
                batch, and both are told the same ids.
        """
        guided, width, limited = sampling.form.guided, sampling.form.width, sampling.form.limited
        phase = self.phase[:, None]
        guidance = sampling.guidance.gather(1, phase) if guided else None  # (B, 1)
        temperature = sampling.temperature.gather(1, phase)[:, 0]  # (B,)
        windows = [(self.edges[p], self.edges[p + 1]) for p in self.present]
        low, high = windows[0][0], windows[-1][1]
        forced = torch.where(self.opening, self.bos[self.phase], -1)
        full = ~self.opening & (self.frames >= sampling.max_frames[self.phase]) if limited else None

        def choose(codebook: int, states: Tensor) -> Tensor:
            nonlocal forced
            logits = heads.logits(codebook, states, windows)  # (B or 2 B, high - low)
            if guidance is not None:
                conditional, unconditional = logits.chunk(2)
                logits = unconditional + guidance * (conditional - unconditional)
            if codebook > 0 and len(windows) == 1:
                logits = logits[:, : self.codes[self.present[0]]]  # exactly what everybody may draw
            else:
                may_end = (self.frames > 0) & (codebook == 0)
                logits += self.forbidden[2 * self.phase + may_end, low:high]
            ids = sample(logits, uniform[:, codebook], temperature, width, sampling.top_k) + low
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
