"""Speaker verification: two recordings, one after the other, and whether their speaker is the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.rng import KeyedRng
from codec.tokens import SAMPLE_RATE

TASK = "speaker_verification"
GAP = SAMPLE_RATE // 2  # samples of silence between the two


class SpeakerPairs:
    """Pairs of clips of speech whose speakers are known.

    Args:
        clips: to pair.
        lengths: clip id -> samples.
        longest: samples of a pair with its gap, at most; no clip has more than half of them.
    """

    def __init__(self, clips: Sequence[Clip], lengths: Mapping[str, int], longest: int) -> None:
        self._short = [c for c in clips if c.kind == "speech" and c.speaker and 2 * lengths[c.id] + GAP <= longest]
        self._of: dict[str, list[Clip]] = {}
        for clip in self._short:
            self._of.setdefault(clip.speaker, []).append(clip)

    @property
    def firsts(self) -> list[Clip]:
        """The clips that have a partner of either kind: another clip of their speaker, and another speaker."""
        return [clip for clip in self._short if len(self._of[clip.speaker]) > 1] if len(self._of) > 1 else []

    def partner(self, first: Clip, rng: KeyedRng) -> tuple[Clip, str]:
        """Another clip, of the same speaker with chance one half, and the answer: "yes" or "no"."""
        same = rng.bernoulli(0.5)
        among = self._of[first.speaker] if same else self._short
        while True:
            other = rng.choice(among)
            if other.id != first.id and (other.speaker == first.speaker) == same:
                return other, "yes" if same else "no"
