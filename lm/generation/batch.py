"""One batch being generated: its requests are drawn row by row, and each ends by itself."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from lm.generation.cached_model import AudioHeads, FrameDecoder, RowDecoder
from lm.generation.generative_model import GenerativeModel
from lm.generation.grammar import AudioGrammar
from lm.generation.prepacked_linear import pack
from lm.generation.sampling import Sampling, SamplingForm, request_noise, sample
from lm.generation.settings import GenerationSettings
from lm.generation.static_step import Steps, static_step, steps_for
from lm.rows import Rows, audio_rows, concatenate

# Why a generation stopped: the model ended it, it came to a limit of the settings (`max_rows`, `max_seconds`), or the
# model's context was full.
Reason = Literal["end", "max_rows", "context"]

LOOK_EVERY = 8  # steps between two looks of the host at an accelerator's state; on the CPU looking costs nothing
SHRINK_BELOW = 0.7  # the batch drops requests that have ended once so few of it are left


def looks_every(device: torch.device) -> int:
    """Steps between two looks of the host at a batch's state."""
    return 1 if device.type == "cpu" else LOOK_EVERY


class Batch:
    """Which requests of a batch are still open, and how far each came. Lives on the model's device."""

    def __init__(self, room: Tensor, max_rows: int, count: int):
        """
        Args:
            room: (B,) rows that fit into each request's context.
            max_rows: Rows that each request gets at most.
            count: Requests; what lies behind them fills the batch up and is never open.
        """
        self.count = count
        self.entries = torch.arange(len(room), device=room.device)  # (b,) requests still carried along
        self.open = self.entries < count  # (b,)
        self.limits = room.clamp(max=max_rows) * self.open  # (B,)
        self.rows = torch.zeros_like(room)  # (B,) rows generated
        self.ended = torch.zeros_like(room, dtype=torch.bool)  # (B,) with an EOS
        self.cut = torch.zeros_like(room, dtype=torch.bool)  # (B,) an EOS that the model would not have given yet
        self.longest = int(self.limits.max())
        self._max_rows = max_rows
        self.look_every = looks_every(room.device)

    def note(self, finished: Tensor, rows: int) -> None:
        """The open requests now have `rows` rows; those `finished` (b,) or at their limit are closed."""
        self.rows[self.entries] = torch.where(self.open, rows, self.rows[self.entries])
        self.ended[self.entries] |= self.open & finished
        self.open = self.open & ~finished & (rows < self.limits[self.entries])

    def time_to_look(self, step: int) -> bool:
        """Whether the host looks at the state after this step, counted from 0."""
        return (step + 1) % self.look_every == 0

    def shrink(self) -> Tensor | None:
        """Drop closed requests once most are closed: places (b',) to keep, or None. Waits for the device."""
        open_now = int(self.open.sum())
        if open_now and open_now > SHRINK_BELOW * len(self.open):
            return None
        kept = self.open.nonzero()[:, 0]
        self.entries, self.open = self.entries[kept], self.open[kept]
        return kept

    def reasons(self) -> list[Reason]:
        """Why each request stopped. Waits for the device."""
        limits = self.limits[: self.count].tolist()
        full: list[Reason] = ["max_rows" if limit == self._max_rows else "context" for limit in limits]
        states = zip(self.ended[: self.count].tolist(), self.cut[: self.count].tolist(), full, strict=True)
        return [("max_rows" if cut else "end") if ended else why for ended, cut, why in states]


class Run(ABC):
    """One batch being generated: what text and audio have in common.

    A kind of rows says how it starts, feeds a row, draws the next and forgets requests.
    """

    start = 0  # rows that are there before the first one is drawn
    batch: Batch
    written: Tensor  # (B, rows, ...) ids
    noise: Tensor  # (B, rows, ...) in [0, 1)

    def __init__(
        self,
        model: GenerativeModel,
        prompts: Sequence[Rows],
        settings: GenerationSettings,
        seeds: Sequence[int],
        negatives: Sequence[Rows] = (),
        steps: Steps | None = None,
        count: int | None = None,
    ) -> None:
        """
        Args:
            model: The language model.
            prompts: One of each request; each leaves room for a row, and that of audio for its BOS frame.
            settings: How to generate.
            seeds: One of each request.
            negatives: The unguided prompt of each request, where audio is guided; else none.
            steps: How they run; None: as suits the device.
            count: Requests that somebody waits for, the first ones; None: all.
        """
        steps = steps_for(steps, model.device)
        self.model, static = model, steps != "plain"
        with torch.inference_mode():
            self.decoder = RowDecoder(model, self._opened(prompts, negatives), settings.max_rows, static=static)
            self.sampling = Sampling(len(prompts), self._streams(), model.device)
            self._make_parts(len(prompts), static)
            self.static = static_step(steps, self, (len(prompts), *self._row()), model.device)
        self._begin(settings, seeds, count)

    def restart(
        self,
        prompts: Sequence[Rows],
        settings: GenerationSettings,
        seeds: Sequence[int],
        negatives: Sequence[Rows],
        count: int,
    ) -> None:
        """Begin again with other requests, as many as before; static steps stay fit for them. Arguments as before."""
        with torch.inference_mode():
            self.decoder.restart(self._opened(prompts, negatives))
        self._begin(settings, seeds, count)

    def fits(self, prompts: Sequence[Rows], negatives: Sequence[Rows], settings: GenerationSettings) -> bool:
        """Whether the caches have room for such requests."""
        return self.decoder.fits(self._opened(prompts, negatives), settings.max_rows)

    def serve(self, model: GenerativeModel | None) -> None:
        """Belong to a model, or to none: a run that is kept shall not keep its model too."""
        self.model = self.decoder.model = model  # type: ignore[assignment]  # nobody asks for it meanwhile

    @property
    def bytes(self) -> int:
        """Of what static steps change, most of it caches."""
        return sum(tensor.nbytes for tensor in self.static_state())

    def results(self) -> Iterator[tuple[Tensor, Reason]]:
        """The rows of each request that is awaited, (rows, ...) on the CPU, and why it stopped."""
        count = self.batch.count  # what fills the batch up comes last
        written, rows = self.written[:count].cpu(), self.batch.rows[:count].tolist()
        for ids, length, reason in zip(written, rows, self.batch.reasons(), strict=True):
            yield ids[:length], reason

    def _begin(self, settings: GenerationSettings, seeds: Sequence[int], count: int | None) -> None:
        with torch.inference_mode():
            room = self.decoder.room.view(-1, len(seeds)).amin(0) + self.start  # (B,)
            self.batch = Batch(room, settings.max_rows, len(seeds) if count is None else count)
            shape = (len(seeds), self.batch.longest, *self._row())
            self.written = torch.zeros(shape, dtype=torch.int64, device=room.device)
            self.noise = request_noise(seeds, shape[1], math.prod(self._row()), room.device).view(shape)
            self._restart_parts(settings)

    @abstractmethod
    def _row(self) -> tuple[int, ...]:
        """Shape of a request's row."""

    @abstractmethod
    def _streams(self) -> Sequence[str]:
        """Names of the phases, whose settings may differ."""

    @abstractmethod
    def _opened(self, prompts: Sequence[Rows], negatives: Sequence[Rows]) -> Sequence[Rows]:
        """What the decoder is fed first."""

    @abstractmethod
    def _make_parts(self, size: int, static: bool) -> None:
        """Make what this kind of rows needs, for so many requests."""

    @abstractmethod
    def _restart_parts(self, settings: GenerationSettings) -> None:
        """Begin with these settings."""

    @abstractmethod
    def prefill(self) -> Tensor:
        """Final vectors (b, d) after the prompts."""

    @abstractmethod
    def feed(self, ids: Tensor) -> Tensor:
        """The rows just drawn (b, ...) -> final vectors (b, d)."""

    @abstractmethod
    def draw(self, final: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Final vectors and noise (b, ...) -> the next row of every request (b, ...), and which ended with it (b,)."""

    @abstractmethod
    def keep(self, kept: Tensor) -> None:
        """Forget every request but these."""

    @abstractmethod
    def static_state(self) -> list[Tensor]:
        """What a static step changes, at addresses that stay."""

    def steps(self) -> Iterator[None]:
        """Generate; yields whenever the host has looked at the state."""
        with evaluating(self.model):
            if self.start < self.batch.longest:
                with torch.inference_mode():
                    drawn = self.draw(self.prefill(), self.noise[:, self.start])
            for step in range(self.start, self.batch.longest):
                with torch.inference_mode():
                    ids = self._note(*drawn, step)
                if self.batch.time_to_look(step):
                    yield
                    with torch.inference_mode():
                        ids = self._look(ids)
                    if not len(ids):
                        return
                if step + 1 < self.batch.longest:
                    with torch.inference_mode():
                        drawn = self._next(ids, self.noise[self.batch.entries, step + 1])
            yield

    def _next(self, ids: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        if self.static is not None:
            return self.static(self, ids, uniform)
        return self.draw(self.feed(ids), uniform)

    def _note(self, ids: Tensor, finished: Tensor, step: int) -> Tensor:
        self.written[self.batch.entries, step] = ids
        self.batch.note(finished, step + 1)
        return ids

    def _look(self, ids: Tensor) -> Tensor:
        """Let the host see the state; drop requests that have ended where that pays."""
        if self.static is not None:  # its shapes stay: all go on until the last has ended
            return ids if bool(self.batch.open.any()) else ids[:0]
        kept = self.batch.shrink()
        if kept is not None:
            ids = ids[kept]
            self.keep(kept)
        return ids


class TextRun(Run):
    """One batch of text being generated."""

    def _row(self) -> tuple[int, ...]:
        return ()

    def _streams(self) -> Sequence[str]:
        return ("text",)

    def _opened(self, prompts: Sequence[Rows], negatives: Sequence[Rows]) -> Sequence[Rows]:
        return prompts

    def _make_parts(self, size: int, static: bool) -> None:
        layout = self.model.config.layout
        self.pad, self.eos = layout.text_pad, layout.text_eos
        self.head = (None if static else pack([self.model.lm_head], size)) or self.model.lm_head

    def _restart_parts(self, settings: GenerationSettings) -> None:
        self.sampling.set(settings, SamplingForm.of(settings, rounded=self.static is not None, audio=False))

    def prefill(self) -> Tensor:
        return self.decoder.prefill(text_only=True)

    def feed(self, ids: Tensor) -> Tensor:
        return self.decoder.feed_text(ids)

    def draw(self, final: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Final vectors and noise (b,) -> the next id of every request (b,), and which ended with it (b,)."""
        logits = self.head(final).float()  # (b, text ids)
        logits[:, self.pad] = float("-inf")
        sampling = self.sampling
        ids = sample(logits, uniform, sampling.temperature[:, 0], sampling.form.width, sampling.top_k)
        return ids, ids == self.eos

    def keep(self, kept: Tensor) -> None:
        self.decoder.keep(kept)
        self.sampling.keep(kept)

    def static_state(self) -> list[Tensor]:
        return self.decoder.static_state()


class AudioRun(Run):
    """One batch of audio being generated."""

    start = 1  # the BOS frame of the first stream

    def _row(self) -> tuple[int, ...]:
        return (self.model.config.layout.num_codebooks,)

    def _streams(self) -> Sequence[str]:
        return [stream.name for stream in self.model.config.layout.streams]

    def _opened(self, prompts: Sequence[Rows], negatives: Sequence[Rows]) -> Sequence[Rows]:
        layout = self.model.config.layout
        opening = audio_rows(layout.opening(), is_target=False, codebooks=layout.streams[0].codebooks)
        return [concatenate([prompt, opening]) for prompt in (*prompts, *negatives)]  # the BOS frame is known

    def _make_parts(self, size: int, static: bool) -> None:
        model, stale = self.model, static or looks_every(self.model.device) > 1
        self.guided = len(self.decoder.padding) > size
        self.grammar = AudioGrammar(model.config.layout, size, model.device, stale)
        self.frames = FrameDecoder(model, len(self.decoder.padding), static=static)
        self.heads = AudioHeads(model.audio_head, len(self.decoder.padding), static=static)

    def _restart_parts(self, settings: GenerationSettings) -> None:
        layout = self.model.config.layout
        limit = None if settings.max_seconds is None else layout.frames_in(settings.max_seconds)
        self.sampling.set(settings, SamplingForm.of(settings, rounded=self.static is not None), limit)
        self.grammar.restart()
        self.written[:] = layout.opening()[:, 0].to(self.written.device)
        self.batch.rows += self.start

    def prefill(self) -> Tensor:
        return self.decoder.prefill()

    def feed(self, ids: Tensor) -> Tensor:
        """The frames just drawn (b, C) -> final vectors."""
        return self.decoder.feed_audio(ids.repeat(2, 1) if self.guided else ids)

    def draw(self, final: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Final vectors and noise (b, C) -> the next frame of every request (b, C), and which ended with it (b,)."""
        ids = self.frames.frame(final, self.grammar.chooser(self.heads, self.sampling, uniform))
        ids = ids[: len(uniform)]  # guided and unguided half hold the same
        return ids, self.grammar.advance(ids)

    def _note(self, ids: Tensor, finished: Tensor, step: int) -> Tensor:
        self.batch.cut[self.batch.entries] |= self.batch.open & self.grammar.cut
        return super()._note(ids, finished, step)

    def serve(self, model: GenerativeModel | None) -> None:
        super().serve(model)
        self.frames.model = model  # type: ignore[assignment]

    def keep(self, kept: Tensor) -> None:
        self.grammar.keep(kept)
        self.sampling.keep(kept)
        both = torch.cat([kept, kept + len(self.decoder.padding) // 2]) if self.guided else kept
        self.decoder.keep(both)
        self.frames.keep(both)

    def _look(self, ids: Tensor) -> Tensor:
        ids = super()._look(ids)
        if self.static is None:  # a static step computes the logits of both phases
            self.grammar.look()
        return ids

    def static_state(self) -> list[Tensor]:
        grammar, depth = self.grammar, self.frames.layers
        changed = [grammar.phase, grammar.frames, grammar.opening, grammar.cut, depth.keys, depth.values]
        return changed + self.decoder.static_state()


@contextmanager
def evaluating(model: GenerativeModel) -> Iterator[None]:
    """Evaluation mode for a while, then the mode the model was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
