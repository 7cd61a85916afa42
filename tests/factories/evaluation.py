"""A corpus of tones, clicks and noise with exact labels, small enough to be written and tokenised in every test run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.corpora.read import read_corpora
from auditory_sentences.starter.jobs import Job, StarterSize, render
from auditory_sentences.token_store import build_store
from evaluation import run_suite
from evaluation.config import EvaluationConfig
from lm.words import DIGITS
from tests.factories.uniaudio import tiny_uniaudio

RATE = 24_000


def _time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * RATE)) / RATE


def hiss(rng, seconds):
    return 0.2 * rng.standard_normal(round(seconds * RATE))


def hum(rng, seconds):
    return 0.3 * sum(np.sin(2 * np.pi * k * rng.uniform(90, 110) * _time(seconds)) / k for k in range(1, 8))


def clicks(rng, seconds):
    wave = np.zeros(round(seconds * RATE))
    wave[:: round(RATE / rng.uniform(9, 12))] = 0.8
    return wave


def flute(rng, seconds):
    return 0.4 * np.sin(2 * np.pi * rng.uniform(500, 900) * _time(seconds))


def organ(rng, seconds):
    f = rng.uniform(200, 300)
    return 0.2 * sum(np.sin(2 * np.pi * f * k * _time(seconds)) for k in (1, 2, 4, 8))


def voice(rng, seconds, high):
    f = rng.uniform(190, 230) if high else rng.uniform(90, 120)
    return 0.2 * sum(np.sin(2 * np.pi * f * k * _time(seconds)) / k**0.5 for k in range(1, 15))


SOUNDS = {"rain": hiss, "engine": hum, "clock": clicks}
INSTRUMENTS = {"flute": flute, "organ": organ}


def starter_speech(count: int, split: str = "dev", content: str = "digits") -> list[tuple[str, np.ndarray]]:
    """Text and waveform of clips of the starter's speech."""
    pairs: list[tuple[str, np.ndarray]] = []
    for index in range(200):
        clips = render(Job("speech", split, index), 0, StarterSize())
        pairs += [(clip.text, wave) for clip, wave, _ in clips if clip.labels["content"] == content]
        if len(pairs) >= count:
            break
    return pairs[:count]


def write_corpus(folder: Path, train: int = 5, test: int = 3) -> Path:
    """`train` and `test` clips of every class, instrument and gender, half a second each."""
    rng = np.random.default_rng(0)
    clips: list[Clip] = []
    (folder / "audio").mkdir(parents=True)

    def add(wave, kind, split, **fields):
        name = f"{split}-{kind}-{len(clips)}"
        soundfile.write(folder / "audio" / f"{name}.flac", wave, RATE)
        clips.append(Clip(name, f"audio/{name}.flac", kind, split, source="test tones", **fields))

    for split, count in (("train", train), ("test", test)):
        for i in range(count):
            for j, (name, make) in enumerate(SOUNDS.items()):
                wave = make(rng, 0.4 + 0.05 * j)
                add(wave, "sound", split, caption=f"the sound of {name}", labels={"class": name})
            for name, make in INSTRUMENTS.items():
                labels = {"instrument": name, "tempo": ("slow", "fast")[i % 2]}
                add(make(rng, 0.5), "music", split, caption=f"a {labels['tempo']} {name} melody", labels=labels)
            for j, gender in enumerate(("male", "female")):
                text = f"{DIGITS[i]} {DIGITS[(i + 1 + 4 * (split == 'test') + j) % 10]}"
                labels = {"gender": gender, "content": "digits"}
                speaker, caption = f"{split}-{gender}", f"a {gender} voice"
                wave = voice(rng, 0.5, high=gender == "female")
                add(wave, "speech", split, text=text, caption=caption, speaker=speaker, labels=labels)
    (folder / "clips.jsonl").write_text("".join(clip.to_json() + "\n" for clip in clips))
    return folder


def run(quiet: bool = True, **settings: Any) -> dict[str, Any]:
    """An evaluation with these settings (evaluation.config.EvaluationConfig)."""
    return run_suite.run(EvaluationConfig(**settings), quiet)


def write_model(folder: Path) -> Path:
    """A model with random weights, its corpus and its token store, which the recipe beside it names."""
    uniaudio = tiny_uniaudio()
    uniaudio.save_pretrained(folder / "model")
    corpus = write_corpus(folder / "corpus")
    build_store(read_corpora([corpus]), uniaudio.codec, folder / "tokens")
    (folder / "recipe.yaml").write_text(f"store: {folder / 'tokens'}\n")
    return folder / "model"


CODEC_TASK = """
task: {name}
version: 1
title: {title}
about: A.
request: reconstruction
data: {{kind: sound}}
scores:
  - {{name: mel distance, metric: mel_distance, scorer: waveform}}
"""


def codec_suite(folder: Path, name: str = "mine", title: str = "Mine") -> Path:
    """A suite of one task: sounds through a codec and back."""
    (folder / "task.yaml").write_text(CODEC_TASK.format(name=name, title=json.dumps(title)))
    path = folder / "suite.yaml"
    path.write_text("suite: s\ntitle: S\nabout: A.\ntasks: [task.yaml]\n")
    return path


def corpus_of(folder: Path, *clips: str, **fields: Any) -> Path:
    """A corpus of tones with these ids."""
    folder.mkdir()
    lines = []
    for i, name in enumerate(clips):
        soundfile.write(folder / f"{i}.wav", 0.2 * np.sin(np.arange(9_600) * (i + 2) / 40), 24_000)
        lines.append({"id": name, "path": f"{i}.wav", "kind": "sound", "split": "test"} | fields)
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def samples_in(out: Path) -> list[dict[str, Any]]:
    """The samples of a finished evaluation."""
    return [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
