"""Packing: the stream's sentences laid end to end into rows of a fixed length, with nothing lost and little wasted."""

from __future__ import annotations

import logging
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from auditory_sentences.sentence import AuditorySentence, Segment, to_rows
from auditory_sentences.stream.mixing import SampledSentence
from codec.io.errors import UserError
from lm.rows import Rows, collate, text_rows
from lm.text_tokenizer import TextTokenizer
from lm.vocabulary import VocabularyLayout

WINDOW = 256  # sentences that are packed among themselves: how far a sentence moves from its place in the stream
_CACHED_TEXTS = 8192  # prompts and labels come again and again

log = logging.getLogger(__name__)


class Sentences(Protocol):
    """What packing reads: SentenceStream, or anything with its two methods."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: tuple[int, int]) -> SampledSentence: ...


class PackedBatch(NamedTuple):
    """Packed rows, ready for the model's forward.

    What is left at the end of a row has padding ids, mask and loss 0 and positions of its own.
    """

    # (B, T, columns) int64
    ids: Tensor
    # (B, T, columns) bool
    mask: Tensor
    # (B, T) float32
    loss: Tensor
    # (B, T) int64, restart at 0 with every sentence
    position_ids: Tensor
    # where the next batch starts, for all readers together
    cursor: int
    # of the sentences in the batch, for messages
    names: list[str]


class _Window(NamedTuple):
    """WINDOW consecutive sentences of the stream, and which of them share a pack."""

    # counted from the start of the stream
    number: int
    # its sentences in the stream's order
    drawn: list[SampledSentence]
    # the places in `drawn` of the sentences of each pack
    packs: list[list[int]]


class Packing:
    """Packs a stream of sentences into rows of `context` steps.

    The stream is cut into windows of 256 sentences; within a window, each goes where it fits best. So every
    pack is a pure function of the stream and its cursor: cursor = 256 * window + pack within it, one integer that
    resumes in the time it takes to read one window, and that stays close to the number of sentences read.

    Sentences longer than `context` are skipped, each with a log line, and counted in `skipped` by the first part of
    their name. (The stream makes audio_only, constructions and episodes fit, if its max_rows is the context.)

    Args:
        stream: Of sentences.
        layout: Vocabulary of the model.
        tokenizer: Of text.
        context: Rows of a pack.
    """

    def __init__(self, stream: Sentences, layout: VocabularyLayout, tokenizer: TextTokenizer, context: int) -> None:
        self.stream, self.layout, self.tokenizer, self.context = stream, layout, tokenizer, context
        self.skipped: Counter[str] = Counter()
        self._texts: dict[tuple[Segment, bool], Rows] = {}  # by segment and whether conditions are dropped
        self._window: _Window | None = None
        padding = collate([text_rows([0] * context, layout, False), text_rows([], layout, False)], layout)
        self._blank = Rows(padding.ids[1], padding.mask[1], padding.loss[1])

    def read(self, cursor: int = 0, batch_size: int = 1, reader: int = 0, readers: int = 1) -> Iterator[PackedBatch]:
        """Endless batches from the cursor on.

        Of every `batch_size * readers` packs, reader r gets the r-th `batch_size`; only those are built. All readers
        see the same cursors. Put together, the packs are the same in the same order for any number of readers.

        Args:
            cursor: 0, or that of the last batch read.
            batch_size: Packs of a batch.
            reader: Which of the readers this is, counted from 0.
            readers: How many there are.

        Raises:
            UserError: A whole epoch holds no sentence short enough.
        """
        while True:
            mine, names = [], []
            for turn in range(batch_size * readers):
                window, place = self._locate(cursor)
                if turn // batch_size == reader:
                    mine.append(self._pack(window, window.packs[place]))
                    names += [window.drawn[i].sentence.name for i in window.packs[place]]
                cursor = window.number * WINDOW + place + 1
            ids, mask, loss, position_ids = (torch.stack(parts) for parts in zip(*mine, strict=True))
            yield PackedBatch(ids, mask, loss, position_ids, cursor, names)

    def _locate(self, cursor: int) -> tuple[_Window, int]:
        """The window and the place in it of the first pack at or after the cursor."""
        number, place = divmod(cursor, WINDOW)
        first = number
        while True:
            if self._window is None or self._window.number != number:
                self._window = self._open(number)
            if place < len(self._window.packs):
                return self._window, place
            number, place = number + 1, 0
            if (number - first - 1) * WINDOW > len(self.stream):
                raise UserError(
                    f"no sentence of a whole epoch fits into a context of {self.context} rows "
                    f"(skipped: {dict(self.skipped)}); use a longer context or shorter clips"
                )

    def _open(self, number: int) -> _Window:
        """Draw the window's sentences and decide which go together."""
        drawn, lengths = [], {}
        for i in range(WINDOW):
            drawn.append(self.stream[divmod(number * WINDOW + i, len(self.stream))])
            length = self._length(drawn[-1])
            if length > self.context:
                name = drawn[-1].sentence.name
                self.skipped[name.partition(":")[0]] += 1
                log.warning("skipped %s: its %d rows do not fit into a context of %d", name, length, self.context)
            else:
                lengths[i] = length
        return _Window(number, drawn, best_fit(lengths, self.context))

    def _length(self, drawn: SampledSentence) -> int:
        length = 0
        for segment in drawn.sentence.segments:
            if isinstance(segment.content, str):
                length += len(self._text(segment, drawn.drop_conditions))
            else:
                length += self.layout.row_count(segment.content, segment.role)
        return length

    def _pack(self, window: _Window, members: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """ids, mask, loss and position_ids of one pack."""
        ids, mask, loss = self._blank.ids.clone(), self._blank.mask.clone(), self._blank.loss.clone()
        position_ids = torch.empty(self.context, dtype=torch.int64)
        end = 0
        for i in members:
            drawn = window.drawn[i]
            start = end
            for segment in drawn.sentence.segments:
                rows = self._rows(segment, drawn.drop_conditions)
                here = slice(end, end + len(rows))
                ids[here], mask[here], loss[here] = rows.ids, rows.mask, rows.loss
                end += len(rows)
            position_ids[start:end] = torch.arange(end - start)
        position_ids[end:] = torch.arange(self.context - end)
        return ids, mask, loss, position_ids

    def _rows(self, segment: Segment, drop_conditions: bool) -> Rows:
        """The rows of one segment; those of a sentence are the rows of its segments."""
        if segment.is_text:
            return self._text(segment, drop_conditions)
        return to_rows(AuditorySentence((segment,)), self.layout, self.tokenizer, drop_conditions)

    def _text(self, segment: Segment, drop_conditions: bool) -> Rows:
        key = segment, drop_conditions
        if key not in self._texts:
            if len(self._texts) >= _CACHED_TEXTS:
                self._texts.clear()
            self._texts[key] = to_rows(AuditorySentence((segment,)), self.layout, self.tokenizer, drop_conditions)
        return self._texts[key]


def best_fit(lengths: Mapping[int, int], capacity: int) -> list[list[int]]:
    """Which items share a bin: each, in the order given, goes where it leaves the least room.

    Longest first would fill two per cent more, but would put sentences of one length, and so of one task or even of one
    clip, side by side: a step of training would see little else.

    Args:
        lengths: Item -> its length, at most `capacity`.
        capacity: Of a bin.

    Returns:
        The items of every bin.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (what is left, bin), sorted
    for item, length in lengths.items():
        k = bisect_left(room, (length, -1))
        left, number = room.pop(k) if k < len(room) else (capacity, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(item)
        insort(room, (left - length, number))
    return bins
