"""The grammar of generated audio: descriptive frames, then structural frames, each between a BOS and an EOS frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from codec.tokens import NUM_CODEBOOKS
from lm.generation.cached_model import AudioHeads
from lm.generation.sampling import GenerationSettings, sample
from lm.vocabulary import VocabularyLayout

DESCRIPTIVE, STRUCTURAL = 0, 1  # the two phases


class AudioGrammar:
    """Where each request of a batch stands, and which ids it may draw next.

    Structured (the default): BOS frames are set, not drawn; a phase holds at least one frame; codebook 0 alone decides
    whether a frame is the end, and every other id is a codebook entry of the phase. What comes out can be decoded.
    Not structured: the published sampler (§B.3), in which only descriptive ids are forbidden, and only in the
    structural phase; a frame is the end where all eight ids say so.
    """

    def __init__(
        self,
        layout: VocabularyLayout,
        batch: int,
        structured: bool,
        device: torch.device,
        stale: bool,
        max_frames: tuple[int, int] | None = None,
    ):
        """stale: the host does not `look` after every frame.
        max_frames: frames that each phase holds at most; its end is set then, not drawn (structured alone)
        """
        if max_frames is not None and not structured:
            raise ValueError("a limit of frames needs structured generation; limit the rows instead")
        self.structured = structured
        offset, size = layout.structural_offset, layout.audio_size
        self.edges = (0, offset, size)  # the ids of phase p are edges[p] .. edges[p + 1] - 1
        self.codes = (layout.descriptive_codes, layout.structural_codes)
        self.bos = torch.tensor([layout.descriptive_bos, layout.structural_bos + offset], device=device)
        self.eos = torch.tensor([layout.descriptive_eos, layout.structural_eos + offset], device=device)

        self.phase = torch.zeros(batch, dtype=torch.int64, device=device)
        self.frames = torch.zeros(batch, dtype=torch.int64, device=device)  # frames of the phase so far
        self.opening = torch.zeros(batch, dtype=torch.bool, device=device)  # the next frame is the phase's BOS
        self.max_frames = None if max_frames is None else torch.tensor(max_frames, device=device)
        self.cut = torch.zeros(batch, dtype=torch.bool, device=device)  # a phase would have gone on
        self.stale = stale
        # Phases that requests may be in, as far as the host knows: only their ids need logits.
        self.present = (DESCRIPTIVE, STRUCTURAL) if stale else (DESCRIPTIVE,)

        forbidden = torch.full((4, size), float("-inf"), device=device)
        for phase in (DESCRIPTIVE, STRUCTURAL):
            first = self.edges[phase]
            if structured:
                forbidden[2 * phase : 2 * phase + 2, first : first + self.codes[phase]] = 0
                forbidden[2 * phase + 1, self.eos[phase]] = 0
            else:
                forbidden[2 * phase : 2 * phase + 2, first if phase == STRUCTURAL else 0 :] = 0
        self.forbidden = forbidden  # (4, V): row 2 * phase is what codebooks 1..7 and a first frame may draw

    def chooser(
        self, heads: AudioHeads, settings: GenerationSettings, uniform: Tensor
    ) -> Callable[[int, Tensor], Tensor]:
        """The function that draws one frame, for `FrameDecoder.frame`.

        uniform (B, 8): noise. With guidance the states hold the guided and then the unguided half of the batch, and
        both are told the same ids.
        """
        guided = settings.guided
        guidance = self._of_phase(settings.guidance, settings.structural_guidance)
        temperature = self._of_phase(settings.temperature, settings.structural_temperature)
        windows = [self.edges[p : p + 2] for p in (self.present if self.structured else (DESCRIPTIVE, STRUCTURAL))]
        low, high = windows[0][0], windows[-1][1]
        forced = torch.where(self.opening, self.bos[self.phase], -1) if self.structured else None
        full = None if self.max_frames is None else ~self.opening & (self.frames >= self.max_frames[self.phase])

        def choose(codebook: int, states: Tensor) -> Tensor:
            nonlocal forced
            logits = heads.logits(codebook, states, windows)  # (B or 2 B, high - low)
            if guided:
                conditional, unconditional = logits.chunk(2)
                scale = settings.guidance if guidance is None else guidance[:, None]
                logits = unconditional + scale * (conditional - unconditional)
            if self.structured and codebook > 0 and len(windows) == 1:
                logits = logits[:, : self.codes[self.present[0]]]  # exactly what everybody may draw
            else:
                may_end = (self.frames > 0) & (codebook == 0)
                logits += self.forbidden[2 * self.phase + may_end, low:high]
            ids = sample(logits, settings, uniform[:, codebook], temperature) + low
            if full is not None and codebook == 0:
                self.cut.logical_or_(full & (ids != self.eos[self.phase]))
                ids = torch.where(full, self.eos[self.phase], ids)
            if forced is not None:
                ids = torch.where(forced >= 0, forced, ids)
                if codebook == 0:
                    forced = torch.where(ids == self.eos[self.phase], ids, forced)
            return ids.repeat(2) if guided else ids

        return choose

    def _of_phase(self, descriptive: float, structural: float | None) -> Tensor | None:
        """(B,) the value of each request's phase; None where both are the same."""
        if structural is None or structural == descriptive:
            return None
        return torch.where(self.phase == STRUCTURAL, float(structural), float(descriptive))

    def advance(self, ids: Tensor) -> Tensor:
        """Take note of the frames just drawn (B, 8); which requests ended with them (B,) bool."""
        eos = self.eos[self.phase]
        ended = ids[:, 0] == eos if self.structured else (ids == eos[:, None]).all(1)
        finished = ended & (self.phase == STRUCTURAL)
        # In place: a captured step finds them where they were.
        self.frames.copy_(torch.where(ended | self.opening, 0, self.frames + 1))
        self.opening.copy_(ended & (self.phase == DESCRIPTIVE))
        self.phase.masked_fill_(ended, STRUCTURAL)
        return finished

    def look(self) -> None:
        """Learn on the host which phases are present: a synchronisation."""
        present = set(self.phase.tolist())
        if self.stale and DESCRIPTIVE in present:  # it may end before the next look
            present.add(STRUCTURAL)
        self.present = tuple(sorted(present))

    def keep(self, entries: Tensor) -> None:
        """Forget every request but these."""
        self.phase, self.frames, self.opening = self.phase[entries], self.frames[entries], self.opening[entries]
        self.cut = self.cut[entries]


class FrameReader:
    """Reads one request's frames off the model's rows: which belong to which phase, without BOS and EOS."""

    def __init__(self, layout: VocabularyLayout):
        self._eos = ([layout.descriptive_eos], [layout.structural_eos + layout.structural_offset])
        self._offset = layout.structural_offset
        self._phase, self._opened = DESCRIPTIVE, False

    def read(self, row: list[int]) -> tuple[int, list[int]] | None:
        """The eight ids of the next row -> (phase, codes), or None for a BOS or EOS frame.

        The first frame of a phase is its BOS whatever its ids are, as in the published code.
        """
        if row == self._eos[self._phase] * NUM_CODEBOOKS:
            self._phase, self._opened = STRUCTURAL, False
            return None
        if not self._opened:
            self._opened = True
            return None
        return self._phase, [value - self._offset for value in row] if self._phase == STRUCTURAL else row
