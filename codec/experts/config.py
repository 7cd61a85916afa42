"""Which expert encoder fills a role, and how it is set up (UniAudio 2.0 §3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from codec.experts.music_encoder import MusicEncoderConfig
from codec.io.numbers import Positive, Range
from codec.tokens import SAMPLE_RATE

RATES = {"speech_text": 50, "phone": 50, "music": 25}  # frames per second of each role
TAPS: dict[str, dict[str, tuple[int, ...]]] = {  # feature name -> hidden states that are averaged, as published
    "speech_text": {"speech_text": (-1,)},
    "phone": {"phone": (6, 7, 8, 9)},
    "music": {"music_acoustic": (4,), "music_semantic": (11,)},
}
KINDS = {  # kind -> module and class of the encoder (imported on first use)
    "mel": ("codec.experts.mel", "MelExpert"),
    "whisper": ("codec.experts.whisper", "WhisperExpert"),
    "self_supervised": ("codec.experts.self_supervised", "SelfSupervisedExpert"),
    "conformer": ("codec.experts.conformer", "ConformerExpert"),
}

# int stays int: the fingerprint of a codec is computed from the configuration's JSON, where 60 and 60.0 differ.
Hertz = Annotated[int | float, Range(0, SAMPLE_RATE / 2)]


@dataclass(frozen=True)
class MelView:
    """One spectral view of the sound: triangular bands on the mel or on the logarithmic frequency scale."""

    # number of triangular bands
    bands: Annotated[int, Range(1, 1024)]
    # spectra per frame, side by side in the channels, band-major
    stack: Annotated[int, Range(1, 64)]
    # window length, in samples at 24 kHz
    window: Annotated[int, Range(4, 2**14)]
    # lower edge of the lowest band, in Hz
    low: Hertz
    # upper edge of the highest band, in Hz
    high: Hertz
    # frequency scale of the bands: "mel" or "log"
    scale: Literal["mel", "log"] = "mel"
    # subtract the clip's mean spectrum, which removes the microphone and part of the voice
    centre: bool = True
    # channels beside the bands: how well the onsets of the 6 s around repeat after 1, 2, ... spectra; 0: none
    rhythm: Annotated[int, Range(0, 1024)] = 0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a view's low {self.low} Hz must lie below its high {self.high} Hz")
        if self.scale == "log" and self.low < 1:
            raise ValueError("a view on the logarithmic scale must begin at 1 Hz or above")

    @property
    def channels(self) -> int:
        """Of a frame."""
        return self.bands * self.stack + self.rhythm


MEL_VIEWS: dict[str, dict[str, MelView]] = {  # of a mel expert: feature name -> its default view
    "speech_text": {"speech_text": MelView(bands=64, stack=2, window=600, low=60, high=8000)},
    "phone": {"phone": MelView(bands=80, stack=2, window=600, low=40, high=11000, centre=False)},
    "music": {
        "music_acoustic": MelView(bands=128, stack=2, window=1200, low=40, high=11900, centre=False),
        "music_semantic": MelView(bands=120, stack=1, window=3600, low=55, high=7040, scale="log", centre=False),
    },
}


@dataclass(frozen=True)
class ExpertConfig:
    """Which expert fills a role."""

    # what the expert is for: "speech_text", "phone" or "music"
    role: str
    # "mel" (fixed features, no weights), "whisper" (a transformers Whisper), "self_supervised" (a transformers WavLM,
    # HuBERT, wav2vec 2.0, wav2vec2-BERT or another speech encoder with hidden states) or "conformer" (the published
    # kind of music encoder, codec/experts/music_encoder.py; with hop 120 it has the 50 Hz of the two speech roles)
    kind: str = "mel"
    # folder or hub id of the pretrained model; of a "conformer" also a run of kind expert; unused by "mel"
    source: str = ""
    # feature name -> hidden states to average; empty: as published; unused by "mel"
    taps: dict[str, tuple[Annotated[int, Range(-1024, 1024)], ...]] = field(default_factory=dict)
    # seconds of audio per window of a "whisper"; null: as long as the model was made for (30 s). Shorter windows cost
    # less and cut off the positions beyond
    window_seconds: Positive | None = None
    # of a "mel": feature name -> spectral view; empty: the project's own
    views: dict[str, MelView] = field(default_factory=dict)
    # of a "conformer" without a source, whose weights are stored with those of its codec: its sizes
    sizes: MusicEncoderConfig | None = None

    def __post_init__(self) -> None:
        if self.role not in RATES:
            raise ValueError(f"unknown role {self.role!r} of an expert encoder; known are {', '.join(RATES)}")
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r} of expert encoder; known are {', '.join(KINDS)}")
        if self.sizes is not None and (self.kind != "conformer" or self.source):
            raise ValueError("sizes belong to an expert of kind 'conformer' that is read from no source")
        if self.kind != "mel" and not self.source and self.sizes is None:
            raise ValueError(f"the {self.role} expert of kind {self.kind!r} needs a source: a folder or a hub id")
        taps = {name: tuple(layers) for name, layers in (self.taps or TAPS[self.role]).items()}
        if set(taps) != set(TAPS[self.role]) or not all(taps.values()):
            raise ValueError(f"the {self.role} expert needs layers for each of {', '.join(TAPS[self.role])}")
        object.__setattr__(self, "taps", taps)
        views = (self.views or MEL_VIEWS[self.role]) if self.kind == "mel" else {}
        if views and set(views) != set(TAPS[self.role]):
            raise ValueError(f"the {self.role} expert needs a view for each of {', '.join(TAPS[self.role])}")
        for name, view in views.items():
            if SAMPLE_RATE % (RATES[self.role] * view.stack):
                raise ValueError(f"the view {name!r}: a frame cannot be divided evenly into {view.stack} spectra")
        object.__setattr__(self, "views", dict(views))
