"""The vocabulary layout: which integer means what in the nine columns of a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from codec.io.errors import UserError
from codec.io.files import write_text
from codec.io.numbers import Index, Range, Width
from codec.io.reading import read_json
from codec.io.strict import parse
from codec.tokens import NUM_CODEBOOKS

TAGGED_ROLES = ("transcription", "lyric", "caption")  # text of these roles is wrapped in an opening and a closing id


@dataclass(frozen=True)
class VocabularyLayout:
    """Cards, special ids, tags and the fingerprints of both tokenizers, as one explicit value.

    Audio ids share one space per codebook: descriptive ids occupy [0, descriptive_card), structural ids
    [descriptive_card, descriptive_card + structural_card). The structural special ids below are given *before* that
    offset, as in the published configuration (published model, §A.3 and §B.1).
    """

    text_size: Width  # number of text ids, specials and padding of the table included
    text_bos: Index
    text_eos: Index
    text_pad: Index
    tags: Mapping[str, tuple[Index, Index]]  # role -> (opening id, closing id)
    descriptive_codes: Width  # ids [0, descriptive_codes) are codebook entries
    descriptive_card: Width  # codes, special ids and spare ids together
    descriptive_bos: Index
    descriptive_eos: Index
    descriptive_pad: Index
    structural_codes: Width
    structural_card: Width
    structural_bos: Index
    structural_eos: Index
    structural_pad: Index
    audio_prompt_bos: Index
    audio_prompt_eos: Index
    text_fingerprint: str = ""
    audio_fingerprint: str = ""
    num_codebooks: Annotated[int, Range(NUM_CODEBOOKS, NUM_CODEBOOKS)] = NUM_CODEBOOKS

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", {role: tuple(self.tags[role]) for role in sorted(self.tags)})
        for kind in ("descriptive", "structural"):
            card = getattr(self, f"{kind}_card")
            for name in ("bos", "eos", "pad"):
                value = getattr(self, f"{kind}_{name}")
                if not 0 <= value < card:
                    raise ValueError(f"{kind}_{name} = {value} lies outside the {card} {kind} ids")
            if getattr(self, f"{kind}_codes") > card:
                raise ValueError(f"{kind}_codes: there are more codes than the {card} {kind} ids")
        for name in ("audio_prompt_bos", "audio_prompt_eos"):
            if not 0 <= getattr(self, name) < self.structural_card:
                raise ValueError(
                    f"{name} = {getattr(self, name)} lies outside the {self.structural_card} structural ids"
                )
        for role in TAGGED_ROLES:
            if role not in self.tags:
                raise ValueError(f"the vocabulary layout has no tag ids for the role '{role}'")
        ids = {"text_bos": self.text_bos, "text_eos": self.text_eos, "text_pad": self.text_pad}
        ids |= {f"tags.{role}": value for role, pair in self.tags.items() for value in pair}
        for name, value in ids.items():
            if not 0 <= value < self.text_size:
                raise ValueError(f"{name} = {value} lies outside the {self.text_size} text ids")

    @classmethod
    def build(cls, text_tokenizer, descriptive_codes: int, structural_codes: int, audio_fingerprint: str):
        """Layout for a text tokenizer (lm.text_tokenizer.TextTokenizer) and a codec, special ids right after the codes.

        The arrangement (bos, eos, spare, pad after the codes) is the one that the published loader's defaults imply.
        """
        return cls(
            text_size=text_tokenizer.size,
            text_bos=text_tokenizer.bos,
            text_eos=text_tokenizer.eos,
            text_pad=text_tokenizer.pad,
            tags={role: text_tokenizer.tag(role) for role in TAGGED_ROLES},
            descriptive_codes=descriptive_codes,
            descriptive_card=descriptive_codes + 4,
            descriptive_bos=descriptive_codes,
            descriptive_eos=descriptive_codes + 1,
            descriptive_pad=descriptive_codes + 3,
            structural_codes=structural_codes,
            structural_card=structural_codes + 8,
            structural_bos=structural_codes,
            structural_eos=structural_codes + 1,
            structural_pad=structural_codes + 3,
            audio_prompt_bos=structural_codes + 4,
            audio_prompt_eos=structural_codes + 5,
            text_fingerprint=text_tokenizer.fingerprint,
            audio_fingerprint=audio_fingerprint,
        )

    @property
    def audio_size(self) -> int:
        """Number of audio ids of one codebook (V): descriptive and structural ids together."""
        return self.descriptive_card + self.structural_card

    @property
    def structural_offset(self) -> int:
        """What is added to a structural id on its way into a row."""
        return self.descriptive_card

    @property
    def hash(self) -> str:
        """Stable identity of the layout."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def require_same(self, other: VocabularyLayout, ours: str, theirs: str) -> None:
        """Raise UserError that names both sides (`ours`, `theirs`: file or object names) where the layouts differ."""
        different = [
            f"{f.name}: {getattr(self, f.name)} in {ours}, {getattr(other, f.name)} in {theirs}"
            for f in fields(self)
            if getattr(self, f.name) != getattr(other, f.name)
        ]
        if different:
            raise UserError(
                f"{ours} and {theirs} do not share a vocabulary ({'; '.join(different)}); "
                "use the tokenizers and the token store that the model was made with"
            )

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any, source: str = "vocabulary layout") -> VocabularyLayout:
        """Raises UserError naming `source` and the key that is missing, unknown or unfit."""
        return parse(cls, values, source)

    def save(self, path: str | Path) -> None:
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> VocabularyLayout:
        """Read what `save` wrote. Raises UserError where it is no such file."""
        return cls.from_dict(
            read_json(path, "vocabulary layout", "copy it again: it is saved beside every model"), str(path)
        )
