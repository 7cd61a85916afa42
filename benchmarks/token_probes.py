"""What the tokens know: linear probes on the frozen descriptive and structural tokens of a store.

    python benchmarks/token_probes.py --store runs/demo/tokens --codec starter/codec [--corpus runs/demo/corpus]

Of every clip the probes see the mean and the standard deviation over frames of its de-quantised vectors (the sum over
codebooks): of the descriptive tokens, of the structural tokens, of both side by side, and, for comparison, of the
recording's log-mel spectrum (80 bands); with --music-expert, also of two hidden states of a music encoder (a run of
kind expert). They read each label that has several values (logistic regression, accuracy), labels that are numbers
(ridge regression, R2) and the words that occur in a clip (one logistic regression a word, F1).
Pooling forgets the order of frames: a word is read where its frames differ from others', not where it stands.

Probes are fitted to the store's training clips, their penalty is chosen on its dev clips, and the score is that of its
test clips, with its standard error and with chance: the commonest class, the mean, the commonest words. Speakers are
the exception: held-out voices cannot be named, so speakers are told apart within the training clips, of which each
speaker's are dealt out 3 : 1 : 1. --json writes the same numbers to a file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from auditory_sentences.builders.catalogue import MAX_LABEL_VALUES
from auditory_sentences.corpora.clip import Clip
from auditory_sentences.rng import stable_hash
from auditory_sentences.token_store import TokenStore
from codec.audio.waveform import load_audio
from codec.experts.base import ExpertEncoder, load_expert
from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.io.terminal import run_program
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.load import load_reasoning_codec
from codec.tokenizer import AudioTokenizer
from codec.tokens import AudioTokens
from evaluation.metrics.spectra import log_mel_decibels
from evaluation.probe import Examples, Probed, probe_classes, probe_numbers, probe_words
from evaluation.provenance import measured_with
from evaluation.recordings import Relocated
from lm.words import as_number

KINDS = ("speech", "sound", "music")  # a mixture's labels are those of its parts
LEAST = 20  # test clips; fewer say nothing
FEATURES = ("descriptive", "structural", "both", "mel")
STATES = {"music_acoustic": "lower state", "music_semantic": "upper state"}  # of a music encoder, by its feature's name
_CHUNK = 256  # clips whose frames are de-quantised at once


@dataclass(frozen=True)
class Question:
    """What a probe is to read: `splits` are (training, dev, test) lists of (position in the store, target)."""

    kind: str
    label: str
    probe: Callable[[Examples, Examples, Examples], Probed]
    splits: tuple[list[tuple[int, object]], ...]


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
    codec = load_reasoning_codec(codec_source)
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
    chosen = sorted({i for question in asked for split in question.splits for i, _ in split})
    features = pooled_features(tokens, codec, clips, chosen, expert)
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
        members = [i for i, clip in enumerate(clips) if clip.kind == kind]
        for label in sorted({label for i in members for label in clips[i].labels}):
            known = [i for i in members if clips[i].labels.get(label)]
            numbers = all(as_number(clips[i].labels[label]) is not None for i in known)
            if not numbers and len({clips[i].labels[label] for i in known}) > MAX_LABEL_VALUES:
                continue  # a name or a description, not a class
            probe = probe_numbers if numbers else probe_classes
            yield from _if_enough(
                kind, label, probe, _by_split(clips, known, _value_of(label, float if numbers else str))
            )
        said = [i for i in members if clips[i].text]
        for content in sorted({clips[i].labels.get("content", "") for i in said}):
            chosen = [i for i in said if clips[i].labels.get("content", "") == content]
            splits = _by_split(clips, chosen, lambda clip: frozenset(clip.text.lower().split()))
            yield from _if_enough(kind, f"words, {content}" if content else "words", probe_words, splits)
        yield from _if_enough(kind, "speaker", probe_classes, _speakers(clips, members))


def answer(question: Question, features: dict[str, Tensor]) -> dict | None:
    """One row: the scores of all features. None where the training clips leave nothing to tell apart."""
    row = {"kind": question.kind, "label": question.label, "test_clips": len(question.splits[2])}
    row |= {"train_clips": len(question.splits[0])}
    for name, values in features.items():
        splits = [Examples(values[[i for i, _ in split]], [t for _, t in split]) for split in question.splits]
        try:
            probed = question.probe(*splits)
        except ValueError:
            return None
        row |= {"metric": probed.metric, "chance": probed.chance}
        row[name] = asdict(probed.estimate) | {"penalty": probed.penalty}
    return row


def pooled_features(
    store: TokenStore,
    codec: ReasoningCodec,
    clips: Sequence[Clip],
    positions: Sequence[int],
    expert: ExpertEncoder | None = None,
) -> dict[str, Tensor]:
    """name of FEATURES -> (clips in the store, F): mean and deviation over frames; zero for clips not asked for.

    With a music expert, its STATES too.
    """
    names = (*FEATURES, *(STATES.values() if expert else ()))
    found = {name: [] for name in names}
    for start in range(0, len(positions), _CHUNK):
        some = positions[start : start + _CHUNK]
        tokens = [store[i].tokens for i in some]
        for stream in ("descriptive", "structural"):
            found[stream] += stream_vectors(codec, stream, tokens)
        for waveform in (load_audio(clips[i].path) for i in some):
            found["mel"].append(torch.from_numpy(log_mel_decibels(waveform.numpy()).T))
            for feature, states in expert.features(waveform[None]).items() if expert else ():
                found[STATES[feature]].append(states[0].T)
    pooled = {
        name: torch.stack([torch.cat([x.mean(0), x.std(0, correction=0)]) for x in vectors])
        for name, vectors in found.items()
        if vectors
    }
    pooled["both"] = torch.cat([pooled["descriptive"], pooled["structural"]], dim=1)
    features = {}
    for name in names:
        features[name] = torch.zeros(len(clips), pooled[name].shape[1])
        features[name][list(positions)] = pooled[name].float()
    return features


def stream_vectors(codec: AudioTokenizer, stream: str, tokens: Sequence[AudioTokens]) -> list[Tensor]:
    """(T, dim) de-quantised frames of a stream, of each clip."""
    frames = torch.cat([clip[stream] for clip in tokens], dim=1).T[None]  # (1, sum of T, codebooks)
    return list(codec.dequantise(stream, frames)[0].split([clip[stream].shape[1] for clip in tokens]))


def table(rows: Sequence[dict], features: dict[str, Tensor]) -> Table:
    """Scores in percent with one standard error; the features' widths stand in the head."""
    shown = Table("kind", "label", "score", "train", "test", "chance")
    for name, values in features.items():
        shown.add_column(f"{name} ({values.shape[1]})", justify="right")
    for row in rows:
        cells = [row["kind"], row["label"], row["metric"], str(row["train_clips"]), str(row["test_clips"])]
        cells.append(f"{100 * row['chance']:.1f}")
        for name in features:
            error = row[name]["stderr"]
            cells.append(f"{100 * row[name]['value']:.1f}" + ("" if error is None else f" ± {100 * error:.1f}"))
        shown.add_row(*cells)
    return shown


def _value_of(label: str, kind: type) -> Callable[[Clip], object]:
    return lambda clip: kind(clip.labels[label])


def _by_split(clips: Sequence[Clip], positions: Sequence[int], target: Callable[[Clip], object]):
    return tuple(
        [(i, target(clips[i])) for i in positions if clips[i].split == split] for split in ("train", "dev", "test")
    )


def _speakers(clips: Sequence[Clip], positions: Sequence[int]):
    """The speakers with most training clips, MAX_LABEL_VALUES at most and five clips at least, split 3 : 1 : 1."""
    spoken = [i for i in positions if clips[i].split == "train" and clips[i].speaker]
    counts = Counter(clips[i].speaker for i in spoken)
    chosen = sorted((name for name in counts if counts[name] >= 5), key=lambda name: (-counts[name], name))
    by_speaker = defaultdict(list)
    for i in sorted(spoken, key=lambda i: stable_hash("probe", clips[i].id)):
        by_speaker[clips[i].speaker].append(i)
    splits: tuple[list, ...] = [], [], []
    for name in chosen[:MAX_LABEL_VALUES]:
        for turn, i in enumerate(by_speaker[name]):
            splits[(0, 1, 0, 2, 0)[turn % 5]].append((i, name))
    return splits


def _if_enough(kind: str, label: str, probe: Callable, splits: tuple[list, ...]) -> Iterator[Question]:
    if splits[0] and splits[1] and len(splits[2]) >= LEAST:
        yield Question(kind, label, probe, splits)


if __name__ == "__main__":
    run_program("token_probes", main)
