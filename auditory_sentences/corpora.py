"""Clips, and the corpora they are read from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from codec.errors import UserError

KINDS = ("speech", "sound", "music", "mixture")
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Clip:
    """One audio file and everything known about it.

    id: unique in its corpus
    path: of the audio file; absolute once read
    text: what is said (speech, mixture), "" where unknown
    caption: what is heard, in words, "" where unknown
    labels: exact attributes, such as {"gender": "male", "speed": "slow"} or {"instrument": "piano"}
    group, position: name of the long recording that the clip is a piece of, and which piece (0, 1, ...)
    parts: ids of the clean clips that a mixture is the sum of
    """

    id: str
    path: str
    kind: str
    split: str
    text: str = ""
    caption: str = ""
    speaker: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    group: str = ""
    position: int = 0
    parts: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"clip {self.id}: kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.split not in SPLITS:
            raise UserError(f"clip {self.id}: split {self.split!r} is not one of {', '.join(SPLITS)}")

    def to_json(self) -> str:
        """One line of clips.jsonl; fields that hold nothing are left out."""
        return json.dumps({k: v for k, v in asdict(self).items() if v or k in ("id", "path", "kind", "split")})
