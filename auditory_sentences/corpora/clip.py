"""A clip: one audio file and everything known about it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

from codec.io.errors import UserError
from codec.io.numbers import LARGEST, Index
from codec.io.terminal import shown

Kind = Literal["speech", "sound", "music", "mixture"]
Split = Literal["train", "dev", "test"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SPLITS: tuple[Split, ...] = get_args(Split)

_TEXTS = ("id", "path", "kind", "split", "text", "caption", "speaker", "group", "instruction", "licence", "source")


@dataclass(frozen=True)
class Clip:
    """One audio file and everything known about it.

    Raises:
        UserError: A value is none that its field can have.
    """

    # unique in its corpus
    id: str
    # of the audio file; absolute once read
    path: str
    # what is heard: speech, sound, music, or a mixture of them
    kind: Kind
    # that it is of: to learn from, to choose by, or to measure with
    split: Split
    # what is said (speech, mixture), or sung (music); "" where unknown
    text: str = ""
    # what is heard, in words, "" where unknown
    caption: str = ""
    # name of who speaks, "" where unknown
    speaker: str = ""
    # exact attributes, such as {"gender": "male", "speed": "slow"} or {"instrument": "piano"}
    labels: dict[str, str] = field(default_factory=dict)
    # name of the long recording that the clip is a piece of
    group: str = ""
    # which piece of it (0, 1, ...)
    position: Index = 0
    # ids of the clips that it was made of: what a mixture is the sum of, what was edited, or played in a room
    parts: tuple[str, ...] = ()
    # what was asked for, where the clip is what came of it: its one part, edited, or the reply to the clip before it
    instruction: str = ""
    # that the recording is under
    licence: str = ""
    # where the recording is from
    source: str = ""

    def __post_init__(self) -> None:
        what = f"clip {shown(self.id)}"
        for name in _TEXTS:
            if not isinstance(getattr(self, name), str):
                raise UserError(f"{what}: {name} must be text, not {shown(getattr(self, name))}")
        if not self.id.strip() or not self.path.strip():
            raise UserError(f"{what} ({shown(self.path)}): both id and path must say something")
        for name, known in (("kind", KINDS), ("split", SPLITS)):
            if getattr(self, name) not in known:
                raise UserError(f"{what}: {name} {shown(getattr(self, name))} is not one of {', '.join(known)}")
        if type(self.position) is not int or not 0 <= self.position <= LARGEST:
            raise UserError(f"{what}: position must be a whole number from 0, not {shown(self.position)}")
        if not isinstance(self.labels, dict) or not all(isinstance(v, str) for kv in self.labels.items() for v in kv):
            raise UserError(f"{what}: labels must map text to text, not {shown(self.labels)}")
        if not isinstance(self.parts, tuple) or not all(isinstance(part, str) for part in self.parts):
            raise UserError(f"{what}: parts must be ids of clips, not {shown(self.parts)}")
        if "\0" in self.path:
            raise UserError(f"{what}: {shown(self.path)} is not a name that a file can have; correct it")
        if self.id in self.parts:
            raise UserError(f"{what}: names itself as a part of it")

    def to_json(self) -> str:
        """One line of clips.jsonl; fields that hold nothing are left out."""
        return json.dumps({k: v for k, v in asdict(self).items() if v or k in ("id", "path", "kind", "split")})
