"""Audio tokens: what a tokenizer makes of a waveform, and what the language model reads and writes."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from codec.io.errors import UserError, of_system
from codec.streams import StreamSpec
from codec.tensor_files import save_tensors

SAMPLE_RATE = 24_000  # samples per second of ReasoningCodec's waveforms, and of sound wherever nothing else is said
LONGEST = 2**50  # samples; a number of more is damage

_BEFORE = ("descriptive", "structural")  # the streams of files that do not name theirs


@dataclass(frozen=True, eq=False)
class AudioTokens:
    """The ids of one clip: an immutable value.

    `tokens["descriptive"]` is the stream of that name. What the ids mean, and how many frames a clip of so many samples
    has, knows the tokenizer of the fingerprint: `AudioTokenizer.require_own` checks it.

    Raises:
        ValueError: where a stream is not (codebooks, frames) int64 with at least one of both, or there is no sample.
    """

    streams: Mapping[str, Tensor]  # name -> (codebooks, frames) int64, in the order of generation
    num_samples: int  # length of the clip at the tokenizer's sample rate
    fingerprint: str  # of the tokenizer that gives the ids their meaning

    def __post_init__(self) -> None:
        object.__setattr__(self, "streams", MappingProxyType(dict(self.streams)))
        if not 0 < self.num_samples < LONGEST:
            raise ValueError(f"a clip of {self.num_samples} samples; it needs at least one")
        if not self.streams:
            raise ValueError("audio tokens without a stream")
        for name, ids in self.streams.items():
            if ids.dtype != torch.int64 or ids.ndim != 2 or 0 in ids.shape:
                raise ValueError(
                    f"{name} ids must be int64 of shape (codebooks, frames), not {ids.dtype} of shape "
                    f"{tuple(ids.shape)}"
                )

    def __getitem__(self, stream: str) -> Tensor:
        """(codebooks, frames) int64 ids of the stream of that name. Raises KeyError where there is none."""
        return self.streams[stream]

    def __reduce__(self) -> tuple[type[AudioTokens], tuple[dict[str, Tensor], int, str]]:
        return AudioTokens, (dict(self.streams), self.num_samples, self.fingerprint)

    def require_streams(self, specs: Sequence[StreamSpec], source: str) -> None:
        """Raise UserError that names `source` where streams, numbers of codebooks or ids are not those of `specs`."""
        if list(self.streams) != [spec.name for spec in specs]:
            expected = ", ".join(spec.name for spec in specs)
            raise UserError(
                f"{source}: holds the streams {', '.join(self.streams)}, and the tokenizer has {expected}; make the "
                "tokens again with the tokenizer that is used here"
            )
        for spec in specs:
            ids = self.streams[spec.name]
            if len(ids) != spec.codebooks:
                raise UserError(
                    f"{source}: its {spec.name} frames have {len(ids)} ids, and the tokenizer has {spec.codebooks} "
                    "codebooks; make the tokens again with the tokenizer that is used here"
                )
            low, high = map(int, ids.aminmax())
            if low < 0 or (spec.codes is not None and high >= spec.codes):
                raise UserError(
                    f"{source}: holds the {spec.name} id {low if low < 0 else high}, and the tokenizer has 0 to "
                    f"{(spec.codes or 0) - 1}; make the tokens again with the tokenizer that is used here"
                )

    def equal(self, other: AudioTokens) -> bool:
        """Whether both hold the same ids, length and fingerprint."""
        return (
            self.num_samples == other.num_samples
            and self.fingerprint == other.fingerprint
            and list(self.streams) == list(other.streams)
            and all(torch.equal(ids, other.streams[name]) for name, ids in self.streams.items())
        )

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file: one tensor a stream."""
        facts = {"num_samples": str(self.num_samples), "fingerprint": self.fingerprint}
        tensors = {name: ids.clone() for name, ids in self.streams.items()}  # which may share their memory
        save_tensors(tensors, path, **facts, streams=json.dumps(list(self.streams)))

    @classmethod
    def load(cls, path: str | Path) -> AudioTokens:
        """Read what `save` wrote. Raises UserError where the file is missing, damaged or holds something else."""
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
                raise UserError(f"{path}: is no ordinary file; give a token file")
            with safe_open(path, framework="pt") as file:
                meta = file.metadata() or {}
                names = json.loads(meta["streams"]) if "streams" in meta else _BEFORE
                if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
                    raise ValueError("its list of streams is none")
                streams = {name: file.get_tensor(name) for name in names}
                return cls(streams, int(meta["num_samples"]), meta["fingerprint"])
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such token file; check the path") from error
        except OSError as error:
            raise of_system(error, path) from error
        except (SafetensorError, KeyError, ValueError) as error:
            raise UserError(
                f"{path}: not an audio-token file ({error}); make one with `uniaudio tokenize AUDIO`"
            ) from error
