"""What every audio tokenizer does: waveform <-> tokens, save, load, and say which one it is."""

from __future__ import annotations

import importlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from codec.io.errors import UserError
from codec.io.terminal import shown
from codec.model_card import write_card
from codec.pretrained import CONFIG_FILE, WEIGHTS_FILE, Pretrained, read_config, weights_hash
from codec.streams import StreamSpec
from codec.tensor_files import stored_types
from codec.tokens import SAMPLE_RATE, AudioTokens

CARD_FILE = "README.md"

# tokenizer_type in config.json -> where the class lives (imported when asked for)
TOKENIZERS = {
    "reasoning_codec": ("codec.reasoning.codec", "ReasoningCodec"),
    "xcodec": ("codec.xcodec.codec", "XCodec"),
    "almtokenizer": ("codec.almtokenizer.codec", "ALMTokenizer"),
}
# model_type in config.json of a codec that transformers saved -> what reads such a folder as one of ours
LIBRARY_CODECS = {"xcodec": ("codec.xcodec.transformers_format", "load_folder")}


class TokenStream(Protocol):
    """A decoder of one clip whose frames come bit by bit (`AudioTokenizer.stream`)."""

    def feed(self, ids: Tensor) -> Tensor:
        """The next ids (codebooks, T) of the last stream -> the sound that became final: (n,) on the CPU, n >= 0."""

    def finish(self, num_samples: int | None = None) -> Tensor:
        """There are no more frames: the rest of the sound, (n,) on the CPU."""


class AudioTokenizer(Pretrained):
    """Waveform <-> tokens, batched, deterministic: a clip gives the same tokens alone, in a batch, or later.

    `streams` are in the order of generation: a language model writes the first stream of a clip before the second.
    """

    tokenizer_type: ClassVar[str]
    described_as = "saved tokenizer"
    sample_rate: int = SAMPLE_RATE  # of the waveforms that it encodes and decodes
    _fingerprint: str | None = None
    _stored_in: Mapping[str, torch.dtype] = MappingProxyType({})  # of a loaded one: types that its file keeps

    @abstractmethod
    def encode(
        self, waveforms: Tensor, lengths: Tensor | None = None, progress: Callable[[int], None] | None = None
    ) -> list[AudioTokens]:
        """Tokens of each clip.

        Args:
            waveforms: (B, n) float32 mono at `sample_rate`.
            lengths: (B,) samples of each clip; None where all have n.
            progress: Called with how many more samples are encoded, now and then; they add up to those of all clips.

        Raises:
            UserError: A clip is empty or holds NaN or infinity.
        """

    def encode_blocks(
        self, blocks: Iterable[Tensor], num_samples: int, progress: Callable[[int], None] | None = None
    ) -> AudioTokens:
        """Tokens of one clip whose waveform comes in blocks (n,), as `codec.audio.iterate_audio` gives them.

        The same as `encode` gives for the whole, in bounded memory where a tokenizer can do so.

        Args:
            num_samples: Of all blocks together.

        Raises:
            UserError: The sound is empty, ends before that or holds NaN or infinity.
        """
        whole = torch.cat([torch.zeros(0), *blocks])
        if len(whole) < num_samples:
            raise UserError(f"the sound ended after {len(whole)} samples, more were announced; copy it again")
        if len(whole) > num_samples:
            raise ValueError(f"there are more than the {num_samples} samples that were announced")
        made = self.encode(whole[None])[0]
        if progress is not None:
            progress(num_samples)
        return made

    @abstractmethod
    def decode(
        self,
        tokens: Sequence[AudioTokens],
        steps: int | None = None,
        seed: int | Sequence[int] = 0,
        guidance: float | None = None,
    ) -> list[Tensor]:
        """Waveforms (num_samples,) float32 of each clip, exactly as long as its tokens say.

        Args:
            steps, guidance: Of a decoder that takes them; None: what this one was made for.
            seed: One for all clips, or one each: a clip with a seed is the same waveform in any batch.

        Raises:
            UserError: The tokens are another tokenizer's.
        """

    @property
    @abstractmethod
    def streams(self) -> tuple[StreamSpec, ...]:
        """The streams of its tokens, in the order of generation."""

    def at_each_rate(self) -> tuple[Self, ...]:
        """This tokenizer at each bit rate that its weights have, sharing them; itself alone where that is one."""
        return (self,)

    @property
    def low_latency_window(self) -> int | None:
        """The `first_window` of a stream that somebody waits for; None: as long as all others."""
        return None

    @abstractmethod
    def dequantise(self, stream: str, ids: Tensor) -> Tensor:
        """Vectors of frames: ids (B, T, codebooks) of a stream -> (B, T, dim), without gradient."""

    def num_frames(self, stream: str, num_samples: int) -> int:
        """Frames that a stream has for a clip of so many samples."""
        return self._spec(stream).num_frames(num_samples, self.sample_rate)

    def least_samples(self, stream: str, frames: int) -> int:
        """Samples of the shortest clip that has exactly so many frames (one or more) of a stream."""
        return self._spec(stream).least_samples(frames, self.sample_rate)

    def _spec(self, stream: str) -> StreamSpec:
        for spec in self.streams:
            if spec.name == stream:
                return spec
        raise KeyError(stream)

    def from_frames(self, frames: Mapping[str, Tensor]) -> AudioTokens:
        """Tokens whose length in samples is not known: a language model wrote their frames, (codebooks, T) a stream.

        The last stream sets the length: the shortest clip that has exactly its frames. Those of the others are cut, or
        the last one is repeated, to fit.

        Raises:
            ValueError: where a stream has no frame.
        """
        empty = [spec.name for spec in self.streams if frames[spec.name].shape[1] == 0]
        if empty:
            raise ValueError(f"audio needs at least one frame of every stream, and has no {empty[0]} one")
        last = self.streams[-1].name
        num_samples = self.least_samples(last, frames[last].shape[1])
        fitted = {}
        for spec in self.streams:
            ids, count = frames[spec.name], self.num_frames(spec.name, num_samples)
            missing = count - ids.shape[1]
            if missing > 0:
                ids = torch.cat([ids, ids[:, -1:].expand(-1, missing)], dim=1)
            fitted[spec.name] = ids[:, :count].contiguous()
        return AudioTokens(fitted, num_samples, self.fingerprint)

    def require_own(self, tokens: AudioTokens, source: str = "the tokens") -> None:
        """Raise UserError that names `source` where tokens are not this tokenizer's, or ids or frames unfit."""
        if tokens.fingerprint != self.fingerprint:
            raise UserError(
                f"{source}: made by tokenizer {tokens.fingerprint}, but this one is {self.fingerprint}; decode them "
                "with the tokenizer that made them"
            )
        tokens.require_streams(self.streams, source)
        for name, ids in tokens.streams.items():
            expected = self.num_frames(name, tokens.num_samples)
            if ids.shape[1] != expected:
                raise UserError(
                    f"{source}: {ids.shape[1]} {name} frames for a clip of {tokens.num_samples} samples, which has "
                    f"{expected}; tokenize the audio again"
                )

    @property
    def device(self) -> torch.device:
        """Where its weights are; the CPU where it has none."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    def stream(
        self, steps: int | None = None, seed: int = 0, guidance: float | None = None, first_window: int | None = None
    ) -> TokenStream:
        """A decoder of one clip whose frames come bit by bit.

        Args:
            first_window: How much of a clip the decoder takes at first; None: as much as `decode` does.

        Raises:
            UserError: This kind of tokenizer has none.
        """
        raise UserError(f"a tokenizer of type {self.tokenizer_type!r} decodes whole clips only")

    def saved_values(self) -> dict[str, Any]:
        return {"tokenizer_type": self.tokenizer_type, **self.config_values()}

    @classmethod
    def read_values(cls, folder: Path) -> dict[str, Any]:
        values = _read_config(folder)
        kind = values.pop("tokenizer_type")
        if kind != cls.tokenizer_type:
            raise UserError(
                f"{folder}: holds a tokenizer of type {shown(kind)}, not {cls.tokenizer_type!r}; use load_tokenizer"
            )
        return values

    def identity_values(self) -> dict[str, Any]:
        """What of the configuration decides what the ids mean: nothing that is left at its default."""
        return self.config_values()

    @property
    def fingerprint(self) -> str:
        """Hash of configuration and weights, 16 hexadecimal digits: equal exactly where the ids mean the same.

        Computed once and kept until training mode, loading or a change of type could have changed a weight.
        """
        if self.training:
            raise RuntimeError("a tokenizer in training has no fingerprint yet; call eval() first")
        if self._fingerprint is None:
            self._fingerprint = self._fingerprint_with(self.state_dict())
        return self._fingerprint

    def _fingerprint_with(self, weights: Mapping[str, Tensor]) -> str:
        identity = self.tokenizer_type + json.dumps(self.identity_values(), sort_keys=True)
        # As they are computed with when loaded, whatever type the file has.
        return weights_hash(identity, {n: t.float() if t.is_floating_point() else t for n, t in weights.items()})

    def card_facts(self) -> dict[str, str]:
        """What a model card says of this tokenizer beside its type and fingerprint: property -> value."""
        return {}

    def train(self, mode: bool = True) -> Self:
        self._fingerprint = None
        return super().train(mode)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._fingerprint = None
        return super().load_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._fingerprint = None
        return super()._apply(*args, **kwargs)

    def save_pretrained(self, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        weights = {**self.state_dict(), **(state_dict or {})}
        super().save_pretrained(folder, {name: self._as_stored(name, tensor) for name, tensor in weights.items()})

    def write_more(self, scratch: Path, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """The model card, README.md. One that a person wrote stays as it is."""
        facts = self.card_facts() | {
            "parameters": f"{sum(parameter.numel() for parameter in self.parameters()) / 1e6:.1f} M",
            "fingerprint": f"`{self._fingerprint_with(weights)}`",
        }
        write_card(folder / CARD_FILE, scratch / CARD_FILE, self.tokenizer_type, facts, self.sample_rate)

    def store_in(self, types: Mapping[str, torch.dtype]) -> None:
        """Have `save_pretrained` write tensors, by name, in other types than they compute in, where nothing is lost."""
        self._stored_in = types

    def _as_stored(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor in the type that it was loaded from, where that loses nothing: half precision stays so on disk."""
        kept = tensor.to(self._stored_in.get(name, tensor.dtype))
        return kept if torch.equal(kept.to(tensor.dtype), tensor) else tensor

    @classmethod
    def is_in(cls, folder: str | Path) -> bool:
        """Whether a folder holds a saved tokenizer of this type, going by its config.json."""
        try:
            return _read_config(Path(folder))["tokenizer_type"] == cls.tokenizer_type
        except UserError:
            return False

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        folder = cls.folder_of(source)
        tokenizer = super().from_pretrained(folder)
        tokenizer.store_in(stored_types(folder / WEIGHTS_FILE))
        return tokenizer


def checked_lengths(waveforms: Tensor, lengths: Tensor | None, sample_rate: int) -> list[int]:
    """Samples of each clip of a batch to encode, (B, n) float, `lengths` (B,) or None where all have n.

    Raises:
        UserError: where the batch is no mono sound, or a clip is empty or holds NaN or infinity.
        ValueError: where lengths do not fit the waveforms.
    """
    if waveforms.ndim != 2 or not waveforms.is_floating_point():
        raise UserError(
            f"audio must be a float tensor (clips, samples) of mono at {sample_rate} Hz, not {waveforms.dtype} of "
            f"shape {tuple(waveforms.shape)}"
        )
    counts = [waveforms.shape[1]] * len(waveforms) if lengths is None else [int(n) for n in lengths]
    if len(counts) != len(waveforms) or any(not 0 <= n <= waveforms.shape[1] for n in counts):
        raise ValueError(f"lengths {counts} do not fit waveforms of shape {tuple(waveforms.shape)}")
    for clip, n in enumerate(counts):
        if n == 0:
            raise UserError(f"clip {clip} of the batch is empty: it has no samples")
        if not torch.isfinite(waveforms[clip, :n]).all():
            raise UserError(f"clip {clip} of the batch holds NaN or infinite samples; repair the recording")
    return counts


def load_tokenizer(source: str | Path) -> AudioTokenizer:
    """The audio tokenizer in a folder or of a hub id, whatever its type, in eval mode."""
    folder = AudioTokenizer.folder_of(source)
    values = read_config(folder, AudioTokenizer.described_as)
    if "tokenizer_type" not in values and (known := LIBRARY_CODECS.get(str(values.get("model_type")))):
        module, name = known
        return getattr(importlib.import_module(module), name)(folder)
    kind = _read_config(folder)["tokenizer_type"]
    if kind not in TOKENIZERS:
        raise UserError(f"{folder / CONFIG_FILE}: tokenizer type {shown(kind)} must be one of {', '.join(TOKENIZERS)}")
    module, name = TOKENIZERS[kind]
    return getattr(importlib.import_module(module), name).from_pretrained(folder)


def _read_config(folder: Path) -> dict[str, Any]:
    values = read_config(folder, AudioTokenizer.described_as)
    if not isinstance(values.get("tokenizer_type"), str):
        said = shown(values["tokenizer_type"]) if "tokenizer_type" in values else "none"
        raise UserError(f"{folder / CONFIG_FILE}: tokenizer_type must name one of {', '.join(TOKENIZERS)}, not {said}")
    return values
