"""Random numbers and splits that are the same on every machine, process and day."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def stable_hash(*keys: object) -> int:
    """64-bit hash of the keys' text, unlike `hash()` the same in every process."""
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, keys)).encode()).digest()[:8], "big")


def generator(seed: int, *keys: object) -> np.random.Generator:
    """Generator that depends on the seed and the keys and nothing else."""
    return np.random.default_rng([seed, stable_hash(*keys)])


def split_of(content: str) -> str:
    """Split that a sentence, a digit string or a melody belongs to: 10 % dev, 10 % test, the rest train.

    What is said or played decides, so no content can be in two splits, whatever the corpus' seed and size.
    """
    bucket = stable_hash("split", content) % 10
    return {0: "dev", 1: "test"}.get(bucket, "train")


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options (kept as the Python object it is, which `rng.choice` would not)."""
    return options[int(rng.integers(len(options)))]
