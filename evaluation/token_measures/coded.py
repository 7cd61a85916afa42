"""The clips of a task of tokens, and what a tokenizer makes of them: of any tokenizer, at its own sample rate."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from auditory_sentences.corpora.clip import Clip, Split
from auditory_sentences.rng import stable_hash
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from codec.streams import StreamSpec
from codec.tokenizer import AudioTokenizer
from codec.tokens import AudioTokens
from evaluation.cache import Cache, bytes_key, key_of
from evaluation.metrics.estimate import Estimate
from evaluation.metrics.spectra import HOP, RATE, log_mel_decibels
from evaluation.report.progress import chunks

_MEL_RATE = RATE / HOP  # frames a second of the spectrograms

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """What a measure finds in one stream."""

    # the score
    estimate: Estimate
    # the score of tokens that know nothing; None where there is none
    chance: float | None = None
    # the score of the recordings themselves, as log-mel frames; None where they have none
    original: Estimate | None = None
    # the same score of each codebook alone, from the first one on; empty where that is not measured
    levels: tuple[float, ...] = ()
    # how it was measured, where that depends on the stream: a sentence for the report
    note: str = ""


class CodedClips:
    """Clips of a task with their tokens, each encoded when it is first asked for."""

    def __init__(
        self, tokenizer: AudioTokenizer, clips: Sequence[Clip], test: Sequence[Clip], cache: Cache,
        training: int = 600, seed: int = 0,
    ) -> None:  # fmt: skip
        """Nothing is encoded yet.

        Args:
            tokenizer: Of any kind.
            clips: All that the task is about, of every split.
            test: Those that are measured with.
            cache: Of tokens.
            training: How many training clips a measure is fitted to at most; of dev clips a quarter of that.
            seed: Of what is drawn.
        """
        self.tokenizer, self.clips, self.test = tokenizer, tuple(clips), tuple(test)
        self.seed = seed
        self._cache, self._training = cache, training
        self._tokens: dict[str, AudioTokens] = {}
        self._made: dict[Hashable, Any] = {}

    def spec(self, stream: str) -> StreamSpec:
        """The stream of that name."""
        return next(spec for spec in self.tokenizer.streams if spec.name == stream)

    def codes(self, stream: str) -> int:
        """Entries of each of a stream's codebooks. Raises UserError where the tokenizer does not say."""
        codes = self.spec(stream).codes
        if codes is None:
            raise UserError(f"the tokenizer does not say how many codes its stream '{stream}' has")
        return codes

    def sample(self, split: Split) -> tuple[Clip, ...]:
        """Training or dev clips to fit something to, the same for the same seed."""
        count = self._training if split == "train" else -(-self._training // 4)
        found = [clip for clip in self.clips if clip.split == split]
        found.sort(key=lambda clip: stable_hash("measure", self.seed, clip.id))
        return tuple(found[:count])

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """A value that several measures of these clips share, made when it is first asked for."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def kept(self, key: str, make: Callable[[], Any]) -> Any:
        """A plain value that does not depend on the tokenizer, from the cache where another one had it made."""
        if (found := self._cache.get_json(key)) is None:
            found = make()
            self._cache.put_json(key, found)
        return found

    def waveform(self, clip: Clip) -> Tensor:
        """(n,) at the tokenizer's rate. Raises UserError where it cannot be read."""
        wave = load_audio(clip.path, self.tokenizer.sample_rate)
        if not len(wave):
            raise UserError(f"{clip.path}: holds no sound")
        return wave

    def tokens(self, clips: Sequence[Clip]) -> list[AudioTokens]:
        """The tokens of each clip."""
        new = [clip for clip in dict.fromkeys(clip.id for clip in clips) if clip not in self._tokens]
        by_id = {clip.id: clip for clip in clips}
        for some in chunks(new, "clips encoded"):
            made = self.encode([self.waveform(by_id[i]) for i in some])
            self._tokens.update(zip(some, made, strict=True))
        return [self._tokens[clip.id] for clip in clips]

    def encode(self, waveforms: Sequence[Tensor]) -> list[AudioTokens]:
        """The tokens of waveforms (n,) at the tokenizer's rate, from the cache where they were made before."""
        fingerprint = self.tokenizer.fingerprint
        keys = [key_of(what="tokens", codec=fingerprint, clip=bytes_key(wave.numpy())) for wave in waveforms]
        found = [self._cache.get_json(key, partial(_tokens_from, tokenizer=self.tokenizer)) for key in keys]
        missing = sorted((i for i, made in enumerate(found) if made is None), key=lambda i: len(waveforms[i]))
        for some in chunks(missing, "clips encoded"):  # of about one length: little padding
            padded = torch.nn.utils.rnn.pad_sequence([waveforms[i] for i in some], batch_first=True)
            lengths = torch.tensor([len(waveforms[i]) for i in some])
            with torch.inference_mode():
                made = self.tokenizer.encode(padded.to(self.tokenizer.device), lengths)
            for i, tokens in zip(some, made, strict=True):
                found[i] = tokens
                ids = {name: stream.tolist() for name, stream in tokens.streams.items()}
                self._cache.put_json(keys[i], {"samples": tokens.num_samples, "streams": ids})
        return found

    def vectors(self, stream: str, clips: Sequence[Clip]) -> list[Tensor]:
        """(T, dim) float32: the de-quantised frames of a stream, of each clip."""
        tokens = self.tokens(clips)
        some = chunks(tokens, "clips de-quantised")
        return [vectors for part in some for vectors in frame_vectors(self.tokenizer, stream, part)]

    def mel(self, clip: Clip) -> np.ndarray:
        """(T, bands) log-mel spectrogram of a recording in dB, 100 frames a second."""
        return log_mel_decibels(load_audio(clip.path).numpy()).T

    def mel_frames(self, clip: Clip, rate: float) -> np.ndarray:
        """(T, bands) the same in frames of a stream's rate: each the mean of those that lie in it."""
        mel = self.mel(clip)
        index = np.floor(np.arange(len(mel)) / _MEL_RATE * rate + 1e-9).astype(int)
        if rate >= _MEL_RATE:  # every frame of the stream repeats the one before it
            return mel[np.minimum((np.arange(index[-1] + 1) * _MEL_RATE / rate).astype(int), len(mel) - 1)]
        starts = np.searchsorted(index, np.arange(index[-1] + 1))
        return np.add.reduceat(mel, starts, axis=0) / np.diff(np.append(starts, len(mel)))[:, None]


def frame_vectors(tokenizer: AudioTokenizer, stream: str, tokens: Sequence[AudioTokens]) -> list[Tensor]:
    """(T, dim) float32: the de-quantised frames of a stream, of each clip, on the CPU."""
    frames = (
        torch.cat([clip[stream] for clip in tokens], dim=1).T[None].to(tokenizer.device)
    )  # (1, sum of T, codebooks)
    made = tokenizer.dequantise(stream, frames)[0].float().cpu()
    return list(made.split([clip[stream].shape[1] for clip in tokens]))


def _tokens_from(plain: Any, tokenizer: AudioTokenizer) -> AudioTokens:
    """What `encode` wrote. Raises ValueError for anything else."""
    try:
        ids = {spec.name: torch.tensor(plain["streams"][spec.name], dtype=torch.int64) for spec in tokenizer.streams}
        tokens = AudioTokens(ids, plain["samples"], tokenizer.fingerprint)
        tokenizer.require_own(tokens)
    except (TypeError, KeyError, RuntimeError, OverflowError, UserError) as error:
        raise ValueError("no tokens of this tokenizer") from error
    return tokens
