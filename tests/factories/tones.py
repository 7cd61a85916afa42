"""Tones: one in a file, and a corpus of them whose class can be heard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile


def write_tones(folder: Path) -> Path:
    """Two dozen tones, low ones called bell and high ones bird; the first four are speech."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(24):
        high, split = number % 2, "dev" if number >= 16 else "train"
        time = np.arange(rng.integers(9000, 24000)) / 24000
        wave = 0.4 * np.sin(2 * np.pi * rng.uniform(0.9, 1.1) * (400, 2500)[high] * time)
        soundfile.write(folder / f"{number}.wav", wave, 24000)
        line = {"id": f"clip-{number}", "path": f"{number}.wav", "split": split}
        if number < 4:
            line |= {"kind": "speech", "text": ("one two", "nine")[high], "speaker": "x"}
        else:
            line |= {"kind": "sound", "caption": "a sound", "labels": {"class": ("bell", "bird")[high]}}
        lines.append(line)
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_tone(path: Path, pitch: float, samples: int = 2_400) -> Path:
    """0.1 s of a low tone, in a folder that may be new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(np.arange(samples) * pitch / 400), 24_000)
    return path
