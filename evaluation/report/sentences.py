"""A page of auditory sentences: what a mixture holds, segment by segment, to read and to hear."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from auditory_sentences.sentence import Segment
from auditory_sentences.stream.examples import MARKS, Entry, Example, LossWeights, Origin, WatchedStore
from codec.audio.waveform import at_rate
from codec.io.terminal import printable
from codec.streams import ALL_STREAMS
from codec.tokenizer import AudioTokenizer
from evaluation.metrics.spectra import RATE
from evaluation.report.page import html_page
from evaluation.report.sounds import sound_figure, waveform_of
from evaluation.report.text import escaped
from evaluation.report.write import AUDIO_BUDGET
from lm.vocabulary import AUDIO_PROMPT

_ABOUT = """The first sentences of each entry of the mixture, as training draws them. The segments of a sentence stand
in the order in which the model reads them."""
_ENTRIES_A_BUDGET = 8  # entries of a mixture that share as much sound as a report of an evaluation holds


class Heard(NamedTuple):
    """The sound of a segment."""

    # what it is: a recording, or decoded tokens
    caption: str
    # (n,) at 24 kHz; None where its file is not there and its tokens hold no sound
    waveform: np.ndarray | None


class SegmentSounds:
    """What a segment of audio sounds like: its clip's recording where it is a whole clip, else its decoded tokens.

    Args:
        store: That the sentences were drawn from.
        load_codec: Loads the codec that made it; called when something is decoded.
        paths: Id of a clip -> its recording, which may have moved.
        decoded: Decode everything: what the model is given, in place of recordings.
    """

    def __init__(
        self,
        store: WatchedStore,
        load_codec: Callable[[], AudioTokenizer],
        paths: Mapping[str, str],
        decoded: bool = False,
    ) -> None:
        self.store, self._load_codec, self.paths, self.decoded = store, load_codec, paths, decoded

    @cached_property
    def codec(self) -> AudioTokenizer:
        """The codec of the store."""
        return self._load_codec()

    def has_sound(self, segment: Segment) -> bool:
        """Whether it holds the stream that the waveform is decoded from, which is the last one."""
        return segment.role in (ALL_STREAMS, AUDIO_PROMPT, self.store.streams[-1].name)

    def of(self, segment: Segment, origin: Origin | None) -> Heard:
        """The sound of a segment that has one.

        Raises:
            UserError: It has to be decoded, and the codec cannot be loaded or is not the store's.
        """
        if origin and origin.start is None and not self.decoded:
            waveform = waveform_of(self.paths.get(origin.clip.id, origin.clip.path))
            if waveform is not None:
                return Heard("recording", waveform)
        self.codec.require_own(segment.tokens, self.store.name)
        sound = self.codec.decode([segment.tokens])[0].cpu()
        return Heard("decoded tokens", at_rate(sound, self.codec.sample_rate, RATE).numpy())


def sentences_page(
    title: str,
    facts: Mapping[str, object],
    notes: Sequence[str],
    entries: Sequence[Entry],
    context: int,
    loss: LossWeights,
    sounds: SegmentSounds,
) -> str:
    """The page, complete in itself: style, pictures and sound are inside.

    Args:
        title: Name of the recipe.
        facts: What the sentences were drawn with, by name.
        notes: Sentences for people about the whole.
        entries: Of the mixture.
        context: Rows that a sentence may take.
        loss: Of the recipe.
        sounds: Of its segments.
    """
    left = AUDIO_BUDGET * max(1, len(entries) // _ENTRIES_A_BUDGET)
    sections = []
    for i, entry in enumerate(entries):
        budget = [left // (len(entries) - i)]  # what one does not need is for those behind it
        left -= budget[0]
        sections.append(_section(entry, context, loss, sounds, budget))
        left += budget[0]
    legend = "".join(f"<span>{_mark(mark)} {meaning}</span>" for mark, meaning in MARKS.items())
    remarks = "".join(f'<p class="soft">{escaped(note)}</p>' for note in notes)
    main = f'{remarks}<h2>The mixture</h2>{_table(entries)}<div class="legend">{legend}</div>{"".join(sections)}'
    return html_page(f"Auditory sentences of {title}", title, _ABOUT, facts, main, eyebrow="Auditory sentences")


def percent(share: float | None) -> str:
    """A share as people read it; "–" where it is not known."""
    return "–" if share is None else f"{100 * share:.1f} %"


def _table(entries: Sequence[Entry]) -> str:
    widest = max((entry.share for entry in entries), default=0.0) or 1.0
    with_rows = any(entry.share_of_rows is not None for entry in entries)
    rows = []
    for entry in entries:
        name = f'<td class="name"><a href="#{escaped(entry.name)}">{escaped(entry.name)}</a></td>'
        if entry.reason:
            rows.append(f'<tr>{name}<td>{entry.weight:g}</td><td class="skipped" colspan="4">none drawn</td></tr>')
            continue
        bar = (
            f'<svg class="share" viewBox="0 0 100 8"><rect width="{100 * entry.share / widest:.1f}" height="8"/></svg>'
        )
        rows.append(
            f"<tr>{name}<td>{entry.weight:g}</td><td>{percent(entry.share)}</td><td>{bar}</td>"
            f"{f'<td>{percent(entry.share_of_rows)}</td>' if with_rows else ''}<td>{entry.anchors}</td></tr>"
        )
    head = "<th>Weight</th><th>Of the sentences</th><th></th>"
    head += f"{'<th>Of the rows, about</th>' if with_rows else ''}<th>Anchors</th>"
    table = f'<div class="scroll"><table><tr><th class="name">Entry</th>{head}</tr>{"".join(rows)}</table></div>'
    return f'{table}<p class="soft">Anchors: the clips, recordings or texts that one sentence each is built around.</p>'


def _section(entry: Entry, context: int, loss: LossWeights, sounds: SegmentSounds, budget: list[int]) -> str:
    figures = f"weight {entry.weight:g}"
    figures += "" if entry.reason else f" · {percent(entry.share)} of the sentences"
    body = "".join(_sentence(one, context, loss, sounds, budget) for one in entry.examples)
    if entry.reason:
        body = f'<p class="warn">No sentence: {escaped(entry.reason)}.</p>'
    return (
        f'<section id="{escaped(entry.name)}"><div class="eyebrow">{figures}</div><h2>{escaped(entry.name)}</h2>'
        f"<p>{escaped(entry.about)}</p>{body}</section>"
    )


def _sentence(example: Example, context: int, loss: LossWeights, sounds: SegmentSounds, budget: list[int]) -> str:
    segments = "".join(
        _segment(segment, origin, rows, mark, sounds, budget)
        for segment, origin, rows, mark in zip(
            example.segments, example.origins, example.rows, example.marks(loss), strict=True
        )
    )
    return (
        f'<article class="sample sentence"><div class="path">{escaped(headline(example, context))}</div>'
        f'<div class="tape">{segments}</div></article>'
    )


def headline(example: Example, context: int) -> str:
    """Where a sentence stands in the stream, how long it is, and whether training takes it, as a line."""
    count = len(example.segments)
    line = f"epoch {example.epoch}, sentence {example.number}: {count} segment{'s' * (count != 1)}, "
    line += f"{example.total_rows} of {context} rows"
    return line if example.total_rows <= context else f"{line}; does not fit, training leaves it out"


def _segment(
    segment: Segment, origin: Origin | None, rows: int, mark: str, sounds: SegmentSounds, budget: list[int]
) -> str:
    if segment.is_text:
        body = f"<p>{html.escape(printable(segment.text))}</p>"  # all of it, however long
    else:
        body = _audio(segment, origin, sounds, budget)
    kind = "text" if segment.is_text else "audio"
    return (
        f'<div class="segment {kind} {_class(mark)}"><div class="role">{_mark(mark)} '
        f"<span>{escaped(segment.role)}</span><small>{rows} rows</small></div>{body}</div>"
    )


def _mark(mark: str) -> str:
    return f'<b class="mark {_class(mark)}">{mark}</b>'


def _class(mark: str) -> str:
    return mark.replace(" ", "-")


def _audio(segment: Segment, origin: Origin | None, sounds: SegmentSounds, budget: list[int]) -> str:
    if not sounds.has_sound(segment):
        return _unheard(segment, origin, sounds, "these tokens alone hold no waveform: nothing to play")
    if budget[0] <= 0:
        return _unheard(segment, origin, sounds, "not in the page, whose limit of sound is reached")
    heard = sounds.of(segment, origin)
    before = budget[0]
    place = escaped(origin.place) if origin else ""
    figure = sound_figure(heard.caption, heard.waveform, budget, f'<div class="path">{place}</div>')
    if budget[0] == before:  # it did not fit: nothing smaller is to stand behind it
        budget[0] = 0
    return figure


def _unheard(segment: Segment, origin: Origin | None, sounds: SegmentSounds, why: str) -> str:
    return f'<p class="soft">{escaped(sounds.store.described(segment, origin))}</p><p class="soft">{why}</p>'
