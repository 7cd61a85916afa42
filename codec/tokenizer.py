"""What every audio tokenizer does: waveform <-> tokens, save, load, and say which one it is."""

from __future__ import annotations

import hashlib
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from codec.errors import UserError
from codec.model_card import write_card
from codec.tensor_files import save_tensors
from codec.tokens import AudioTokens

if TYPE_CHECKING:
    from codec.streaming import StreamingDecoder

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

# tokenizer_type in config.json -> where the class lives (imported when asked for)
TOKENIZERS = {"reasoning_codec": ("codec.reasoning_codec", "ReasoningCodec")}


class AudioTokenizer(nn.Module, ABC):
    """Waveform <-> tokens, batched, deterministic: a clip gives the same tokens alone, in a batch, or later."""

    tokenizer_type: ClassVar[str]
    early_window: int | None = None  # the `first_window` of a stream that somebody waits for
    _fingerprint: str | None = None

    @abstractmethod
    def encode(
        self, waveforms: Tensor, lengths: Tensor | None = None, progress: Callable[[int], None] | None = None
    ) -> list[AudioTokens]:
        """Tokens of each clip.

        waveforms: (B, n) float32, 24 kHz mono; lengths: (B,) samples of each clip, None where all have n.
        progress: called with how many more samples are encoded, now and then; they add up to those of all clips
        Raises UserError where a clip is empty or holds NaN or infinity.
        """

    def encode_blocks(
        self, blocks: Iterable[Tensor], num_samples: int, progress: Callable[[int], None] | None = None
    ) -> AudioTokens:
        """Tokens of one clip whose waveform comes in blocks (n,), as `codec.audio.iterate_audio` gives them.

        The same as `encode` gives for the whole, in bounded memory where a tokenizer can do so.
        num_samples: of all blocks together
        Raises UserError where the sound is empty, ends before that or holds NaN or infinity.
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

        steps, guidance: of a decoder that takes them; None: what this one was made for
        seed: one for all clips, or one each: a clip with a seed is the same waveform in any batch
        Raises UserError where the tokens are another tokenizer's.
        """

    @property
    @abstractmethod
    def codes(self) -> tuple[int, int]:
        """How many codes a codebook of the descriptive and of the structural tokens has: ids lie below."""

    def stream(
        self, steps: int | None = None, seed: int = 0, guidance: float | None = None, first_window: int | None = None
    ) -> StreamingDecoder:
        """A decoder of one clip whose frames come bit by bit.

        first_window: how much of a clip the decoder takes at first; None: as much as `decode` does
        Raises UserError where this kind of tokenizer has none.
        """
        raise UserError(f"a tokenizer of type {self.tokenizer_type!r} decodes whole clips only")

    @abstractmethod
    def config_values(self) -> dict[str, Any]:
        """The configuration as plain values; `from_config_values` builds an equal tokenizer from it."""

    def identity_values(self) -> dict[str, Any]:
        """What of the configuration decides what the ids mean: nothing that is left at its default."""
        return self.config_values()

    @classmethod
    @abstractmethod
    def from_config_values(cls, values: dict[str, Any], source: str) -> Self:
        """An untrained tokenizer. Raises UserError that names `source` where a value is unfit."""

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
        digest = hashlib.sha256(self.tokenizer_type.encode())
        digest.update(json.dumps(self.identity_values(), sort_keys=True).encode())
        for name, tensor in sorted(weights.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

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

    def save_pretrained(self, folder: str | Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write model.safetensors, a model card (README.md) and config.json, which comes last, into `folder`.

        state_dict: tensors to write in place of the tokenizer's own, where an engine holds the newest. A card that
            somebody else wrote stays as it is.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = self.state_dict() | (state_dict or {})
        save_tensors(weights, folder / WEIGHTS_FILE)
        facts = self.card_facts() | {
            "parameters": f"{sum(parameter.numel() for parameter in self.parameters()) / 1e6:.1f} M",
            "fingerprint": f"`{self._fingerprint_with(weights)}`",
        }
        write_card(folder / CARD_FILE, self.tokenizer_type, facts)
        values = {"tokenizer_type": self.tokenizer_type, **self.config_values()}
        (folder / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def is_in(cls, folder: str | Path) -> bool:
        """Whether a folder holds a saved tokenizer of this type, going by its config.json."""
        try:
            return _read_config(Path(folder))["tokenizer_type"] == cls.tokenizer_type
        except UserError:
            return False

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """The tokenizer in a folder, or of a model id on the hub, in eval mode.

        Raises UserError where files are missing, damaged, of another tokenizer, or do not fit each other.
        """
        folder = _local_folder(source)
        values = _read_config(folder)
        kind = values.pop("tokenizer_type")
        if kind != cls.tokenizer_type:
            raise UserError(
                f"{folder}: holds a tokenizer of type {kind!r}, not {cls.tokenizer_type!r}; use load_tokenizer"
            )
        tokenizer = cls.from_config_values(values, str(folder / CONFIG_FILE))
        path = folder / WEIGHTS_FILE
        try:
            tokenizer.load_state_dict(load_file(path))
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; the weights of the tokenizer are missing") from error
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: damaged or not a safetensors file ({error}); copy it again") from error
        except RuntimeError as error:  # torch lists every key that is missing, left over or of another shape
            detail = " ".join(str(error).split())[:300]
            raise UserError(
                f"{path}: weights do not fit {CONFIG_FILE} beside it ({detail}); copy both again"
            ) from error
        return tokenizer.eval()


def load_tokenizer(source: str | Path) -> AudioTokenizer:
    """The audio tokenizer in a folder or of a hub id, whatever its type, in eval mode."""
    folder = _local_folder(source)
    kind = _read_config(folder)["tokenizer_type"]
    if kind not in TOKENIZERS:
        raise UserError(f"{folder / CONFIG_FILE}: tokenizer type {kind!r} is none of {', '.join(TOKENIZERS)}")
    module, name = TOKENIZERS[kind]
    return getattr(importlib.import_module(module), name).from_pretrained(folder)


def _local_folder(source: str | Path) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return folder
    if not isinstance(source, str) or source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise UserError(
            f"{source}: no such folder; give the folder of a saved tokenizer or a hub id such as owner/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{source}: neither a folder nor a hub model that can be had ({' '.join(str(error).split())[:200]})"
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {folder} is not the folder of a saved tokenizer") from error
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); copy the tokenizer again") from error
    if not isinstance(values, dict) or "tokenizer_type" not in values:
        raise UserError(f"{path}: has no tokenizer_type; {folder} is not the folder of a saved tokenizer")
    return values
