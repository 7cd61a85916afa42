"""The auditory sentence: an ordered list of text and audio segments, and its one way into the model's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from codec.io.errors import UserError
from codec.streams import ALL_STREAMS
from codec.tokens import AudioTokens
from lm import rows as row_layout
from lm.rows import Rows
from lm.text_tokenizer import TextTokenizer
from lm.vocabulary import AUDIO_PROMPT, TAGGED_ROLES, VocabularyLayout

TextRole = Literal["prompt", "text", "transcription", "lyric", "caption"]
TEXT_ROLES = get_args(TextRole)


@dataclass(frozen=True)
class Segment:
    """One piece of an auditory sentence.

    Raises:
        ValueError: The role is unknown, or demands another content.
    """

    # of text: "prompt" (an instruction), "transcription", "lyric" and "caption" (wrapped in their tags), "text"
    # (anything else); of audio: "audio" (all streams, in the order of generation), the name of a stream (that one
    # alone), "audio_prompt" (the last stream of a reference voice or sound)
    role: str
    # text or tokens, as the role demands
    content: str | AudioTokens
    # the model learns to say this
    is_target: bool = False

    def __post_init__(self) -> None:
        content, expected = self.content, str if self.role in TEXT_ROLES else AudioTokens
        if not isinstance(content, expected):
            raise ValueError(f"a '{self.role}' segment holds {expected.__name__}, not {type(content).__name__}")
        if isinstance(content, AudioTokens) and self.role not in (ALL_STREAMS, AUDIO_PROMPT, *content.streams):
            known = (*TEXT_ROLES, ALL_STREAMS, AUDIO_PROMPT, *content.streams)
            raise ValueError(f"unknown role '{self.role}'; known: {known}")

    @property
    def is_text(self) -> bool:
        """Whether its content is text."""
        return isinstance(self.content, str)

    @property
    def text(self) -> str:
        """What a segment of text says. Raises TypeError where it is audio."""
        if not isinstance(self.content, str):
            raise TypeError(f"a segment of {self.role} holds no text")
        return self.content

    @property
    def tokens(self) -> AudioTokens:
        """The audio of a segment of audio. Raises TypeError where it is text."""
        if isinstance(self.content, str):
            raise TypeError(f"a segment of {self.role} holds no audio")
        return self.content


@dataclass(frozen=True)
class AuditorySentence:
    """An ordered list of segments (UniAudio 2.0 §4.4)."""

    # in the order in which they are said
    segments: tuple[Segment, ...]
    # where it came from: task or construction, clips
    name: str = ""

    def then(self, *segments: Segment) -> AuditorySentence:
        """This sentence continued."""
        return AuditorySentence(self.segments + segments, self.name)


def to_rows(
    sentence: AuditorySentence, layout: VocabularyLayout, text_tokenizer: TextTokenizer, drop_conditions: bool = False
) -> Rows:
    """The rows of a sentence: the only place where segments become the model's tensor.

    Args:
        sentence: Of one segment or more.
        layout: Vocabulary of the model.
        text_tokenizer: Of the model.
        drop_conditions: Replace every segment that is not learned by padding ids of the same length, for guidance
            dropout in training and as the negative prompt in generation (published model, §B.3 and §B.4).

    Returns:
        The rows of its segments, one after the other, with weight 1 where a target is learned.

    Raises:
        UserError: Audio was made by another tokenizer than the layout's.
        ValueError: The sentence is empty.
    """
    if not sentence.segments:
        raise ValueError("an auditory sentence needs at least one segment")
    parts = []
    for segment in sentence.segments:
        for part, stream in _segment_rows(segment, layout, text_tokenizer):
            hide = drop_conditions and not segment.is_target
            parts.append(row_layout.drop_conditions(part, layout, stream) if hide else part)
    return row_layout.concatenate(parts)


def with_generation_prompt(
    sentence: AuditorySentence, role: str, layout: VocabularyLayout, text_tokenizer: TextTokenizer
) -> Rows:
    """The rows of a sentence and of the beginning of a text segment.

    Args:
        sentence: What is given.
        role: Of the text that is to follow.
        layout: Vocabulary of the model.
        text_tokenizer: Of the model.

    Returns:
        Rows that end in tag and BOS, with what comes before the text's first word.
    """
    rows = to_rows(sentence.then(Segment(role, "")), layout, text_tokenizer)
    closing = 2 if role in TAGGED_ROLES else 1  # EOS and, of a tagged role, the closing tag
    return rows.prefix(len(rows) - closing)


def _segment_rows(segment: Segment, layout: VocabularyLayout, tokenizer: TextTokenizer) -> list[tuple[Rows, int]]:
    """The segment's rows in pieces, each with the stream that it is of (0 for text)."""
    content = segment.content
    if isinstance(content, str):
        ids = tokenizer.wrap(content.strip() + "\n\n" if segment.role == "prompt" else content)
        if segment.role in TAGGED_ROLES:
            opening, closing = layout.tags[segment.role]
            ids = [opening, *ids, closing]
        return [(row_layout.text_rows(ids, layout, segment.is_target), 0)]
    if layout.audio_fingerprint and content.fingerprint != layout.audio_fingerprint:
        raise UserError(
            f"audio tokens were made by the tokenizer {content.fingerprint}, but the model reads tokens of "
            f"{layout.audio_fingerprint}; tokenize the audio with the model's own tokenizer"
        )
    content.require_streams(layout.specs, "audio tokens given to the model")
    return [
        (row_layout.audio_rows(frames, segment.is_target, layout.streams[stream].codebooks), stream)
        for stream, frames in layout.frames(content, segment.role)
    ]
