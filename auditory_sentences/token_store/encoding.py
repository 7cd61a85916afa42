"""Recordings into tokens, in batches of similar length: files are read ahead, so that the tokenizer need not wait."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store.sources import Source, measure
from codec.audio.waveform import audio_length, load_audio
from codec.io.errors import UserError
from codec.tokenizer import AudioTokenizer
from codec.tokens import AudioTokens

_READERS = 16  # at most, beside a GPU


@dataclass(frozen=True)
class Encoded:
    """A clip, encoded."""

    # of the clip
    tokens: AudioTokens
    # the recording that they were made of
    source: Source


@dataclass(frozen=True)
class Batch:
    """Some clips of a part, done. Clips are known by their positions in it."""

    # number of the part
    part: int
    # position -> its tokens
    encoded: dict[int, Encoded]
    # position -> why the clip cannot be read
    unread: dict[int, str]


class Pace:
    """How much sound became tokens, and for how long of the time the tokenizer was at work. Used by several threads."""

    def __init__(self) -> None:
        self.sound = self.busy = self.taken = 0.0  # seconds
        self._began = self._since = time.perf_counter()
        self._at_work = 0
        self._lock = threading.Lock()

    @contextmanager
    def encoding(self, seconds: float) -> Iterator[None]:
        """Around the encoding of so many seconds of sound, which count unless it fails."""
        with self._lock:
            if not self._at_work:
                self._since = time.perf_counter()
            self._at_work += 1
        try:
            yield
            with self._lock:
                self.sound += seconds
        finally:
            with self._lock:
                self._at_work -= 1
                if not self._at_work:
                    self.busy += time.perf_counter() - self._since

    def end(self) -> None:
        """What was measured counts up to here."""
        self.taken = time.perf_counter() - self._began

    @property
    def rate(self) -> float:
        """Seconds of sound that became tokens in a second."""
        return self.sound / self.taken

    @property
    def share(self) -> float:
        """Of the time, in which the tokenizer was at work."""
        return self.busy / self.taken

    def __str__(self) -> str:
        return (
            f"{self.sound / 3600:.2f} h of sound in {self.taken:.0f} s: {self.rate:.0f} h an hour, "
            f"the tokenizer at work {self.share:.0%} of the time"
        )


def encode(
    parts: Iterable[Sequence[Clip]],
    tokenizer: AudioTokenizer,
    batch_seconds: float,
    max_seconds: float,
    pace: Pace | None = None,
) -> Generator[Batch, None, None]:
    """Clips into tokens, batch by batch, in the order of the parts; at least one batch for each of them.

    It works ahead, into the next part too, while the caller is busy with what it was given: close it to stop that.

    On a CPU two batches are encoded at once, each on one thread: several threads on one batch mostly wait for each
    other, and more than two batches for Python's lock (on four cores, 7,191 clips took 68 s with two, 78 with three,
    102 with four). On a GPU the second hides what the host does between two batches.

    Args:
        parts: Each is a list of clips that a batch may hold together.
        tokenizer: Makes the tokens.
        batch_seconds: Sound encoded at once, padding included.
        max_seconds: Longer clips are not read.
        pace: Is told what was encoded.
    """
    threads, on_cpu = torch.get_num_threads(), tokenizer.device.type == "cpu"
    encoders = 1 if on_cpu and threads == 1 else 2
    readers = 1 if on_cpu else min(_READERS, os.cpu_count() or 1)
    reading, encoding = (ThreadPoolExecutor(n, "", torch.set_num_threads, (1,)) for n in (readers, encoders))
    work = _Work(tokenizer, max_seconds, pace or Pace())
    waiting: deque[Future[Batch]] = deque()
    try:
        for number, clips in enumerate(parts):
            lengths, unread = work.lengths(clips, reading)
            waiting.append(_finished(Batch(number, {}, unread)))
            for batch in _batches(lengths, round(batch_seconds * tokenizer.sample_rate)):
                reads = {i: reading.submit(work.read, clips[i]) for i in batch}
                waiting.append(encoding.submit(work.encode, number, clips, reads))
                while len(waiting) > 2 * encoders:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for pool in (reading, encoding):
            pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _finished(batch: Batch) -> Future[Batch]:
    future: Future[Batch] = Future()
    future.set_result(batch)
    return future


def require_writable(clip: Clip) -> None:
    """Raise UserError where what is known of a clip cannot be written as text."""
    try:
        "".join((clip.id, clip.text, clip.caption, clip.speaker, clip.group, clip.licence, clip.source)).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{clip.path}: what is known of the clip {clip.id!r} holds characters that are not text in UTF-8; "
            "rename the file, or correct the table"
        ) from error


def _batches(lengths: dict[int, int], batch_samples: int) -> list[list[int]]:
    """Positions in batches of similar length, longest first, each at most `batch_samples` with its padding."""
    batches: list[list[int]] = []
    for i in sorted(lengths, key=lambda i: -lengths[i]):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and longest * (len(batches[-1]) + 1) <= batch_samples:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


class _Work:
    """What the threads of one call do."""

    def __init__(self, tokenizer: AudioTokenizer, max_seconds: float, pace: Pace) -> None:
        self.tokenizer, self.max_seconds, self.pace = tokenizer, max_seconds, pace
        self.rate = tokenizer.sample_rate

    def lengths(self, clips: Sequence[Clip], pool: ThreadPoolExecutor) -> tuple[dict[int, int], dict[int, str]]:
        """Samples of each clip as its file's header has them, and the reasons for those that will not be read."""
        lengths, unread = {}, {}
        for i, found in enumerate(pool.map(self._length, clips)):
            if isinstance(found, int):
                lengths[i] = found
            else:
                unread[i] = found
        return lengths, unread

    def _length(self, clip: Clip) -> int | str:
        try:
            require_writable(clip)
            length = audio_length(clip.path, self.rate)
            self._require_length(clip, length)
        except UserError as error:
            return str(error)
        return length

    def read(self, clip: Clip) -> tuple[Tensor, Source]:
        """Waveform (n,), and which file it is of. Raises UserError."""
        source = measure(clip.id, clip.path)
        wave = load_audio(clip.path, self.rate)
        self._require_length(clip, len(wave))  # the header may have said less
        return wave, source

    def encode(self, part: int, clips: Sequence[Clip], reads: dict[int, Future[tuple[Tensor, Source]]]) -> Batch:
        """Tokens of what is being read, by position, and the reasons for what could not be read or encoded."""
        waves, sources, unread = {}, {}, {}
        for i, read in reads.items():
            try:
                waves[i], sources[i] = read.result()
            except UserError as error:
                unread[i] = str(error)
        try:
            made = dict(zip(waves, self._tokens(list(waves.values())), strict=True))
        except UserError:  # one clip alone is at fault
            made = {}
            for i, wave in waves.items():
                try:
                    made[i] = self._tokens([wave])[0]
                except UserError as error:
                    unread[i] = f"{clips[i].path}: {error}"
        return Batch(part, {i: Encoded(tokens, sources[i]) for i, tokens in made.items()}, unread)

    @torch.inference_mode()
    def _tokens(self, waves: list[Tensor]) -> list[AudioTokens]:
        if not waves:
            return []
        lengths = [len(wave) for wave in waves]
        with self.pace.encoding(sum(lengths) / self.rate):
            device = self.tokenizer.device
            padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)  # (B, n)
            return self.tokenizer.encode(padded, torch.tensor(lengths, device=device))

    def _require_length(self, clip: Clip, samples: int) -> None:
        if samples > self.max_seconds * self.rate:
            seconds = samples / self.rate
            raise UserError(
                f"{clip.path}: {seconds:.0f} s are more than the {self.max_seconds:.0f} s of a clip; cut it into clips"
            )
