"""Whether a sound is what its caption says: a CLAP of transformers (Wu et al. 2023), which is given with --clap."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.signal import resample_poly

from codec.io.errors import UserError
from codec.io.hub import local_folder
from codec.io.third_party import third_party_errors
from codec.pretrained import read_config, weights_hash
from evaluation.metrics.spectra import RATE


class _Clap(NamedTuple):
    # ClapModel
    model: Any
    # makes features of audio and ids of text
    processor: Any
    # of its weights
    hash: str


def clap_folder(source: str | Path) -> str:
    """The folder of a CLAP, by folder or hub id; it is fetched where it is not here.

    Raises:
        UserError: There is none.
    """
    folder = local_folder(source, "CLAP model", option="--clap")
    if read_config(folder, "CLAP model").get("model_type") != "clap":
        raise UserError(f"{folder}: holds no CLAP model; give another folder or hub id with --clap")
    return str(folder.resolve())


def clap_version(folder: str) -> str:
    """Name and identity of a CLAP, for cache keys and results."""
    return f"CLAP {_loaded(folder).hash}, 1"


def clap_of_sound(waveform: np.ndarray, folder: str) -> list[float]:
    """Embedding of a waveform (n,) at 24 kHz, of length 1; [] for no samples.

    Longer ones than it hears at once are cut into as many windows as it takes, whose embeddings are averaged: cropping
    at random, as its processor does, would give another number each time.
    """
    if not len(waveform):
        return []
    extractor, model = _loaded(folder).processor.feature_extractor, _loaded(folder).model
    rate = extractor.sampling_rate
    audio = resample_poly(np.nan_to_num(waveform).astype(np.float64), rate, RATE).astype(np.float32)
    count = -(-len(audio) // extractor.nb_max_samples)
    total = 0
    for window in np.array_split(audio, count):
        features = extractor(window, sampling_rate=rate, return_tensors="pt")
        with torch.inference_mode():
            total = total + _unit(model.get_audio_features(**features))
    return _unit(total).tolist()


@lru_cache(maxsize=4096)  # a caption stands beside the answer, the recording, the codec's, silence and noise
def clap_of_text(text: str, folder: str) -> list[float]:
    """Embedding of a text, of length 1; [] for no text."""
    if not text.strip():
        return []
    ids = _loaded(folder).processor.tokenizer(text, return_tensors="pt", truncation=True)
    with torch.inference_mode():
        return _unit(_loaded(folder).model.get_text_features(**ids)).tolist()


def _unit(features: Any) -> torch.Tensor:
    """(1, F), or an output that holds them, or (F,) -> (F,) of length 1."""
    vector = getattr(features, "pooler_output", features).flatten()
    return vector / vector.norm().clamp(min=1e-12)


@lru_cache(maxsize=1)
def _loaded(folder: str) -> _Clap:
    from transformers import ClapModel, ClapProcessor

    with third_party_errors(Path(folder), "holds no CLAP model that can be loaded", "copy it again"):
        processor = ClapProcessor.from_pretrained(folder)
        model = ClapModel.from_pretrained(folder, dtype=torch.float32).eval()
    return _Clap(model, processor, weights_hash("clap", model.state_dict()))
