"""Random draws that are a pure function of a key: the same on any machine, process, worker and Python version."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_64 = (1 << 64) - 1


def stable_hash(*key: object) -> int:
    """64 bits from the key's parts (strings and integers). Python's own `hash` differs from process to process."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(x: int) -> int:
    """A bijection of 64 bits in which every input bit touches every output bit (the finaliser of splitmix64)."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _64
    return x ^ (x >> 31)


class KeyedRng:
    """A stream of random draws that starts from a key. Cheap to start: one is made for every sentence.

    Args:
        key: Strings and integers.
    """

    def __init__(self, *key: object) -> None:
        self._state = stable_hash(*key)

    def randrange(self, n: int) -> int:
        """A whole number in [0, n)."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _64
        return _mix(self._state) * n >> 64

    def randint(self, low: int, high: int) -> int:
        """A whole number in [low, high], both ends included."""
        return low + self.randrange(high - low + 1)

    def bernoulli(self, p: float) -> bool:
        """True with probability p."""
        return self.randrange(1 << 53) < p * (1 << 53)

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.randrange(len(items))]

    def sample(self, items: Sequence[T], k: int) -> list[T]:
        """At most k different places of `items`, in random order; all of them, shuffled, where k >= len(items)."""
        swapped: dict[int, int] = {}  # a Fisher-Yates shuffle that touches k places only, however long `items` is
        chosen = []
        for i in range(min(k, len(items))):
            j = self.randint(i, len(items) - 1)
            chosen.append(items[swapped.get(j, j)])
            swapped[j] = swapped.get(i, i)
        return chosen

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        return self.sample(items, len(items))


_ROUNDS = 6


def permuted(index: int, size: int, *key: object) -> int:
    """Where a random permutation of [0, size) sends `index`, in O(1) time and memory.

    A Feistel network over the next power of four, walked until it lands inside [0, size): at most four steps, mostly.

    Args:
        index: In [0, size).
        size: Of what is permuted, at least 1.
        key: Strings and integers; each key is another permutation.

    Raises:
        IndexError: The index lies outside.
    """
    if not 0 <= index < size:
        raise IndexError(f"{index} lies outside [0, {size})")
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low_bits = (1 << half) - 1
    seed = stable_hash("permutation", *key)
    while True:
        left, right = index >> half, index & low_bits
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_mix(seed + (turn << 56) + right & _64) >> (64 - half))
        index = left << half | right
        if index < size:
            return index
