"""A task of tokens: its clips, and a row for each score and each stream of the tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.corpora.phones import phones_line, phones_of
from codec.io.errors import UserError
from codec.streams import ALL_STREAMS
from codec.tokenizer import AudioTokenizer
from evaluation.cache import Cache, key_of
from evaluation.metrics.estimate import Estimate
from evaluation.streams import stream_name
from evaluation.token_measures.coded import CodedClips, Measured
from evaluation.token_measures.registry import TOKEN_MEASURES

if TYPE_CHECKING:
    from evaluation.items import ItemBuilder
    from evaluation.task import EvalTask, Score

VERSION = 1  # of the measures; part of the key of everything that they found


def measure_tokens(
    task: EvalTask, builder: ItemBuilder, tokenizer: AudioTokenizer, cache: Cache, limit: int | None
) -> dict[str, Any]:
    """What a task's entry in the results holds beside its names: "n", "scores", "unreadable".

    A score that a stream or the corpus has nothing for has no value, and its remark says why.

    Args:
        task: Whose request is tokens.
        builder: Of the items: it has the clips.
        tokenizer: Of any kind.
        cache: Of tokens and of what was found.
        limit: Largest number of test clips.

    Raises:
        UserError: No clip can be read, or no score measured.
    """
    test, unreadable = _readable([builder.store.clips[i] for i in builder.positions(task, limit)])
    if not test:
        raise UserError(
            f"none of the {len(unreadable)} recordings of the task '{task.task}' can be read "
            f"({unreadable[0]['why']}); say where they are with --corpus, or leave the task out"
        )
    clips = [
        builder.store.clips[i] for i in builder.positions(replace(task, data=replace(task.data, split="any")), None)
    ]
    coded = CodedClips(tokenizer, clips, test, cache, task.training, builder.seed)
    rows, reasons = [], []
    for score, stream in _rows(task, tokenizer):
        try:
            found, why = _measured(task, score, stream, coded, builder.store.data_hash, cache), ""
        except UserError as error:
            found, why = Measured(Estimate(None, None, 0)), str(error)
            reasons.append(why)
        rows.append(_entry(score, stream, tokenizer, found, why))
    if len(reasons) == len(rows):
        raise UserError(f"the task '{task.task}' measures nothing: {'; '.join(dict.fromkeys(reasons))}")
    entry: dict[str, Any] = {"n": len(test), "scores": rows}
    return entry | ({"unreadable": unreadable} if unreadable else {})


def _readable(clips: Sequence[Clip]) -> tuple[list[Clip], list[dict[str, str]]]:
    from codec.audio.waveform import audio_length

    found, unreadable = [], []
    for clip in clips:
        try:
            why = "" if audio_length(clip.path) else f"{clip.path}: holds no sound"
        except UserError as error:
            why = str(error)
        if why:
            unreadable.append({"id": clip.id, "why": why})
        else:
            found.append(clip)
    return found, unreadable


def _rows(task: EvalTask, tokenizer: AudioTokenizer) -> Iterator[tuple[Score, str]]:
    names = [spec.name for spec in tokenizer.streams]
    for score in task.scores:
        if score.stream:
            if score.stream in names:
                yield score, score.stream
            continue
        yield from ((score, name) for name in names)
        if TOKEN_MEASURES[score.measure].joint and len(names) > 1:
            yield score, ALL_STREAMS


def _measured(task: EvalTask, score: Score, stream: str, coded: CodedClips, data_hash: str, cache: Cache) -> Measured:
    measure = TOKEN_MEASURES[score.measure]
    phones = ""
    if measure.of_phones:
        lines = (phones_line(clip, phones) for clip, phones in sorted(phones_of(coded.test).items()))
        phones = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    key = key_of(
        what="measure", version=VERSION, codec=coded.tokenizer.fingerprint, task=[task.task, task.fingerprint],
        score=score.name, stream=stream, data=data_hash, clips=[clip.id for clip in coded.test], phones=phones,
        seed=coded.seed,
    )  # fmt: skip
    if (found := cache.get_json(key, _from_plain)) is None:
        found = measure.measure(coded, stream, score.of)
        cache.put_json(key, asdict(found))
    return found


def _from_plain(plain: Any) -> Measured:
    """What was put into the cache. Raises ValueError for anything else."""
    try:
        original = plain["original"] and Estimate(**plain["original"])
        return Measured(Estimate(**plain["estimate"]), plain["chance"], original, tuple(plain["levels"]), plain["note"])
    except (TypeError, KeyError) as error:
        raise ValueError("no measure") from error


def _entry(score: Score, stream: str, tokenizer: AudioTokenizer, found: Measured, why: str) -> dict[str, Any]:
    """A row of results.json: as of every other score, with the stream and the values of its codebooks."""
    measure = TOKEN_MEASURES[score.measure]
    several = len(tokenizer.streams) > 1
    about = [score.about, found.note, f"Not measured: {why}" if why else ""]
    return {
        "name": f"{score.name}, {stream_name(stream)}" if several else score.name, "score": score.name,
        "metric": score.measure, "scorer": "tokens",
        "about": " ".join(filter(None, about)), "unit": measure.unit, "direction": measure.direction,
        "percent": measure.percent, **_plain(found.estimate), "chance": found.chance, "untrained": None,
        "original": _plain(found.original) if found.original else None, "codec": None, "stream": stream,
        "levels": list(found.levels),
    }  # fmt: skip


def _plain(estimate: Estimate) -> dict[str, Any]:
    return asdict(estimate) | {"unparsed": 0, "empty_references": 0}
