"""The five constructions (UniAudio 2.0 §4.4): clips and words that belong together, as one auditory sentence.

The paper names the five and gives 2 to 8 segments; proportions, order, separators and loss mask are not published. Here
everything is learned, as in the sequential training that the paper cites, nothing separates the segments but their own
edges, and what order and number are free is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from auditory_sentences.builders.catalogue import Catalogue
from auditory_sentences.lengths import row_limit
from auditory_sentences.rng import KeyedRng
from auditory_sentences.sentence import AuditorySentence, Segment
from codec.tokens import AudioTokens

MIN_SEGMENTS, MAX_SEGMENTS = 2, 8
MIN_PIECE = 2.4  # seconds of the shortest piece that a long clip is cut into

Groups = list[list[Segment]]  # the segments of a group stay together


@dataclass(frozen=True)
class Construction:
    """One way to link clips."""

    # in mixtures
    name: str
    # in the paper's words
    title: str
    # catalogue -> the things that one sentence each is built around; none where the data hold none
    anchors: Callable[[Catalogue], Sequence[Any]]
    # (catalogue, anchor, draws) -> groups of segments
    groups: Callable[[Catalogue, Any, KeyedRng], Groups]

    def build(self, catalogue: Catalogue, anchor: Any, rng: KeyedRng, max_rows: int) -> AuditorySentence:
        """The sentence around an anchor: a pure function of its arguments.

        Groups that no longer fit into 8 segments and `max_rows` rows are left out from the end. What is needed for two
        segments is kept whatever it takes; packing skips, and counts, what is too long for its context.

        Args:
            catalogue: Of the split.
            anchor: One of `anchors(catalogue)`.
            rng: Draws what order and number are free.
            max_rows: Of the sentence.
        """
        chosen: list[Segment] = []
        for group in self.groups(catalogue, anchor, rng):
            longer = [*chosen, *group]
            fits = len(longer) <= MAX_SEGMENTS and row_limit(longer) <= max_rows
            if len(chosen) >= MIN_SEGMENTS and not fits:
                break
            chosen = longer
        first = anchor if isinstance(anchor, int) else anchor[0]
        return AuditorySentence(tuple(chosen), f"{self.name}:{catalogue.clip(first).id}")


def _said(role: str, content: str | AudioTokens) -> Segment:
    return Segment(role, content, is_target=True)


# 1. Long audio cut into segments


def _long_audio(catalogue: Catalogue) -> list[tuple[int, ...]]:
    """Recordings that come as consecutive clips, and single clips long enough to be cut into two."""
    shortest = MIN_SEGMENTS * catalogue.units.at_least(MIN_PIECE) * catalogue.units.seconds
    alone = [(i,) for i in catalogue.members if i not in catalogue.recording_of and catalogue.seconds(i) > shortest]
    return [*catalogue.recordings, *alone]


def _segmented_audio(catalogue: Catalogue, recording: tuple[int, ...], rng: KeyedRng) -> Groups:
    """A run of consecutive clips, or one clip cut at random whole units of 0.4 s."""
    if len(recording) > 1:
        count = rng.randint(MIN_SEGMENTS, min(MAX_SEGMENTS, len(recording)))
        start = rng.randint(0, len(recording) - count)
        return [[_said("audio", catalogue.stored(i).tokens)] for i in recording[start : start + count]]
    tokens = catalogue.stored(recording[0]).tokens
    shortest, units = catalogue.units.at_least(MIN_PIECE), catalogue.units.in_clip(tokens)
    count = rng.randint(MIN_SEGMENTS, max(MIN_SEGMENTS, min(MAX_SEGMENTS, units // shortest)))
    slack = units - count * shortest
    cuts = sorted(rng.randint(0, slack) for _ in range(count - 1))  # where the slack goes
    edges = [0, *(cut + shortest * (k + 1) for k, cut in enumerate(cuts)), units]
    pieces = zip(edges[:-1], edges[1:], strict=True)
    return [[_said("audio", catalogue.units.crop(tokens, start, end - start))] for start, end in pieces]


# 2. Speech and text by turns


def _speech_with_text(catalogue: Catalogue) -> list[int]:
    """Transcribed speech that another utterance of the same recording or speaker can go with."""

    def has_company(i: int) -> bool:
        clip = catalogue.clip(i)
        return i in catalogue.recording_of or len(catalogue.by_speaker.get(clip.speaker, ())) > 1

    return [i for i in catalogue.by_kind["speech"] if catalogue.clip(i).text and has_company(i)]


def _speech_text(catalogue: Catalogue, first: int, rng: KeyedRng) -> Groups:
    """Utterances in order, of one recording or else of one speaker.

    Three ways, drawn once a sentence: every utterance as audio and then as words (what recognition needs), as words and
    then as audio (what synthesis needs), or, within a recording, the story told by turns in audio and in words.
    """
    recording = catalogue.recording_of.get(first, ())
    if recording:
        utterances = list(recording[recording.index(first) :])
        if len(utterances) < 2:
            utterances = list(recording[-2:])
    else:
        others = rng.sample(catalogue.by_speaker[catalogue.clip(first).speaker], MAX_SEGMENTS)
        utterances = [first, *(i for i in others if i != first)]
    utterances = [i for i in utterances if catalogue.clip(i).text]
    way = rng.randrange(3 if len(recording) > 1 and len(utterances) > 1 else 2)
    groups = []
    audio_turn = rng.bernoulli(0.5)
    for i in utterances[: rng.randint(2, MAX_SEGMENTS if way == 2 else MAX_SEGMENTS // 2)]:
        clip = catalogue.stored(i)
        audio, words = _said("audio", clip.tokens), _said("transcription", clip.text)
        if way == 2:
            groups.append([audio if audio_turn else words])
            audio_turn = not audio_turn
        else:
            groups.append([audio, words] if way == 0 else [words, audio])
    return groups


# 3. Audio and captions by turns


def _captioned(catalogue: Catalogue) -> list[int]:
    return [i for i in catalogue.members if catalogue.clip(i).kind != "speech" and catalogue.clip(i).caption]


def _audio_caption(catalogue: Catalogue, first: int, rng: KeyedRng) -> Groups:
    """Clips of one kind with their captions, half of the time sharing a label, captions before or after the audio."""
    clip = catalogue.clip(first)
    relatives: Sequence[int] = catalogue.by_kind[clip.kind]
    if clip.labels and rng.bernoulli(0.5):
        label = rng.choice(sorted(clip.labels))
        relatives = catalogue.by_label[clip.kind, label, clip.labels[label]]
    others = [i for i in rng.sample(relatives, MAX_SEGMENTS) if i != first and catalogue.clip(i).caption]
    caption_first = rng.bernoulli(0.5)
    groups = []
    for i in [first, *others][: rng.randint(1, MAX_SEGMENTS // 2)]:
        stored = catalogue.stored(i)
        pair = [_said("audio", stored.tokens), _said("caption", stored.caption)]
        groups.append(pair[::-1] if caption_first else pair)
    return groups


# 4. A mixture and its clean parts


def _mixtures(catalogue: Catalogue) -> list[int]:
    return [i for i in catalogue.parts_of if catalogue.clip(i).kind == "mixture"]


def _mixture_parts(catalogue: Catalogue, mixture: int, rng: KeyedRng) -> Groups:
    """The mixture, then its parts in random order, or the parts first: to take apart and to put together."""
    whole = _said("audio", catalogue.stored(mixture).tokens)
    parts = rng.shuffled(catalogue.parts_of[mixture])[: MAX_SEGMENTS - 1]
    clean = [_said("audio", catalogue.stored(i).tokens) for i in parts]
    return [[whole, *clean] if rng.bernoulli(0.5) else [*clean, whole]]


# 5. The same text in different voices


def _same_text(catalogue: Catalogue) -> list[tuple[int, ...]]:
    return catalogue.same_text


def _same_text_voices(catalogue: Catalogue, clips: tuple[int, ...], rng: KeyedRng) -> Groups:
    """One clip per speaker; half of the time the words come first, half of the time a caption before each voice."""
    by_speaker: dict[str, list[int]] = {}
    for i in clips:
        by_speaker.setdefault(catalogue.clip(i).speaker, []).append(i)
    voices = [rng.choice(of_one) for of_one in rng.sample(list(by_speaker.values()), MAX_SEGMENTS)]
    voices = voices[: rng.randint(2, max(2, len(voices)))]
    with_words = rng.bernoulli(0.5)
    described = rng.bernoulli(0.5) and all(catalogue.clip(i).caption for i in voices)
    groups = [[_said("transcription", catalogue.clip(voices[0]).text)]] if with_words else []
    for i in voices:
        stored = catalogue.stored(i)
        audio = _said("audio", stored.tokens)
        groups.append([_said("caption", stored.caption), audio] if described else [audio])
    return groups


CONSTRUCTIONS: Mapping[str, Construction] = {
    construction.name: construction
    for construction in (
        Construction("segmented_audio", "long audio cut into segments", _long_audio, _segmented_audio),
        Construction("speech_text", "speech and text by turns", _speech_with_text, _speech_text),
        Construction("audio_caption", "audio and captions by turns", _captioned, _audio_caption),
        Construction("mixture_parts", "a mixture and its clean parts", _mixtures, _mixture_parts),
        Construction("same_text_voices", "the same text in different voices", _same_text, _same_text_voices),
    )
}
