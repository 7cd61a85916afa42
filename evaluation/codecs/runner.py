"""Runs codecs under test on the items of reconstruction tasks, from the cache where they have run before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codec.io.errors import UserError
from codec.tokenizer import AudioTokenizer
from codec.tokens import SAMPLE_RATE
from evaluation.cache import Cache, bytes_key, key_of
from evaluation.codecs.base import TestedCodec
from evaluation.codecs.own import OwnCodec
from evaluation.items import Item
from evaluation.report.progress import chunks
from evaluation.runner import Answer, CodecRunner, flac, samples
from evaluation.task import EvalTask

NO_TOKENS = "the codec gives no tokens"  # why tasks of tokens are skipped for Opus, Codec2 and codecs of transformers


class ReconstructionRunner:
    """One codec under test. Tokens of our own codecs are cached by themselves, for all that is measured on them."""

    def __init__(self, codec: TestedCodec, cache: Cache, source: str) -> None:
        """Take a codec.

        Args:
            codec: The codec.
            cache: Where its tokens, waveforms and bits are kept.
            source: What people wrote to name it.
        """
        self.tested, self.source = codec, source
        self.cache = cache
        own = codec.tokenizer is not None and codec.tokenizer.sample_rate == SAMPLE_RATE
        self._own = CodecRunner(codec.tokenizer, cache) if own else None
        # Steps and guidance of a decoder are no part of a tokenizer's fingerprint.
        self._decoding = key_of(codec=codec.tokenizer.config_values()) if codec.tokenizer else codec.fingerprint

    @property
    def name(self) -> str:
        return self.tested.name

    @property
    def fingerprint(self) -> str:
        return self.tested.fingerprint

    @property
    def tokenizer(self) -> AudioTokenizer:
        """What makes its tokens. Raises UserError for a codec that has none."""
        if self.tested.tokenizer is None:
            raise UserError(NO_TOKENS)
        return self.tested.tokenizer

    @property
    def facts(self) -> dict[str, Any]:
        """What results.json says of the codec."""
        return {
            "name": self.name, "source": self.source, "fingerprint": self.fingerprint,
            "decoding": self._decoding,
            "parameters": self.tested.parameters, "bits_per_second": self.tested.bits_per_second,
        }  # fmt: skip

    def untrained(self, seed: int) -> ReconstructionRunner | None:
        """The same configuration with new random weights; None for codecs that are not ours."""
        if self.tested.tokenizer is None:
            return None
        fresh = CodecRunner.untrained(self.tested.tokenizer, self.cache, seed).codec
        return ReconstructionRunner(OwnCodec(self.name, fresh), self.cache, self.source)

    def answer(self, task: EvalTask, items: Sequence[Item]) -> list[Answer]:
        """Each item's recording through the codec and back, with its tokens or bits where there are some."""
        if self._own:
            return self._own.answer(task, items)
        keys = [self._key(item) for item in items]
        found = [self._cached(key) for key in keys]
        missing = [i for i, answer in enumerate(found) if answer is None]
        for some in chunks(missing, f"{self.name}: clips through the codec"):
            for i, made in zip(some, self.tested.reconstruct([items[i].recording for i in some]), strict=True):
                content = flac(made.waveform)
                self.cache.put(keys[i], content)
                self.cache.put_json(_bits_key(keys[i]), {"bits": made.bits})
                found[i] = Answer(None, "end", samples(content), bits=made.bits)
        return found

    def bits_per_second(self, items: Sequence[Item], answers: Sequence[Answer]) -> float | None:
        """Bits per second of these clips: those that were sent, or the nominal rate."""
        sent = [answer.bits for answer in answers]
        if not sent or any(bits is None for bits in sent):
            return self.tested.bits_per_second
        return sum(sent) * SAMPLE_RATE / sum(len(item.recording) for item in items)

    def _key(self, item: Item) -> str:
        return key_of(what="reconstruct", codec=self.fingerprint, how=self._decoding, clip=bytes_key(item.recording))

    def _cached(self, key: str) -> Answer | None:
        bits = self.cache.get_json(_bits_key(key), _read_bits)
        waveform = None if bits is None else self.cache.get(key, samples)
        return None if waveform is None else Answer(None, "end", waveform, bits=bits[0])


def _bits_key(key: str) -> str:
    return key_of(what="bits", of=key)


def _read_bits(plain: Any) -> tuple[int | None]:
    """What `answer` wrote. Raises ValueError for anything else."""
    bits = plain.get("bits", 0.5) if isinstance(plain, dict) else 0.5
    if not (bits is None or type(bits) is int):
        raise ValueError("no number of bits")
    return (bits,)
