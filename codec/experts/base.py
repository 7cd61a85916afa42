"""Expert encoders: the frozen feature extractors that ReasoningCodec listens through (UniAudio 2.0 §3).

Three roles, whoever fills them:
    "speech_text"  what is said, 50 Hz; published: Whisper-medium's encoder
    "phone"        how it sounds, 50 Hz; published: the mean of WavLM-base's states 6 to 9
    "music"        25 Hz, two taps "music_acoustic" and "music_semantic"; published: states 4 and 11 of a music encoder

Every expert gives feature_frames(n, rate) frames for a clip of n samples and zeros beyond, and a clip in a batch the
very features that it has alone. Experts never train and are always in eval mode, whatever mode the codec is in.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import resample

from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.io.numbers import Positive, Range
from codec.io.third_party import third_party_errors
from codec.io.untrusted_weights import require_plain
from codec.tokens import SAMPLE_RATE

WHISPER_RATE = 50  # frames per second of every Whisper encoder
RATES = {"speech_text": 50, "phone": 50, "music": 25}  # frames per second of each role
TAPS = {  # of a transformers model: feature name -> hidden states that are averaged, as published
    "speech_text": {"speech_text": (-1,)},
    "phone": {"phone": (6, 7, 8, 9)},
    "music": {"music_acoustic": (4,), "music_semantic": (11,)},
}


def feature_frames(num_samples: int | Tensor, rate: int) -> int | Tensor:
    """Frames at `rate` Hz of a clip of `num_samples` samples at 24 kHz; the rule of the tokens' own lengths."""
    return num_samples * rate // SAMPLE_RATE + 1


# Whole numbers stay whole: the fingerprint of a codec is made of what its configuration says, letter by letter.
Hertz = Annotated[int | float, Range(0, SAMPLE_RATE / 2)]


@dataclass(frozen=True)
class MelView:
    """One spectral view of the sound: triangular bands on the mel or on the logarithmic frequency scale."""

    bands: Annotated[int, Range(1, 1024)]
    stack: Annotated[int, Range(1, 64)]  # spectra for each frame, side by side in the channels: band-major
    window: Annotated[int, Range(4, 2**14)]  # samples
    low: Hertz
    high: Hertz
    scale: Literal["mel", "log"] = "mel"
    centre: bool = True  # take the clip's mean spectrum away: what the microphone and, partly, the voice put there

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a view's low {self.low} Hz must lie below its high {self.high} Hz")
        if self.scale == "log" and self.low < 1:
            raise ValueError("a view on the logarithmic scale must begin at 1 Hz or above")


MEL_VIEWS = {  # of a mel expert: feature name -> how it is seen, where its configuration says nothing else
    "speech_text": {"speech_text": MelView(bands=64, stack=2, window=600, low=60, high=8000)},
    "phone": {"phone": MelView(bands=80, stack=2, window=600, low=40, high=11000, centre=False)},
    "music": {
        "music_acoustic": MelView(bands=128, stack=2, window=1200, low=40, high=11900, centre=False),
        "music_semantic": MelView(bands=120, stack=1, window=3600, low=55, high=7040, scale="log", centre=False),
    },
}


@dataclass(frozen=True)
class ExpertConfig:
    """Which expert fills a role.

    kind: "mel" (fixed features, no weights), "whisper" (a transformers Whisper model), "self_supervised" (a
        transformers WavLM, HuBERT, wav2vec 2.0, wav2vec2-BERT or another speech encoder with hidden states) or
        "conformer" (the published kind of music encoder: codec.music_encoder; with `hop` 120 it has the 50 frames per
        second of the two roles that listen to speech)
    source: folder or hub id, of a "conformer" a folder or a run of kind expert; unused by "mel"
    sizes: of a "conformer" without a source, whose weights travel with those of the codec it belongs to
    taps: feature name -> hidden states to average; empty: as published. Unused by "mel"
    window_seconds: of audio that Whisper hears at once; None: as long as the model was made for (30 s). Shorter windows
        cost less and cut off the positions beyond
    views: of "mel" alone: feature name -> MelView; empty: the project's own
    """

    role: str
    kind: str = "mel"
    source: str = ""
    taps: dict[str, tuple[Annotated[int, Range(-1024, 1024)], ...]] = field(default_factory=dict)
    window_seconds: Positive | None = None
    views: dict[str, MelView] = field(default_factory=dict)
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


class ExpertEncoder(nn.Module, ABC):
    """A frozen feature extractor in one role. `dims`: feature name -> channels."""

    dims: dict[str, int]

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.rate = RATES[config.role]

    @torch.no_grad()
    def features(
        self, waveforms: Tensor, lengths: Tensor | None = None, whole_frames: bool = False
    ) -> dict[str, Tensor]:
        """Features of a batch of clips.

        waveforms: (B, n) float32, 24 kHz mono; lengths: (B,) int64 samples of each clip, None: all fill the batch
        whole_frames: of clips that fill the batch, only the floor(rate n / 24000) frames that sound fills, with the
            rest of the sound after them rather than silence, as the published code hears its segments
        Returns feature name -> (B, channels, feature_frames(n, rate)), zero beyond each clip's own frames.
        """
        if lengths is None:
            lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
        if whole_frames:
            return self._encode(waveforms, lengths, lengths * self.rate // SAMPLE_RATE)
        frames = feature_frames(lengths, self.rate)  # (B,)
        most = feature_frames(waveforms.shape[1], self.rate)
        inside = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
        waveforms = F.pad(waveforms * inside, (0, most * (SAMPLE_RATE // self.rate) - waveforms.shape[1]))
        features = self._encode(waveforms, lengths, frames)
        mask = (torch.arange(most, device=waveforms.device) < frames[:, None])[:, None]  # (B, 1, T)
        return {name: value * mask for name, value in features.items()}

    @abstractmethod
    def _encode(self, waveforms: Tensor, lengths: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """Features (B, C, T) of waveforms (B, n) that are zero beyond each clip; T: whole frames in n samples.

        frames: (B,) of each clip; n is T * samples per frame unless whole frames of the clips alone are wanted.
        """

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> ExpertEncoder:
        """Stays in eval mode: no dropout, no layer drop, no masking, whatever the codec around it does."""
        return super().train(False)


class MelExpert(ExpertEncoder):
    """Log band energies with fixed parameters for each role: an expert without weights, for the starter.

    What it costs: nothing is known of speech or music beforehand, so all that Whisper, WavLM and the music encoder have
    learnt from a million hours must come from the training of the codec itself.
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config)
        self.views = config.views
        self.dims = {name: view.bands * view.stack for name, view in self.views.items()}
        for name, view in self.views.items():
            self.register_buffer(f"{name}_window", torch.hann_window(view.window), persistent=False)
            self.register_buffer(f"{name}_bands", band_triangles(view, self._fft_size(view)), persistent=False)

    @staticmethod
    def _fft_size(view: MelView) -> int:
        return 2 ** (view.window - 1).bit_length()

    def _encode(self, waveforms: Tensor, lengths: Tensor, frames: Tensor) -> dict[str, Tensor]:
        total = waveforms.shape[1] * self.rate // SAMPLE_RATE
        waveforms = waveforms[:, : total * (SAMPLE_RATE // self.rate)]
        inside = (torch.arange(total, device=waveforms.device) < frames[:, None])[:, None, :, None]  # (B, 1, T, 1)
        features = {}
        for name, view in self.views.items():
            spectrum = torch.stft(
                waveforms,
                n_fft=self._fft_size(view),
                hop_length=SAMPLE_RATE // (self.rate * view.stack),
                win_length=view.window,
                window=getattr(self, f"{name}_window"),
                pad_mode="constant",
                return_complex=True,
            )[..., :-1]  # (B, bins, T * stack)
            power = spectrum.real.square() + spectrum.imag.square()  # four times as fast as abs() ** 2
            power = getattr(self, f"{name}_bands") @ power  # (B, bands, T * stack)
            power = power / (view.window / 4) ** 2  # a full-scale sine has power 1
            energy = torch.log10(power + 1e-7).unflatten(2, (-1, view.stack))  # (B, bands, T, stack), -7 to 0
            if view.centre:
                mean = (energy * inside).sum((2, 3), keepdim=True) / (inside.sum((2, 3), keepdim=True) * view.stack)
                energy = energy - mean
            else:
                energy = energy + 4
            features[name] = energy.transpose(2, 3).flatten(1, 2)  # (B, bands * stack, T)
        return features


def band_triangles(view: MelView, fft_size: int) -> Tensor:
    """(bands, bins) triangular weights, each band's weights summing to one; on the CPU.

    The device is said each time: transformers makes `linspace`, and no other, forget a default device of meta.
    """
    exact = {"dtype": torch.float64, "device": "cpu"}
    bins = torch.linspace(0, SAMPLE_RATE / 2, fft_size // 2 + 1, **exact)
    if view.scale == "mel":
        low, high = (2595 * torch.log10(torch.tensor(1 + f / 700, **exact)) for f in (view.low, view.high))
        edges = 700 * (10 ** (torch.linspace(low, high, view.bands + 2, **exact) / 2595) - 1)
    else:
        edges = torch.logspace(0, 1, view.bands + 2, base=view.high / view.low, **exact) * view.low
    # A band narrower than a bin would hear nothing: widen it to the bins beside its centre.
    width = SAMPLE_RATE / fft_size
    left = torch.minimum(edges[:-2], edges[1:-1] - width)[:, None]
    right = torch.maximum(edges[2:], edges[1:-1] + width)[:, None]
    centre = edges[1:-1, None]
    weights = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).float()


class WhisperExpert(ExpertEncoder):
    """Encoder of any transformers Whisper model. It hears fixed windows, the last one filled up with silence.

    In the role "music" two of its frames are averaged into one.
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config)
        from transformers import WhisperFeatureExtractor, WhisperModel

        self.encoder = _model(WhisperModel, config, "encoder.").get_encoder()
        self.extractor = _extractor(WhisperFeatureExtractor, config)
        self.dims = dict.fromkeys(config.taps, self.encoder.config.d_model)
        _check_layers(config, self.encoder.config.encoder_layers)
        self.pool = WHISPER_RATE // self.rate
        if config.window_seconds is not None:
            positions = round(config.window_seconds * WHISPER_RATE)
            if not 0 < positions <= self.encoder.config.max_source_positions:
                most = self.encoder.config.max_source_positions / WHISPER_RATE
                raise UserError(f"{config.source}: this Whisper hears at most {most:g} s at once; lower window_seconds")
            kept = self.encoder.embed_positions.weight.data[:positions].clone()
            self.encoder.embed_positions = nn.Embedding.from_pretrained(kept)
            self.encoder.config.max_source_positions = self.encoder.max_source_positions = positions
        self.freeze()

    def _encode(self, waveforms: Tensor, lengths: Tensor, frames: Tensor) -> dict[str, Tensor]:
        rate, window = self.extractor.sampling_rate, self.encoder.config.max_source_positions  # Hz, frames
        samples = window * rate // WHISPER_RATE
        audio = resample(waveforms, SAMPLE_RATE, rate)
        total = audio.shape[1] * WHISPER_RATE // rate  # frames
        audio = F.pad(audio, (0, -audio.shape[1] % samples)).unflatten(1, (-1, samples))  # (B, W, samples)
        heard = [(row, i) for row, n in enumerate(frames.tolist()) for i in range(-(-n * self.pool // window))]
        rows, indices = (torch.tensor(column, device=audio.device) for column in zip(*heard, strict=True))
        spectra = self.extractor(
            [piece.cpu().numpy() for piece in audio[rows, indices]],
            sampling_rate=rate,
            max_length=samples,
            return_tensors="pt",
            device=str(waveforms.device),
        ).input_features
        states = self.encoder(
            spectra.to(waveforms.device), output_hidden_states=True
        ).hidden_states  # of (N, window, C)
        placed = {
            name: self._in_place(average(states, layers), rows, indices, audio.shape[:2])[:, :, :total]
            for name, layers in self.config.taps.items()
        }
        return {name: F.avg_pool1d(value, self.pool) for name, value in placed.items()}

    @staticmethod
    def _in_place(states: Tensor, rows: Tensor, indices: Tensor, shape: torch.Size) -> Tensor:
        """Windows (N, window, C) put where they belong: (B, C, W * window)."""
        placed = states.new_zeros(*shape, *states.shape[1:])
        placed[rows, indices] = states
        return placed.flatten(1, 2).transpose(1, 2)


class SelfSupervisedExpert(ExpertEncoder):
    """Hidden states of any transformers encoder of waveforms (WavLM, HuBERT, ...) or of its spectra (wav2vec2-BERT).

    Clips of equal length run together and unmasked: models that normalise over time (WavLM-base and HuBERT-base among
    them) ignore masks, and would give a clip other features beside longer ones.
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config)
        from transformers import AutoFeatureExtractor, AutoModel

        self.encoder = _model(AutoModel, config)
        self.extractor = _extractor(AutoFeatureExtractor, config)
        model = self.encoder.config
        _check_layers(config, model.num_hidden_layers)
        self.dims = dict.fromkeys(config.taps, model.hidden_size)
        self.reads_spectra = self.extractor.model_input_names[0] == "input_features"
        # `edge`: zeros after the last sample that let the model's last window end on a whole frame (160 as published).
        if self.reads_spectra:  # every 10 ms from windows of 25 ms, stacked
            stride, self.edge = self.extractor.sampling_rate // 100 * self.extractor.stride, 240
        else:
            stride, self.edge = math.prod(model.conv_stride), 160
        self.pool, rest = divmod(self.extractor.sampling_rate, stride * self.rate)
        if rest:
            raise UserError(
                f"{config.source}: {self.extractor.sampling_rate / stride:g} frames per second are no multiple of the "
                f"{self.rate} of the {config.role} expert; choose another model"
            )
        self.freeze()

    def _encode(self, waveforms: Tensor, lengths: Tensor, frames: Tensor) -> dict[str, Tensor]:
        rate = self.extractor.sampling_rate
        audio = resample(waveforms, SAMPLE_RATE, rate)
        total = audio.shape[1] * self.rate // rate
        features = {name: audio.new_zeros(len(audio), dim, total) for name, dim in self.dims.items()}
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            count = int(frames[rows[0]])
            heard = max(count * rate // self.rate, -(-length * rate // SAMPLE_RATE))
            clips = F.pad(audio[rows, :heard], (0, self.edge))
            states = self.encoder(self._inputs(clips), output_hidden_states=True).hidden_states
            for name, layers in self.config.taps.items():
                mean = average(states, layers).transpose(1, 2)[:, :, : count * self.pool]  # (b, C, frames of the model)
                mean = F.pad(mean, (0, count * self.pool - mean.shape[2]), mode="replicate")
                features[name][rows, :, :count] = F.avg_pool1d(mean, self.pool)
        return features

    def _inputs(self, clips: Tensor) -> Tensor:
        arguments = {"sampling_rate": self.extractor.sampling_rate, "return_tensors": "pt"}
        inputs = self.extractor([clip.cpu().numpy() for clip in clips], **arguments)
        return inputs[self.extractor.model_input_names[0]].to(clips.device)


class ConformerExpert(ExpertEncoder):
    """Hidden states of a codec.music_encoder.MusicEncoder, as published; a clip's last frame ends in silence.

    Clips of equally many frames run together, so that a clip has the features that it has alone. `config` names sizes
    in place of the source, so that a codec that is saved needs the source no more.
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config)
        folder = Path(config.source)
        if config.sizes is not None:
            self.encoder = MusicEncoder(config.sizes)
        else:
            self.encoder = MusicEncoder.from_pretrained(folder / "model" if (folder / "model").is_dir() else folder)
        sizes = self.encoder.config
        if sizes.sample_rate != SAMPLE_RATE or sizes.samples_per_frame * self.rate != SAMPLE_RATE:
            raise UserError(
                f"{config.source or 'sizes'}: a music encoder of {sizes.sample_rate / sizes.samples_per_frame:g} "
                f"frames per second at {sizes.sample_rate} Hz cannot serve as {config.role} expert, which needs "
                f"{self.rate} at {SAMPLE_RATE} Hz; choose another"
            )
        _check_layers(config, sizes.layers)
        # Layers that nobody listens to do not run; -1 is the last state.
        self.deepest = max(state % (sizes.layers + 1) for states in config.taps.values() for state in states)
        self.dims = dict.fromkeys(config.taps, sizes.dim)
        self.config = replace(config, source="", sizes=sizes)
        self.freeze()

    def _encode(self, waveforms: Tensor, lengths: Tensor, frames: Tensor) -> dict[str, Tensor]:
        size = SAMPLE_RATE // self.rate
        total = waveforms.shape[1] // size
        features = {name: waveforms.new_zeros(len(waveforms), dim, total) for name, dim in self.dims.items()}
        for count in frames.unique().tolist():
            rows = (frames == count).nonzero()[:, 0]
            states = self.encoder(waveforms[rows, : count * size], self.deepest)
            for name, layers in self.config.taps.items():
                counted = tuple(layer % (self.encoder.config.layers + 1) for layer in layers)
                features[name][rows, :, :count] = average(states, counted).transpose(1, 2)
        return features


KINDS = {
    "mel": MelExpert,
    "whisper": WhisperExpert,
    "self_supervised": SelfSupervisedExpert,
    "conformer": ConformerExpert,
}


def load_expert(config: ExpertConfig) -> ExpertEncoder:
    """The expert of a configuration, frozen. Raises UserError where its model cannot be read."""
    return KINDS[config.kind](config)


def average(states: tuple[Tensor, ...], layers: tuple[int, ...]) -> Tensor:
    """Mean (B, T, C) of the chosen hidden states; 0 is the input of the first layer, -1 the output of the last."""
    return torch.stack([states[layer] for layer in layers]).mean(0)


def _check_layers(config: ExpertConfig, layers: int) -> None:
    named = [state for states in config.taps.values() for state in states]
    strange = next((state for state in (max(named), min(named)) if not -layers - 1 <= state <= layers), None)
    if strange is not None:
        raise UserError(
            f"{config.source or 'sizes'}: there is no hidden state {strange}, the model has {layers} layers; "
            f"choose other taps for the {config.role} expert"
        )


def _model(cls: type, config: ExpertConfig, needed: str = "") -> nn.Module:
    """The transformers model of an expert, in float32, as all the codec computes; it may be stored in another type.

    needed: how names of weights begin that the expert needs
    On torch's meta device, a model of its shapes alone. Raises UserError where one of the weights is missing, NaN or
    infinite.
    """
    from transformers import AutoConfig, AutoModel

    with _reading(config):
        if torch.get_default_device().type == "meta":
            return AutoModel.from_config(AutoConfig.from_pretrained(config.source, trust_remote_code=False))
        model, loading = cls.from_pretrained(
            config.source, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    absent = sorted(
        name for name in loading["missing_keys"] if name.startswith(needed) and not name.endswith("masked_spec_embed")
    )
    if absent:  # transformers would go on with random weights
        raise UserError(
            f"{config.source}: {len(absent)} weights of the {config.role} expert are missing ({absent[0]}, ...); copy "
            "the model again"
        )
    require_plain(config.source, model.state_dict())
    return model


def _extractor(cls: type, config: ExpertConfig) -> Any:
    with _reading(config):
        extractor = cls.from_pretrained(config.source, trust_remote_code=False)
    rate = getattr(extractor, "sampling_rate", None)
    if not isinstance(rate, int) or isinstance(rate, bool) or rate < 1:
        raise UserError(
            f"{config.source}: sampling_rate of its feature extractor is {rate!r}, which must be a number of Hz; copy "
            "preprocessor_config.json again"
        )
    return extractor


def _reading(config: ExpertConfig) -> AbstractContextManager[None]:
    wrong = f"the {config.role} expert could not be read"
    return third_party_errors(config.source, wrong, "give the folder or hub id of a whole transformers model")
