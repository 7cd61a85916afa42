"""Recordings into tokens, in batches of similar length."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store.sources import Source, measure
from codec.audio.waveform import audio_length, load_audio
from codec.io.errors import UserError
from codec.tokenizer import AudioTokenizer
from codec.tokens import AudioTokens


@dataclass(frozen=True)
class Encoded:
    """A clip, encoded."""

    # of the clip
    tokens: AudioTokens
    # the recording that they were made of
    source: Source


Done = tuple[dict[int, Encoded], dict[int, str]]  # position -> tokens, position -> why a clip cannot be read


def encode(
    clips: Sequence[Clip], tokenizer: AudioTokenizer, batch_seconds: float, max_seconds: float
) -> Iterator[Done]:
    """Clips into tokens, bit by bit.

    Args:
        clips: Known by their positions among these.
        tokenizer: Makes the tokens.
        batch_seconds: Sound encoded at once, padding included.
        max_seconds: Longer clips are not read.
    """
    lengths: dict[int, int] = {}  # position -> samples
    unread: dict[int, str] = {}
    for i, clip in enumerate(clips):
        try:
            require_writable(clip)
            lengths[i] = audio_length(clip.path, tokenizer.sample_rate)
            _require_length(clip.path, lengths[i] / tokenizer.sample_rate, max_seconds)
        except UserError as error:
            lengths.pop(i, None)
            unread[i] = str(error)
    yield {}, unread
    yield from _encoded(clips, _batches(lengths, round(batch_seconds * tokenizer.sample_rate)), tokenizer, max_seconds)


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


def _encoded(
    clips: Sequence[Clip], batches: list[list[int]], tokenizer: AudioTokenizer, max_seconds: float
) -> Iterator[Done]:
    """Tokens of each batch, and the reasons for the clips that could not be read.

    Two batches at once, each on one thread: several threads on one batch mostly wait for each other, and more than two
    batches for Python's lock: on four cores, 7,191 clips took 68 s with two, 78 with three, 102 with four. On a GPU
    one is read while another is encoded.
    """
    device = tokenizer.device
    threads = torch.get_num_threads()
    workers = 1 if device.type == "cpu" and threads == 1 else 2

    def one(batch: list[int]) -> Done:
        waves, sources, unread = _load(clips, batch, tokenizer.sample_rate, max_seconds)
        try:
            made = dict(zip(waves, _encode(tokenizer, list(waves.values()), device), strict=True))
        except UserError:  # one clip alone is at fault
            made = {}
            for i, wave in waves.items():
                try:
                    made[i] = _encode(tokenizer, [wave], device)[0]
                except UserError as error:
                    unread[i] = f"{clips[i].path}: {error}"
        return {i: Encoded(tokens, sources[i]) for i, tokens in made.items()}, unread

    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            waiting: deque[Future[Done]] = deque()
            for batch in batches:
                waiting.append(pool.submit(one, batch))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def _load(
    clips: Sequence[Clip], batch: Sequence[int], sample_rate: int, max_seconds: float
) -> tuple[dict[int, Tensor], dict[int, Source], dict[int, str]]:
    """Waveforms of a batch, which files they are of, and the reasons for those that could not be read."""
    waves, sources, unread = {}, {}, {}
    for i in batch:
        try:
            source = measure(clips[i].id, clips[i].path)
            wave = load_audio(clips[i].path, sample_rate)
            _require_length(clips[i].path, len(wave) / sample_rate, max_seconds)  # the header may have said less
            waves[i], sources[i] = wave, source
        except UserError as error:
            unread[i] = str(error)
    return waves, sources, unread


@torch.inference_mode()
def _encode(tokenizer: AudioTokenizer, waves: list[Tensor], device: torch.device) -> list[AudioTokens]:
    if not waves:
        return []
    lengths = torch.tensor([len(wave) for wave in waves], device=device)  # (B,)
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)  # (B, n)
    return tokenizer.encode(padded, lengths)


def _require_length(path: str, seconds: float, max_seconds: float) -> None:
    if seconds > max_seconds:
        raise UserError(f"{path}: {seconds:.0f} s are more than the {max_seconds:.0f} s of a clip; cut it into clips")
