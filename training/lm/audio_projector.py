"""What an audio LLM adds to its text model, and the file in which a descriptive run leaves it: audio_llm.safetensors.

The file holds the audio LLM's own tensors (projection, LoRA adapters, auxiliary head) under their names in
training/codec/audio_llm.py. A language model starts from the projection and the adapters (initialisation.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from codec.io.errors import UserError
from codec.io.shipped import located
from codec.tensor_files import save_tensors

AUDIO_LLM_FILE = "audio_llm.safetensors"  # beside the descriptive branch that it was trained with
FORMER_FILE = "listener.safetensors"  # its name in runs of earlier versions

_ADAPTED = "text_model.base_model.model.model."  # where peft keeps the layers of a causal language model
_UP, _DOWN = ".lora_B.default.weight", ".lora_A.default.weight"


@dataclass(frozen=True)
class AudioProjector:
    """What an audio LLM adds to its text model: projection of descriptive frames, low-rank adapters of the layers."""

    # (width, dim): of a quantised descriptive frame to the text model's embeddings
    projection: Tensor
    # (width,)
    bias: Tensor
    # module of the text model's decoder, such as "layers.0.mlp.up_proj" -> what is added to its weight
    adapters: Mapping[str, Tensor]

    @classmethod
    def load(cls, path: str | Path) -> AudioProjector:
        """Read an audio_llm.safetensors.

        Raises:
            UserError: the file is missing, damaged or holds no projection.
        """
        state, scale = read_audio_llm(path)
        adapters = {
            name.removeprefix(_ADAPTED).removesuffix(_UP): scale * up.float() @ state[name.replace(_UP, _DOWN)].float()
            for name, up in state.items()
            if name.endswith(_UP)
        }
        if not {"projection.weight", "projection.bias"} <= state.keys():
            raise UserError(f"{path}: no audio LLM can be read (it has no projection); name a run of kind descriptive")
        return cls(state["projection.weight"].float(), state["projection.bias"].float(), adapters)


def save_audio_llm(state: Mapping[str, Tensor], lora_scale: float, path: Path) -> None:
    """Write an audio LLM's own tensors where `AudioProjector.load` reads them.

    Args:
        state: projection, adapters and auxiliary head.
        lora_scale: factor of the product of the low-rank matrices, alpha / rank.
        path: of the new file.
    """
    save_tensors(state, path, lora_scale=str(lora_scale))


def find_audio_llm(path: str | Path) -> Path:
    """Where the file lies: at `path`, in what is shipped, or under its other name (former or present) at either."""
    path = Path(path)
    names = {AUDIO_LLM_FILE: FORMER_FILE, FORMER_FILE: AUDIO_LLM_FILE}
    places = (located(path.with_name(name)) for name in (path.name, names.get(path.name, path.name)))
    return next((place for place in places if place.exists()), path)


def read_audio_llm(path: str | Path) -> tuple[dict[str, Tensor], float]:
    """An audio LLM's own tensors as saved, and the scale of its adapters.

    Raises:
        UserError: the file is missing, damaged or of another kind.
    """
    try:
        with safe_open(find_audio_llm(path), "pt") as file:
            scale = float((file.metadata() or {})["lora_scale"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: no audio LLM can be read ({error}); name a run of kind descriptive, or the {AUDIO_LLM_FILE} of "
            "one"
        ) from error
    return state, scale
