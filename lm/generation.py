"""Generation: text and audio, in true batches whose requests end independently."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor

from codec.tokens import NUM_CODEBOOKS
from lm.audio_grammar import DESCRIPTIVE, AudioGrammar, FrameReader
from lm.compiled_step import CompiledStep
from lm.decoding import AudioHeads, FrameDecoder, RowDecoder
from lm.packed_linear import pack
from lm.rows import TEXT_COLUMN, Rows, audio_rows, collate, concatenate, text_rows
from lm.sampling import GenerationSettings, request_noise, sample

if TYPE_CHECKING:  # the model's own `generate` calls this module
    from lm.model import UniAudioForConditionalGeneration

# Why a generation stopped: the model ended it, `max_rows` were generated, or the model's context was full.
Reason = Literal["end", "max_rows", "context"]

LOOK_EVERY = 8  # steps between two looks of the host at an accelerator's state; on the CPU looking costs nothing
SHRINK_BELOW = 0.7  # the batch drops requests that have ended once so few of it are left
SCORE_BATCH = 16  # sentences scored at once


@dataclass(frozen=True)
class TextGeneration:
    """ids: what was generated, without the closing EOS; may be empty."""

    ids: list[int]
    reason: Reason


@dataclass(frozen=True)
class AudioGeneration:
    """descriptive (8, T5) and structural (8, T12) codes, int64, on the CPU.

    With reason "end" each has at least one frame. Otherwise the structural part, or both, may have none.
    """

    descriptive: Tensor
    structural: Tensor
    reason: Reason

    @classmethod
    def of_frames(cls, descriptive: Sequence[list[int]], structural: Sequence[list[int]], reason: Reason) -> Self:
        """From frames of eight codes each, any number of either kind."""
        parts = (descriptive, structural)
        codes = [torch.tensor(part, dtype=torch.int64).reshape(-1, NUM_CODEBOOKS).T.contiguous() for part in parts]
        return cls(*codes, reason)


@dataclass(frozen=True)
class StreamedFrame:
    """One frame of audio as it comes: index of its request, kind, and eight codes."""

    request: int
    kind: Literal["descriptive", "structural"]
    codes: list[int]


def generate_text(
    model: UniAudioForConditionalGeneration,
    prompts: Sequence[Rows],
    settings: GenerationSettings,
    seeds: Sequence[int],
    compiled: bool = False,
) -> list[TextGeneration]:
    """Continue each prompt with text up to the text EOS. `settings.guidance` plays no part.

    compiled: as in `generate_audio`.
    Request i depends on its prompt and on seeds[i] alone, not on its neighbours.
    Raises ValueError for an empty prompt, or one that does not fit the model's context (both lengths are named).
    """
    _check_lengths(prompts, seeds)
    if not prompts:
        return []
    run = _TextRun(model, prompts, settings, seeds, compiled)
    for _ in run.steps():
        pass
    texts = zip(run.written.tolist(), run.batch.rows.tolist(), run.batch.reasons(), strict=True)
    return [TextGeneration(ids[: rows - (reason == "end")], reason) for ids, rows, reason in texts]


def generate_audio(
    model: UniAudioForConditionalGeneration,
    prompts: Sequence[Rows],
    settings: GenerationSettings,
    seeds: Sequence[int],
    negatives: Sequence[Rows] | None = None,
    structured: bool = True,
    compiled: bool = False,
) -> list[AudioGeneration]:
    """Continue each prompt with the audio of one clip: descriptive frames, then structural frames.

    negatives: the unguided prompts, needed where `settings.guidance` is not 1; both halves run as one batch.
    structured: False samples exactly as the published code does, ids that the codec cannot read included
        (`lm.audio_grammar.AudioGrammar` says what the difference is).
    compiled: run every step as one unit compiled by torch (`lm.compiled_step`), the depth decoder's loop included. The
        first call for a batch size, a range of lengths and a kind of settings takes minutes.
    Request i depends on its prompts and on seeds[i] alone, not on its neighbours.
    Raises ValueError for an empty prompt, one that does not fit the model's context (both lengths are named), or
    guidance without negatives.
    """
    if not prompts:
        return []
    run = _AudioRun(model, prompts, settings, seeds, negatives, structured, compiled)
    for _ in run.steps():
        pass
    results = []
    for frames, rows, reason in zip(run.written.tolist(), run.batch.rows.tolist(), run.batch.reasons(), strict=True):
        reader, parts = FrameReader(model.config.layout), ([], [])
        for frame in filter(None, map(reader.read, frames[:rows])):
            parts[frame[0]].append(frame[1])
        results.append(AudioGeneration.of_frames(*parts, reason))
    return results


def stream_audio(
    model: UniAudioForConditionalGeneration,
    prompts: Sequence[Rows],
    settings: GenerationSettings,
    seeds: Sequence[int],
    negatives: Sequence[Rows] | None = None,
) -> Generator[StreamedFrame, None, list[Reason]]:
    """Like `generate_audio`, but yields every frame as soon as it is known. The same ids come out.

    Returns why each request stopped, as a generator returns.
    """
    if not prompts:
        return []
    run = _AudioRun(model, prompts, settings, seeds, negatives, structured=True)
    readers = [FrameReader(model.config.layout) for _ in prompts]
    seen = [0] * len(prompts)
    for _ in run.steps():
        for request, rows in enumerate(run.batch.rows.tolist()):
            for row in run.written[request, seen[request] : rows].tolist():
                frame = readers[request].read(row)
                if frame is not None:
                    yield StreamedFrame(request, "descriptive" if frame[0] == DESCRIPTIVE else "structural", frame[1])
            seen[request] = rows
    return run.batch.reasons()


@torch.inference_mode()
def score_text(
    model: UniAudioForConditionalGeneration, prompts: Sequence[Rows], continuations: Sequence[Sequence[int]]
) -> list[float]:
    """Log-likelihood of each continuation (text ids) after its prompt: sum over its ids, natural logarithm.

    Raises ValueError for an empty prompt or continuation, or where both together exceed the model's context.
    """
    _check_lengths(prompts, continuations)
    context = model.config.cross_modal.max_position_embeddings
    for prompt, ids in zip(prompts, continuations, strict=True):
        if len(prompt) == 0 or len(ids) == 0:
            raise ValueError("scoring needs at least one prompt row and one id to score")
        if len(prompt) + len(ids) > context:
            raise ValueError(
                f"the prompt has {len(prompt)} rows and the continuation {len(ids)}, "
                f"but the model's context holds {context}"
            )
    scores = []
    with _evaluating(model):
        for start in range(0, len(prompts), SCORE_BATCH):
            pairs = list(zip(prompts, continuations, strict=True))[start : start + SCORE_BATCH]
            sentences = [concatenate([prompt, text_rows(ids, learn=True)]) for prompt, ids in pairs]
            rows = collate(sentences, model.config.layout)
            ids, mask = rows.ids.to(model.device), rows.mask.to(model.device)
            final = model.final_vectors(ids[:, :-1], mask[:, :-1])
            for i, (prompt, continuation) in enumerate(pairs):
                asked = slice(len(prompt) - 1, len(prompt) + len(continuation) - 1)
                log_probs = model.lm_head(final[i, asked]).float().log_softmax(-1)
                targets = ids[i, 1:, TEXT_COLUMN][asked, None]
                scores.append(log_probs.gather(1, targets).sum().item())
    return scores


class _Batch:
    """Which requests of a batch are still open, and how far each came. Lives on the model's device."""

    def __init__(self, room: Tensor, max_rows: int):
        """room (B,): rows that fit into each request's context."""
        self.entries = torch.arange(len(room), device=room.device)  # (b,) requests still carried along
        self.open = torch.ones_like(self.entries, dtype=torch.bool)  # (b,)
        self.limits = room.clamp(max=max_rows)  # (B,)
        self.rows = torch.zeros_like(room)  # (B,) rows generated
        self.ended = torch.zeros_like(room, dtype=torch.bool)  # (B,) by the model itself
        self.longest = int(self.limits.max())
        self._max_rows = max_rows
        self.look_every = 1 if room.device.type == "cpu" else LOOK_EVERY

    def note(self, finished: Tensor, rows: int) -> None:
        """The open requests now have `rows` rows; those `finished` (b,) or at their limit are closed."""
        self.rows[self.entries] = torch.where(self.open, rows, self.rows[self.entries])
        self.ended[self.entries] |= self.open & finished
        self.open = self.open & ~finished & (rows < self.limits[self.entries])

    def time_to_look(self, step: int) -> bool:
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
        limited = ["max_rows" if limit == self._max_rows else "context" for limit in self.limits.tolist()]
        return ["end" if ended else why for ended, why in zip(self.ended.tolist(), limited, strict=True)]


class _Run:
    """One batch being generated: what text and audio have in common.

    A kind of rows has a `decoder` and `compiled`, `batch`, `written` (B, rows, ...) and `noise` (B, rows, ...), and
    says how it starts, feeds a row, draws the next and forgets requests.
    """

    start = 0  # rows that are there before the first one is drawn

    def steps(self) -> Iterator[None]:
        """Generate; yields whenever the host has looked at the state."""
        with _evaluating(self.model):
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
        if self.compiled is not None:
            return self.compiled(ids, uniform)
        return self.draw(self.feed(ids), uniform)

    def _note(self, ids: Tensor, finished: Tensor, step: int) -> Tensor:
        self.written[self.batch.entries, step] = ids
        self.batch.note(finished, step + 1)
        return ids

    def _look(self, ids: Tensor) -> Tensor:
        """Let the host see the state; drop requests that have ended where that pays."""
        if self.compiled is not None:  # its shapes stay: all go on until the last has ended
            return ids if bool(self.batch.open.any()) else ids[:0]
        kept = self.batch.shrink()
        if kept is not None:
            ids = ids[kept]
            self.keep(kept)
        return ids


class _TextRun(_Run):
    """One batch of text being generated."""

    def __init__(self, model, prompts, settings, seeds, compiled):
        self.model, self.settings, layout = model, settings, model.config.layout
        self.pad, self.eos = layout.text_pad, layout.text_eos
        with torch.inference_mode():
            self.decoder = RowDecoder(model, prompts, settings.max_rows, static=compiled)
            room = self.decoder.room
            self.batch = _Batch(room, settings.max_rows)
            self.head = (None if compiled else pack([model.lm_head], len(prompts))) or model.lm_head
            self.compiled = CompiledStep(self, room.shape, room.device) if compiled else None
            self.written = torch.zeros(len(prompts), self.batch.longest, dtype=torch.int64, device=room.device)
            self.noise = request_noise(seeds, self.batch.longest, 1, room.device)[..., 0]

    def prefill(self) -> Tensor:
        """Final vectors after the prompts."""
        return self.decoder.prefill(text_only=True)

    def feed(self, ids: Tensor) -> Tensor:
        """The ids just drawn (b,) -> final vectors."""
        return self.decoder.feed_text(ids)

    def draw(self, final: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Final vectors and noise (b,) -> the next id of every request (b,), and which ended with it (b,)."""
        logits = self.head(final).float()  # (b, text ids)
        logits[:, self.pad] = float("-inf")
        ids = sample(logits, self.settings, uniform)
        return ids, ids == self.eos

    def keep(self, kept: Tensor) -> None:
        """Forget every request but these."""
        self.decoder.keep(kept)

    def static_state(self) -> list[Tensor]:
        """What a compiled step changes, at addresses that stay."""
        return self.decoder.static_state()


class _AudioRun(_Run):
    """One batch of audio being generated."""

    def __init__(self, model, prompts, settings, seeds, negatives, structured, compiled=False):
        _check_lengths(prompts, seeds)
        self.model, self.settings, self.structured = model, settings, structured
        self.guided = settings.guided
        if self.guided:
            if negatives is None:
                scale = settings.guidance if settings.guidance != 1 else settings.structural_guidance
                raise ValueError(f"guidance {scale} needs a negative prompt for every prompt")
            _check_lengths(prompts, negatives)
        layout, count = model.config.layout, len(prompts)
        opening = audio_rows(torch.full((NUM_CODEBOOKS, 1), layout.descriptive_bos), learn=False)
        both = [*prompts, *negatives] if self.guided else prompts
        if structured:  # the BOS frame is known: it joins the prompt
            context = model.config.cross_modal.max_position_embeddings
            for prompt in both:
                if len(prompt) == 0:
                    raise ValueError("a prompt needs at least one row")
                if len(prompt) + 1 >= context:
                    raise ValueError(
                        f"the prompt has {len(prompt)} rows and audio opens with one more, but the model's context "
                        f"holds {context}"
                    )
            both = [concatenate([prompt, opening]) for prompt in both]
        with torch.inference_mode():
            self.decoder = RowDecoder(model, both, settings.max_rows, static=compiled)
            self.start = int(structured)
            room = self.decoder.room.view(-1, count).amin(0) + self.start
            self.batch = _Batch(room, settings.max_rows)
            stale = compiled or self.batch.look_every > 1
            self.grammar = AudioGrammar(layout, count, structured, room.device, stale)
            self.frames = FrameDecoder(model, len(both), static=compiled)
            self.heads = AudioHeads(model.audio_head, len(both), static=compiled)
            self.compiled = CompiledStep(self, (count, NUM_CODEBOOKS), room.device) if compiled else None
            shape = (count, self.batch.longest, NUM_CODEBOOKS)
            self.written = torch.full(shape, layout.descriptive_bos, device=room.device)  # (B, rows, 8) row ids
            self.noise = request_noise(seeds, self.batch.longest, NUM_CODEBOOKS, room.device)
            self.batch.rows += self.start

    def prefill(self) -> Tensor:
        """Final vectors after the prompts."""
        return self.decoder.prefill()

    def feed(self, ids: Tensor) -> Tensor:
        """The frames just drawn (b, 8) -> final vectors."""
        return self.decoder.feed_audio(ids.repeat(2, 1) if self.guided else ids)

    def draw(self, final: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Final vectors and noise (b, 8) -> the next frame of every request (b, 8), and which ended with it (b,)."""
        ids = self.frames.frame(final, self.grammar.chooser(self.heads, self.settings, uniform))
        ids = ids[: len(uniform)]  # guided and unguided half hold the same
        return ids, self.grammar.advance(ids)

    def keep(self, kept: Tensor) -> None:
        """Forget every request but these."""
        self.grammar.keep(kept)
        both = torch.cat([kept, kept + len(self.decoder.padding) // 2]) if self.guided else kept
        self.decoder.keep(both)
        self.frames.keep(both)

    def _look(self, ids: Tensor) -> Tensor:
        ids = super()._look(ids)
        if self.compiled is None:  # a compiled step computes the logits of both phases
            self.grammar.look()
        return ids

    def static_state(self) -> list[Tensor]:
        """What a compiled step changes, at addresses that stay."""
        grammar, depth = self.grammar, self.frames.layers
        changed = [grammar.phase, grammar.frames, grammar.opening, depth.keys, depth.values]
        return changed + self.decoder.static_state()


def _check_lengths(prompts: Sequence, others: Sequence) -> None:
    if len(prompts) != len(others):
        raise ValueError(f"{len(prompts)} prompts, but {len(others)} seeds, negatives or continuations")


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, then the mode the model was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
