"""The vocabulary layout: which integer means what in the nine columns of a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from codec.errors import UserError
from codec.tokens import NUM_CODEBOOKS

TAGGED_ROLES = ("transcription", "lyric", "caption")  # text of these roles is wrapped in an opening and a closing id


@dataclass(frozen=True)
class VocabularyLayout:
    """Cards, special ids, tags and the fingerprints of both tokenizers, as one explicit value.

    Audio ids share one space per codebook: descriptive ids occupy [0, descriptive_card), structural ids
    [descriptive_card, descriptive_card + structural_card). The structural special ids below are given *before* that
    offset, as in the published configuration (published model, §A.3 and §B.1).
    """

    text_size: int  # number of text ids, specials and padding of the table included
    text_bos: int
    text_eos: int
    text_pad: int
    tags: Mapping[str, tuple[int, int]]  # role -> (opening id, closing id)
    descriptive_codes: int  # ids [0, descriptive_codes) are codebook entries
    descriptive_card: int  # codes, special ids and spare ids together
    descriptive_bos: int
    descriptive_eos: int
    descriptive_pad: int
    structural_codes: int
    structural_card: int
    structural_bos: int
    structural_eos: int
    structural_pad: int
    audio_prompt_bos: int
    audio_prompt_eos: int
    text_fingerprint: str = ""
    audio_fingerprint: str = ""
    num_codebooks: int = field(default=NUM_CODEBOOKS)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", {role: tuple(self.tags[role]) for role in sorted(self.tags)})
        for kind in ("descriptive", "structural"):
            card = getattr(self, f"{kind}_card")
            for name in ("bos", "eos", "pad"):
                value = getattr(self, f"{kind}_{name}")
                if not 0 <= value < card:
                    raise ValueError(f"{kind}_{name} = {value} lies outside the {card} {kind} ids")
        for role in TAGGED_ROLES:
            if role not in self.tags:
                raise ValueError(f"the vocabulary layout has no tag ids for the role '{role}'")

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
    def from_dict(cls, values: Mapping) -> VocabularyLayout:
        """Raises ValueError naming every missing or unknown key."""
        known = {f.name for f in fields(cls)}
        optional = {"text_fingerprint", "audio_fingerprint", "num_codebooks"}
        missing, unknown = known - optional - set(values), set(values) - known
        if missing or unknown:
            raise ValueError(
                f"vocabulary layout: missing {sorted(missing) or 'nothing'}, unknown {sorted(unknown) or 'nothing'}"
            )
        return cls(**values)

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> VocabularyLayout:
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: not a vocabulary layout ({error}); it is saved beside every model") from error
