"""What the tokens know: linear probes on the frozen tokens of a store, for every label that its clips have.

    python benchmarks/token_probes.py --store runs/demo/tokens --codec starter/codec [--corpus runs/demo/corpus]

The probes are those of the suite codec_tokens (evaluation/token_measures/probes.py): of each stream of the codec, of
all streams side by side, and, for comparison, of the recording's log-mel spectrum (80 bands). Here they are fitted to
all training clips of a store; with --music-expert, two hidden states of a music encoder (a run of kind expert) are
probed too. --json writes the same numbers to a file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from auditory_sentences.builders.catalogue import MAX_LABEL_VALUES
from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import TokenStore
from codec.audio.waveform import load_audio
from codec.experts.base import ExpertEncoder, load_expert
from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.io.terminal import run_program
from codec.tokenizer import AudioTokenizer, load_tokenizer
from evaluation.metrics.spectra import log_mel_decibels
from evaluation.probe import Examples, probe_classes, probe_numbers, probe_words
from evaluation.provenance import measured_with
from evaluation.recordings import Relocated
from evaluation.token_measures.coded import frame_vectors
from evaluation.token_measures.probes import Probe, Split, pooled, speakers, target_of, words_of
from lm.words import as_number

KINDS = ("speech", "sound", "music")  # a mixture's labels are those of its parts
LEAST = 20  # test clips; fewer say nothing
ALL, MEL = "all streams", "mel"
STATES = {"music_acoustic": "lower state", "music_semantic": "upper state"}  # of a music encoder, by its feature's name
_CHUNK = 256  # clips whose frames are de-quantised at once


@dataclass(frozen=True)
class Question:
    """What a probe is to read: `splits` are training, dev and test clips with their targets."""

    kind: str
    label: str
    probe: Probe
    splits: tuple[Split, Split, Split]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, type=Path, help="token store")
    parser.add_argument("--codec", required=True, help="folder or hub id of the codec that made it")
    parser.add_argument("--corpus", nargs="+", default=[], type=Path, help="where the store's recordings are, if moved")
    parser.add_argument("--music-expert", help="a run of kind expert, or its folder")
    parser.add_argument("--states", nargs=2, type=int, default=(2, 4), help="of it: numbers of two hidden states")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="of clips")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    arguments = parser.parse_args()
    expert = None
    if arguments.music_expert:
        taps = {name: (state,) for name, state in zip(STATES, arguments.states, strict=True)}
        expert = load_expert(ExpertConfig("music", "conformer", arguments.music_expert, taps))
    run(arguments.store, arguments.codec, arguments.corpus, arguments.kinds, arguments.json, expert)
    return 0


def run(
    store: Path,
    codec_source: str,
    corpora: Sequence[Path] = (),
    kinds: Sequence[str] = KINDS,
    out: Path | None = None,
    expert: ExpertEncoder | None = None,
) -> list[dict]:
    """Probe, print the table and return its rows. Raises UserError for what a person can mend.

    out: a JSON file for the same; expert: of music, its hidden states are probed too
    """
    tokens = TokenStore(store)
    codec = load_tokenizer(codec_source)
    if codec.fingerprint != tokens.fingerprint:
        raise UserError(
            f"{store}: its tokens were made by tokenizer {tokens.fingerprint}, but {codec_source} is "
            f"{codec.fingerprint}; name the codec that made them"
        )
    clips = Relocated(tokens, corpora).clips if corpora else tokens.clips
    asked = [question for question in questions(clips) if question.kind in kinds]
    if not asked:
        raise UserError(
            f"{store}: no label or text of {', '.join(kinds)} has {LEAST} test clips and clips to fit a probe to"
        )
    chosen = {clip.id for question in asked for split in question.splits for clip, _ in split}
    positions = [i for i, clip in enumerate(clips) if clip.id in chosen]
    features = pooled_features(tokens, codec, clips, positions, expert)
    rows = []
    for number, question in enumerate(asked, 1):
        row = answer(question, features)
        found = [f"{name} {row[name]['value']:.3f}" for name in features] if row else ["nothing to tell apart"]
        print(
            f"[{number}/{len(asked)}] {question.kind}, {question.label}: {', '.join(found)}",
            file=sys.stderr,
            flush=True,
        )
        rows += [row] if row else []
    Console(width=None if sys.stdout.isatty() else 140).print(table(rows, features))
    if out:
        head = {"store": str(store), "codec": str(codec_source), "fingerprint": codec.fingerprint} | measured_with()
        out.write_text(json.dumps(head | {"probes": rows}, indent=1) + "\n")
    return rows


def questions(clips: Sequence[Clip]) -> Iterator[Question]:
    """All that the clips know of themselves and that enough of them know."""
    for kind in KINDS:
        members = [clip for clip in clips if clip.kind == kind]
        for label in sorted({label for clip in members for label in clip.labels}):
            known = [clip for clip in members if clip.labels.get(label)]
            numbers = all(as_number(clip.labels[label]) is not None for clip in known)
            if not numbers and len({clip.labels[label] for clip in known}) > MAX_LABEL_VALUES:
                continue  # a name or a description, not a class
            splits = _by_split([(clip, target_of(clip, label, numbers)) for clip in known])
            yield from _if_enough(Question(kind, label, probe_numbers if numbers else probe_classes, splits))
        said = [clip for clip in members if clip.text]
        for content in sorted({clip.labels.get("content", "") for clip in said}):
            splits = _by_split([(c, words_of(c)) for c in said if c.labels.get("content", "") == content])
            yield from _if_enough(Question(kind, f"words, {content}" if content else "words", probe_words, splits))
        yield from _if_enough(Question(kind, "speaker", probe_classes, speakers(members)))


def answer(question: Question, features: dict[str, dict[str, Tensor]]) -> dict | None:
    """One row: the scores of all features. None where the training clips leave nothing to tell apart."""
    row = {"kind": question.kind, "label": question.label, "test_clips": len(question.splits[2])}
    row |= {"train_clips": len(question.splits[0])}
    for name, values in features.items():
        splits = [Examples(torch.stack([values[c.id] for c, _ in s]), [t for _, t in s]) for s in question.splits]
        try:
            probed = question.probe(*splits)
        except ValueError:
            return None
        row |= {"metric": probed.metric, "chance": probed.chance}
        row[name] = asdict(probed.estimate) | {"penalty": probed.penalty}
    return row


def pooled_features(
    store: TokenStore,
    codec: AudioTokenizer,
    clips: Sequence[Clip],
    positions: Sequence[int],
    expert: ExpertEncoder | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Name of a stream, ALL, MEL or one of STATES -> id of a clip -> (F,) mean and deviation over frames.

    There is ALL where there are several streams, and there are STATES with a music expert.
    """
    streams = [spec.name for spec in codec.streams]
    found = {name: {} for name in (*streams, *([ALL] if len(streams) > 1 else []), MEL)}
    for start in range(0, len(positions), _CHUNK):
        some = positions[start : start + _CHUNK]
        tokens = [store[i].tokens for i in some]
        by_stream = [frame_vectors(codec, stream, tokens) for stream in streams]
        for i, *vectors in zip(some, *by_stream, strict=True):
            name, waveform = clips[i].id, load_audio(clips[i].path)
            each = [pooled(frames) for frames in vectors]
            for stream, values in zip(streams, each, strict=True):
                found[stream][name] = values
            if ALL in found:
                found[ALL][name] = torch.cat(each)
            found[MEL][name] = pooled(torch.from_numpy(log_mel_decibels(waveform.numpy()).T))
            for feature, states in expert.features(waveform[None]).items() if expert else ():
                found.setdefault(STATES[feature], {})[name] = pooled(states[0].T)
    return found


def table(rows: Sequence[dict], features: dict[str, dict[str, Tensor]]) -> Table:
    """Scores in percent with one standard error; the features' widths stand in the head."""
    shown = Table("kind", "label", "score", "train", "test", "chance")
    for name, values in features.items():
        shown.add_column(f"{name} ({len(next(iter(values.values())))})", justify="right")
    for row in rows:
        cells = [row["kind"], row["label"], row["metric"], str(row["train_clips"]), str(row["test_clips"])]
        cells.append(f"{100 * row['chance']:.1f}")
        for name in features:
            error = row[name]["stderr"]
            cells.append(f"{100 * row[name]['value']:.1f}" + ("" if error is None else f" ± {100 * error:.1f}"))
        shown.add_row(*cells)
    return shown


def _by_split(examples: Split) -> tuple[Split, Split, Split]:
    train, dev, test = ([one for one in examples if one[0].split == split] for split in ("train", "dev", "test"))
    return train, dev, test


def _if_enough(question: Question) -> Iterator[Question]:
    train, dev, test = question.splits
    if train and dev and len(test) >= LEAST:
        yield question


if __name__ == "__main__":
    run_program("token_probes", main)
