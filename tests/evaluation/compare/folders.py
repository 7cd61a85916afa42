"""Folders of finished evaluations, as small as can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from evaluation.metrics.registry import METRICS
from evaluation.runner import flac

TONE = 0.3 * np.sin(np.arange(4_800) / 20)
SAID = {"x1": "one two three", "x2": "four five", "x3": "six", "x4": "seven eight nine ten"}


def score_of(name: str, metric: str, samples: list[dict[str, Any]], scorer: str = "recogniser") -> dict[str, Any]:
    """The entry of a score that samples have measured."""
    pairs = [s["predictions"][name]["measured"] for s in samples]
    pairs = [pair for pair in pairs if pair is not None]
    value = sum(a for a, _ in pairs) / (sum(w for _, w in pairs) or 1.0) if pairs else None
    of = METRICS[metric]
    return {
        "name": name, "metric": metric, "scorer": scorer, "about": "", "unit": of.unit, "direction": of.direction,
        "percent": of.percent, "value": value, "stderr": 0.1, "n": len(pairs), "unparsed": 0, "empty_references": 0,
        "chance": 1.0, "untrained": None, "original": None, "codec": None,
    }  # fmt: skip


def words_task(folder: Path, answers: dict[str, str], task: str = "asr", **other: Any) -> tuple[dict, list[dict]]:
    """A task of words: its entry, and its samples, with a sound for each."""
    samples = []
    for item, answer in answers.items():
        reference = SAID[item]
        read = {"read": answer, "reference": reference, "original": None}
        read["measured"] = METRICS["wer"].measure(answer, reference)
        samples.append({
            "task": task, "shots": 0, "id": item, "path": str(folder / "original.wav"), "given": ["Say.", "<audio>"],
            "expected": reference, "answer": None, "reason": "end", "predictions": {"words": read},
            "audio": f"audio/{item}.flac",
        })  # fmt: skip
    entry = {
        "task": task, "version": 1, "fingerprint": "f", "title": f"Title of {task}", "about": "", "shots": 0,
        "n": len(samples), "scores": [score_of("words", "wer", samples)],
    } | other  # fmt: skip
    for sample in samples:
        if "codec" in other:
            sample["codec"] = other["codec"]
    return entry, samples


def write_folder(folder: Path, *tasks: tuple[dict, list[dict]], model: str = "", seed: int = 0, **other: Any) -> Path:
    """The folder of an evaluation of these tasks."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "original.wav", TONE, 24_000)
    for item in SAID:
        (folder / "audio" / f"{item}.flac").write_bytes(flac(TONE))
    results = {
        "format": 1, "suites": [{"suite": "small", "title": "Small", "about": "", "tasks": []}],
        "settings": {"shots": [0], "limit": 4, "untrained_limit": 0, "seed": seed},
        "model": {"source": str(folder), "fingerprint": model or folder.name, "parameters": 1},
        "codec": {"name": "codec", "source": "c", "fingerprint": "c", "decoding": "d"},
        "data": {"fingerprint": "t", "clips": 4, "hash": "h"}, "versions": {"recogniser": "r 1"},
        "tasks": [entry for entry, _ in tasks],
    } | other  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    lines = [json.dumps(sample) + "\n" for _, samples in tasks for sample in samples]
    (folder / "samples.jsonl").write_text("".join(lines))
    return folder


def words_folder(folder: Path, answers: dict[str, str], **other: Any) -> Path:
    """The folder of an evaluation of one task of words."""
    return write_folder(folder, words_task(folder, answers), **other)
