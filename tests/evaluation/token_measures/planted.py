"""A tokenizer that reads its ids off the waveform, so that tests can plant any ids in a recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.corpora.phones import PHONES_FILE, Phone, phones_line
from codec.streams import StreamSpec
from codec.tokenizer import AudioTokenizer, checked_lengths
from codec.tokens import AudioTokens
from evaluation.cache import Cache
from evaluation.token_measures.coded import CodedClips

RATE = 50  # frames a second
CODES = 16
_SAMPLES = 24_000 // RATE  # of a frame
_STEP = 1 / 64  # between the levels of two ids


class PlantedTokenizer(AudioTokenizer):
    """One codebook at 50 Hz: the id of a frame is its level in steps. A frame's vector is one-hot."""

    tokenizer_type = "planted"
    streams = (StreamSpec("codes", float(RATE), 1, CODES, extra_frame=False),)

    def encode(self, waveforms, lengths=None, progress=None):
        found = []
        for wave, n in zip(waveforms, checked_lengths(waveforms, lengths, self.sample_rate), strict=True):
            frames = self.num_frames("codes", n)
            level = F.pad(wave[:n], (0, frames * _SAMPLES - n)).view(frames, _SAMPLES).mean(1)
            ids = (level / _STEP).round().long().clamp(0, CODES - 1)
            found.append(AudioTokens({"codes": ids[None]}, n, self.fingerprint))
        return found

    def decode(self, tokens, steps=None, seed=0, guidance=None):
        return [torch.zeros(clip.num_samples) for clip in tokens]

    def dequantise(self, stream, ids):
        return F.one_hot(ids[..., 0], CODES).float()

    def config_values(self):
        return {}

    @classmethod
    def from_config_values(cls, values, source):
        return cls()


def plant(
    folder: Path, name: str, ids: Sequence[int], split: str = "test", phones: Sequence[tuple[float, float, str]] = (),
    **fields,
) -> Clip:  # fmt: skip
    """A recording with these ids, and a line of phone times (in frames) where there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.wav"
    soundfile.write(path, np.repeat(np.asarray(ids) * _STEP, _SAMPLES), 24_000, subtype="FLOAT")
    if phones:
        times = tuple(Phone(start / RATE, end / RATE, phone) for start, end, phone in phones)
        with (folder / PHONES_FILE).open("a") as file:
            file.write(phones_line(name, times) + "\n")
    return Clip(name, str(path), fields.pop("kind", "speech"), split, **fields)


def coded(folder: Path, clips: Sequence[Clip], **settings: int) -> CodedClips:
    """The planted tokens of clips."""
    test = [clip for clip in clips if clip.split == "test"]
    return CodedClips(PlantedTokenizer().eval(), clips, test, Cache(folder / "cache"), **settings)


def spoken(
    folder: Path, ids_of: Mapping[str, int] | None, speakers: int = 4, phones: int = 5, seed: int = 0
) -> list[Clip]:
    """Clips of phones of 3 to 6 frames, one or more of each by each speaker.

    ids_of: phone -> its id; None: ids are random
    """
    rng = np.random.default_rng(seed)
    clips = []
    for s in range(speakers):
        for take in range(3):
            ids: list[int] = []
            times = []
            for p in rng.permutation(phones):
                length = int(rng.integers(3, 7))
                times.append((len(ids), len(ids) + length, f"p{p}"))
                planted = [ids_of[f"p{p}"]] * length if ids_of else rng.integers(0, CODES, length).tolist()
                ids += planted
            clips.append(plant(folder, f"s{s}-{take}", ids, phones=times, speaker=f"speaker {s}"))
    return clips
