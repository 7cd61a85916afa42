"""A Whisper model as the recogniser, in the place of pocketsphinx: stronger by far, and given with --recogniser."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample_poly

from codec.io.errors import UserError
from codec.io.hub import local_folder
from codec.io.third_party import third_party_errors
from codec.pretrained import read_config, weights_hash
from lm.words import NORMALISER_VERSION

_RATE = 16_000
_WINDOW = 30 * _RATE  # samples that the model hears at once
_PROMPT = 4  # tokens that a transcript begins with
_PER_SECOND, _LEAST = 12, 16  # tokens: no speaker is faster, and a loop of the model ends


class Whisper:
    """A Whisper of transformers (Radford et al. 2022) that transcribes English, greedily, in windows of 30 s.

    One that is part of a codec under test, as an expert or a teacher, would judge itself.
    """

    def __init__(self, source: str | Path, device: str = "cpu") -> None:
        """Load it.

        Args:
            source: Folder or hub id, with the files of its tokenizer and feature extractor.
            device: Where it runs.

        Raises:
            UserError: There is none.
        """
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        folder = local_folder(source, "Whisper model", option="--recogniser")
        if read_config(folder, "Whisper model").get("model_type") != "whisper":
            raise UserError(f"{folder}: holds no Whisper model; give another folder or hub id with --recogniser")
        with third_party_errors(folder, "holds no Whisper model that can be loaded", "copy it again"):
            self._processor = WhisperProcessor.from_pretrained(folder)
            model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self._model = model.to(device).eval()
        weights = weights_hash("whisper", model.state_dict())
        self.version = f"Whisper {weights}, greedy, English, windows of 30 s, 1; {NORMALISER_VERSION}"

    def transcribe(self, waveform: np.ndarray) -> str:
        """The words of a waveform (n,) at 24 kHz; "" for silence."""
        if len(waveform) == 0 or not np.any(np.nan_to_num(waveform)):
            return ""
        audio = resample_poly(np.nan_to_num(waveform).astype(np.float64), 2, 3).astype(np.float32)
        windows = (audio[start : start + _WINDOW] for start in range(0, len(audio), _WINDOW))
        return " ".join(text for window in windows if (text := self._window(window)))

    def _window(self, audio: np.ndarray) -> str:
        features = self._processor.feature_extractor(audio, sampling_rate=_RATE, return_tensors="pt").input_features
        several = getattr(self._model.generation_config, "is_multilingual", False)
        english = {"language": "en", "task": "transcribe"} if several else {}
        most = min(200, _LEAST + int(_PER_SECOND * len(audio) / _RATE))
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ids = self._model.generate(
                features.to(self._model.device, self._model.dtype), num_beams=1, do_sample=False,
                max_length=_PROMPT + most, **english,
            )  # fmt: skip
        return self._processor.tokenizer.decode(ids[0], skip_special_tokens=True).strip()
