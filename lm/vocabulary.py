"""The vocabulary layout: which integer means what in the columns of a row, and the grammar of rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from codec.io.errors import UserError
from codec.io.files import write_text
from codec.io.numbers import Count, Index, Name, Positive, Range, Width
from codec.io.reading import read_json
from codec.io.strict import parse
from codec.streams import ALL_STREAMS, StreamSpec, plain_values
from codec.tokens import SAMPLE_RATE, AudioTokens

if TYPE_CHECKING:
    from lm.text_tokenizer import TextTokenizer

TAGGED_ROLES = ("transcription", "lyric", "caption")  # text of these roles is wrapped in an opening and a closing id
AUDIO_PROMPT = "audio_prompt"  # role: the last stream of a reference voice or sound
EDGES = 2  # a BOS and an EOS frame around the frames of a stream

Place = Literal["frame", "bos", "eos"]


@dataclass(frozen=True)
class StreamVocabulary:
    """The ids of one stream, the same for each of its codebooks.

    They occupy [0, size) here and [offset, offset + size) in a row. Special ids are given before the offset, as in the
    published configuration (published model, §A.3 and §B.1).
    """

    # of the tokenizer's stream
    name: Name
    # ids [0, codes) are codebook entries
    codes: Width
    # codes, special ids and spare ids together
    size: Width
    # repeated over the codebooks of the frame that opens the stream
    bos: Index
    # repeated over the codebooks of the frame that closes it
    eos: Index
    # stands where there is no frame, and in columns that the stream does not use
    pad: Index
    # ids of a frame
    codebooks: Count = 8
    # frames per second
    rate: Positive = 12.5
    # how a clip's frames are counted (`StreamSpec`)
    extra_frame: bool = True

    def __post_init__(self) -> None:
        for name in ("bos", "eos", "pad"):
            if not 0 <= getattr(self, name) < self.size:
                raise ValueError(
                    f"{self.name}_{name} = {getattr(self, name)} lies outside the {self.size} {self.name} ids"
                )
        if self.codes > self.size:
            raise ValueError(f"{self.name}_codes: there are more codes than the {self.size} {self.name} ids")


class ParsedRow(NamedTuple):
    """What a row of audio is: a frame of a stream with its codes, or the stream's BOS or EOS frame."""

    # index into `VocabularyLayout.streams`
    stream: int
    # what the row is
    place: Place
    # of a frame, one for each codebook; else empty
    codes: list[int]


@dataclass(frozen=True)
class VocabularyLayout:
    """Streams, special ids, tags and the fingerprints of both tokenizers, as one explicit value.

    Audio ids share one space for each codebook: the first stream's ids come first, the second's follow. Nobody else
    knows how rows are built: `frames`, `row_count`, `opening` and `parse` answer for everyone.
    """

    # number of text ids, specials and padding of the table included
    text_size: Width
    # opens a text
    text_bos: Index
    # closes it
    text_eos: Index
    # stands in the text column where there is no text
    text_pad: Index
    # role -> (opening id, closing id)
    tags: Mapping[str, tuple[Index, Index]]
    # in the order of generation
    streams: tuple[StreamVocabulary, ...]
    # opens an audio prompt: of the last stream, before its offset; an audio prompt's edges are not offset (§B.3)
    audio_prompt_bos: Index
    # closes it, likewise
    audio_prompt_eos: Index
    # of the text tokenizer
    text_fingerprint: str = ""
    # of the audio tokenizer
    audio_fingerprint: str = ""
    # of the audio tokenizer, in Hz
    sample_rate: Count = SAMPLE_RATE

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", {role: tuple(self.tags[role]) for role in sorted(self.tags)})
        names = [stream.name for stream in self.streams]
        if not names or len(set(names)) < len(names) or {ALL_STREAMS, AUDIO_PROMPT} & set(names):
            raise ValueError(f"streams need names of their own, none of them {ALL_STREAMS!r}, not {names}")
        last = self.streams[-1]
        for name in ("audio_prompt_bos", "audio_prompt_eos"):
            if not 0 <= getattr(self, name) < last.size:
                raise ValueError(f"{name} = {getattr(self, name)} lies outside the {last.size} {last.name} ids")
        for role in TAGGED_ROLES:
            if role not in self.tags:
                raise ValueError(f"the vocabulary layout has no tag ids for the role '{role}'")
        ids = {"text_bos": self.text_bos, "text_eos": self.text_eos, "text_pad": self.text_pad}
        ids |= {f"tags.{role}": value for role, pair in self.tags.items() for value in pair}
        for name, value in ids.items():
            if not 0 <= value < self.text_size:
                raise ValueError(f"{name} = {value} lies outside the {self.text_size} text ids")

    @classmethod
    def build(
        cls,
        text_tokenizer: TextTokenizer,
        streams: Sequence[StreamSpec],
        audio_fingerprint: str,
        sample_rate: int = SAMPLE_RATE,
    ) -> VocabularyLayout:
        """Layout for a text tokenizer and an audio tokenizer.

        Special ids lie right after the codes. The arrangement (bos, eos, spare, pad, and for the last stream the edges
        of an audio prompt and two spare ones) is the one that the published loader's defaults imply.

        Args:
            text_tokenizer: Gives the text ids and tags.
            streams: Of the audio tokenizer, in the order of generation.
            audio_fingerprint: Of the audio tokenizer.
            sample_rate: Of the audio tokenizer, in Hz.

        Raises:
            ValueError: A stream does not say how many codes it has.
        """
        entries = []
        for spec in streams:
            if spec.codes is None:
                raise ValueError(f"the tokenizer does not say how many codes its {spec.name} stream has")
            entries.append(
                StreamVocabulary(
                    name=spec.name,
                    codes=spec.codes,
                    size=spec.codes + (8 if spec is streams[-1] else 4),
                    bos=spec.codes,
                    eos=spec.codes + 1,
                    pad=spec.codes + 3,
                    codebooks=spec.codebooks,
                    rate=spec.rate,
                    extra_frame=spec.extra_frame,
                )
            )
        return cls(
            text_size=text_tokenizer.size,
            text_bos=text_tokenizer.bos,
            text_eos=text_tokenizer.eos,
            text_pad=text_tokenizer.pad,
            tags={role: text_tokenizer.tag(role) for role in TAGGED_ROLES},
            streams=tuple(entries),
            audio_prompt_bos=entries[-1].codes + 4,
            audio_prompt_eos=entries[-1].codes + 5,
            text_fingerprint=text_tokenizer.fingerprint,
            audio_fingerprint=audio_fingerprint,
            sample_rate=sample_rate,
        )

    # ---- sizes

    @cached_property
    def num_codebooks(self) -> int:
        """Audio columns of a row: codebooks of the stream that has most."""
        return max(stream.codebooks for stream in self.streams)

    @cached_property
    def num_columns(self) -> int:
        """Columns of a row: the audio columns and the text column, which is the last."""
        return self.num_codebooks + 1

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """What is added to the ids of each stream on their way into a row."""
        sizes = [stream.size for stream in self.streams]
        return tuple(sum(sizes[:i]) for i in range(len(sizes)))

    @cached_property
    def audio_size(self) -> int:
        """Number of audio ids of one codebook (V): those of all streams together."""
        return sum(stream.size for stream in self.streams)

    @cached_property
    def specs(self) -> tuple[StreamSpec, ...]:
        """The streams as a tokenizer states them."""
        return tuple(StreamSpec(s.name, s.rate, s.codebooks, s.codes, s.extra_frame) for s in self.streams)

    def index(self, stream: str) -> int:
        """Where the stream of that name stands. Raises KeyError where there is none."""
        for i, one in enumerate(self.streams):
            if one.name == stream:
                return i
        raise KeyError(stream)

    # ---- the grammar of rows

    @staticmethod
    def row_count(tokens: AudioTokens, role: str) -> int:
        """Rows that audio takes in a role: "audio" is every stream, a stream's name that one (§B.2)."""
        if role == ALL_STREAMS:
            return sum(ids.shape[1] + EDGES for ids in tokens.streams.values())
        if role == AUDIO_PROMPT:  # its first and last frame are replaced, none is added
            return list(tokens.streams.values())[-1].shape[1]
        return tokens[role].shape[1] + EDGES

    def frames(self, tokens: AudioTokens, role: str) -> list[tuple[int, Tensor]]:
        """What audio is in a role: (index of the stream, its row ids (num_codebooks, T)) for each of its streams.

        A stream is its BOS frame, its frames and its EOS frame. An audio prompt is the frames of the last stream, of
        which the published loader replaces the first and the last by BOS and EOS of a prompt, and does not offset these
        (published model, §B.3); released weights have seen exactly that.
        """
        last = len(self.streams) - 1
        if role == AUDIO_PROMPT:
            frames = self.columns(tokens[self.streams[last].name] + self.offsets[last], last)
            frames[:, 0], frames[:, -1] = self.audio_prompt_bos, self.audio_prompt_eos
            return [(last, frames)]
        chosen = range(len(self.streams)) if role == ALL_STREAMS else (self.index(role),)
        pieces = []
        for i in chosen:
            stream = self.streams[i]
            edge = torch.ones(stream.codebooks, 1, dtype=torch.int64)
            ids = torch.cat([edge * stream.bos, tokens[stream.name], edge * stream.eos], dim=1) + self.offsets[i]
            pieces.append((i, self.columns(ids, i)))
        return pieces

    def columns(self, ids: Tensor, stream: int) -> Tensor:
        """Row ids (codebooks, T) of a stream in all audio columns: those that it does not use hold its padding id."""
        missing = self.num_codebooks - len(ids)
        if not missing:
            return ids
        return torch.cat([ids, torch.full((missing, ids.shape[1]), self.pad(stream))])

    def opening(self, stream: int = 0) -> Tensor:
        """(num_codebooks, 1) row ids of the frame that opens a stream."""
        return self._edge(stream, self.streams[stream].bos)

    def closing(self, stream: int) -> Tensor:
        """(num_codebooks, 1) row ids of the frame that closes a stream."""
        return self._edge(stream, self.streams[stream].eos)

    def pad(self, stream: int) -> int:
        """The padding id of a stream in a row."""
        return self.streams[stream].pad + self.offsets[stream]

    def parse(self, row: Sequence[int]) -> ParsedRow:
        """What the audio columns of a row say, (num_codebooks,) row ids that a model generated with its grammar."""
        stream = max(i for i, offset in enumerate(self.offsets) if row[0] >= offset)
        one = self.streams[stream]
        codes = [value - self.offsets[stream] for value in row[: one.codebooks]]
        if codes[0] == one.bos:
            return ParsedRow(stream, "bos", [])
        if codes[0] == one.eos:
            return ParsedRow(stream, "eos", [])
        return ParsedRow(stream, "frame", codes)

    def frames_in(self, seconds: float) -> tuple[int, ...]:
        """Frames of each stream that sound of so many seconds has."""
        samples = int(seconds * self.sample_rate)
        return tuple(spec.num_frames(samples, self.sample_rate) for spec in self.specs)

    def rows_in(self, seconds: float) -> int:
        """Rows that sound of so many seconds takes, special frames included."""
        return sum(count + EDGES for count in self.frames_in(seconds))

    def _edge(self, stream: int, value: int) -> Tensor:
        ids = torch.full((self.streams[stream].codebooks, 1), value + self.offsets[stream])
        return self.columns(ids, stream)

    # ---- identity, and how it is stored

    @cached_property
    def hash(self) -> str:
        """Stable identity of the layout."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def require_same(self, other: VocabularyLayout, ours: str, theirs: str) -> None:
        """Check that another layout is this one.

        Args:
            other: The other one.
            ours, theirs: Names of the files or objects that hold this one and the other, for messages.

        Raises:
            UserError: They differ; names both sides and every difference.
        """
        mine, others = self.to_dict(), other.to_dict()
        different = [
            f"{name}: {mine.get(name)} in {ours}, {others.get(name)} in {theirs}"
            for name in mine | others
            if mine.get(name) != others.get(name)
        ]
        if different:
            raise UserError(
                f"{ours} and {theirs} do not share a vocabulary ({'; '.join(different)}); "
                "use the tokenizers and the token store that the model was made with"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values. The released two streams keep the flat form, and with it the hash, that they first had."""
        values = asdict(self)
        del values["streams"]
        streams = [plain_values(stream) for stream in self.streams]
        if not self._is_flat():
            return values | {"streams": streams}
        values.pop("sample_rate")
        flat = {f"{s['name']}_{_FLAT.get(key, key)}": s[key] for s in streams for key in _FLAT_KEYS}
        return {key: (values | flat | {"num_codebooks": 8})[key] for key in _FLAT_ORDER}

    def _is_flat(self) -> bool:
        shape = [(s.name, s.rate, s.codebooks, s.extra_frame) for s in self.streams]
        return shape == [(*one, 8, True) for one in _FLAT_STREAMS] and self.sample_rate == SAMPLE_RATE

    @classmethod
    def from_dict(cls, values: Any, source: str = "vocabulary layout") -> VocabularyLayout:
        """The layout of plain values, in either form that `to_dict` gives.

        Args:
            values: As they were read.
            source: The file's name, for messages.

        Raises:
            UserError: They are no layout; names `source` and the key that is missing, unknown or unfit.
        """
        if isinstance(values, Mapping) and "streams" not in values:
            return parse(_FlatLayout, dict(values), source).layout(source)
        return parse(cls, values, source)

    def save(self, path: str | Path) -> None:
        """Write the layout as JSON."""
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> VocabularyLayout:
        """Read what `save` wrote. Raises UserError where it is no such file."""
        return cls.from_dict(
            read_json(path, "vocabulary layout", "copy it again: it is saved beside every model"), str(path)
        )


_FLAT_STREAMS = (("descriptive", 5.0), ("structural", 12.5))  # of 8 codebooks each
_FLAT = {"size": "card"}  # what the published configuration calls it
_FLAT_KEYS = ("codes", "size", "bos", "eos", "pad")


@dataclass(frozen=True)
class _FlatLayout:
    """The two streams of the release as one flat table: how layouts were stored first.

    Its keys are those of `VocabularyLayout` and, behind a stream's name, of `StreamVocabulary`; a card is its size.
    """

    text_size: Width
    text_bos: Index
    text_eos: Index
    text_pad: Index
    tags: Mapping[str, tuple[Index, Index]]
    descriptive_codes: Width
    descriptive_card: Width
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
    num_codebooks: Annotated[int, Range(8, 8)] = 8

    def layout(self, source: str) -> VocabularyLayout:
        """The same layout in the form of today. Raises UserError naming `source` where a value is unfit."""
        values = {f.name: getattr(self, f.name) for f in fields(VocabularyLayout) if hasattr(self, f.name)}
        try:
            streams = tuple(
                StreamVocabulary(
                    name=name, rate=rate, **{key: getattr(self, f"{name}_{_FLAT.get(key, key)}") for key in _FLAT_KEYS}
                )
                for name, rate in _FLAT_STREAMS
            )
            return VocabularyLayout(**values, streams=streams)
        except ValueError as error:
            raise UserError(f"{source}: {error}") from error


_FLAT_ORDER = tuple(f.name for f in fields(_FlatLayout))
