"""A clip: one audio file and everything known about it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

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
        for name in ("id", "path", "kind", "split", "text", "caption", "speaker", "group", "licence", "source"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"clip {self.id!r}: {name} must be text, not {getattr(self, name)!r}")
        if not self.id or not self.path:
            raise UserError(f"clip {self.id!r} ({self.path!r}): both id and path must say something")
        for name, known in (("kind", KINDS), ("split", SPLITS)):
            if getattr(self, name) not in known:
                raise UserError(f"clip {self.id!r}: {name} {getattr(self, name)!r} is not one of {', '.join(known)}")
        if not isinstance(self.position, int):
            raise UserError(f"clip {self.id!r}: position must be a whole number, not {self.position!r}")
        if not isinstance(self.labels, dict) or not all(isinstance(v, str) for kv in self.labels.items() for v in kv):
            raise UserError(f"clip {self.id!r}: labels must map text to text, not {self.labels!r}")
        if not isinstance(self.parts, tuple) or not all(isinstance(part, str) for part in self.parts):
            raise UserError(f"clip {self.id!r}: parts must be ids of clips, not {self.parts!r}")

    def to_json(self) -> str:
        """One line of clips.jsonl; fields that hold nothing are left out."""
        return json.dumps({k: v for k, v in asdict(self).items() if v or k in ("id", "path", "kind", "split")})
