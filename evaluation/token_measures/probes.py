"""Linear probes: what one linear layer reads from the tokens of a clip, beside what it reads from a mean spectrum.

A probe sees the mean and the standard deviation over frames of a clip's de-quantised vectors (the sum over codebooks),
of one stream or of all side by side; the reference sees those of its log-mel spectrum. Pooling forgets the order of
frames: a word is read where its frames differ from others', not where it stands.

What is read: a label (its classes, accuracy; R2 where all its values are numbers), `words` (which occur in a clip, F1)
or `speaker`. Probes are fitted to training clips, their penalty is chosen on dev clips (evaluation/probe.py), and the
score is that of the test clips, beside the best constant answer. Speakers are the exception: held-out voices cannot be
named, so speakers are told apart within the training clips, of which each speaker's are dealt out 3 : 1 : 1.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from auditory_sentences.builders.catalogue import MAX_LABEL_VALUES
from auditory_sentences.corpora.clip import Clip
from auditory_sentences.rng import stable_hash
from codec.io.errors import UserError
from codec.streams import ALL_STREAMS
from evaluation.probe import Examples, Probed, probe_classes, probe_numbers, probe_words
from evaluation.token_measures.coded import CodedClips, Measured
from lm.words import as_number, normalise_words

WORDS, SPEAKER = "words", "speaker"  # what can be read beside labels
LEAST_CLIPS, MOST_CLIPS = 5, 15  # of a speaker that is to be told apart

Split = list[tuple[Clip, object]]  # clips, each with what a probe is to read
Probe = Callable[[Examples, Examples, Examples], Probed]


def probe(coded: CodedClips, stream: str, of: str) -> Measured:
    """What a probe reads of label `of`, of words or of the speaker, from one stream or from "audio", all of them.

    Raises:
        UserError: The clips leave nothing to tell apart.
    """
    kind, splits = coded.once(("question", of), lambda: question_of(coded, of))

    def score(features: Callable[[Sequence[Clip]], list[Tensor]]) -> Probed:
        examples = [Examples(torch.stack(features([c for c, _ in split])), [t for _, t in split]) for split in splits]
        try:
            return kind(*examples)
        except ValueError as error:
            raise UserError(f"'{of}' cannot be probed: {error}") from error

    names = [spec.name for spec in coded.tokenizer.streams] if stream == ALL_STREAMS else [stream]
    found = score(lambda clips: token_features(coded, names, clips))
    spectrum = coded.once(("spectrum", of), lambda: score(lambda clips: mel_features(coded, clips)))
    note = f"{found.metric} of a linear probe, fitted to {len(splits[0])} clips."
    return Measured(found.estimate, found.chance, spectrum.estimate, note=note)


def question_of(coded: CodedClips, of: str) -> tuple[Probe, tuple[Split, Split, Split]]:
    """Which probe reads a label, words or the speaker, and the training, dev and test clips with what is right."""
    if of == SPEAKER:
        splits = speakers(coded.clips, MOST_CLIPS)
        if len({name for _, name in splits[0]}) < 2:
            raise UserError(f"fewer than two speakers have {LEAST_CLIPS} training clips; take a corpus where they do")
        return probe_classes, splits
    known = [[clip for clip in clips if clip.text if of == WORDS] or [clip for clip in clips if clip.labels.get(of)]
             for clips in (coded.sample("train"), coded.sample("dev"), coded.test)]  # fmt: skip
    if not all(known):
        missing = next(name for name, clips in zip(("train", "dev", "test"), known, strict=True) if not clips)
        raise UserError(f"no clip of split '{missing}' knows its '{of}'; take a corpus whose clips do")
    if of == WORDS:
        train, dev, test = ([(clip, words_of(clip)) for clip in clips] for clips in known)
        return probe_words, (train, dev, test)
    numbers = all(as_number(clip.labels[of]) is not None for clips in known for clip in clips)
    values = {clip.labels[of] for clip in known[0]}
    if not numbers and len(values) > MAX_LABEL_VALUES:
        raise UserError(f"'{of}' has {len(values)} values: a name or a description, not a class")
    train, dev, test = ([(clip, target_of(clip, of, numbers)) for clip in clips] for clips in known)
    return probe_numbers if numbers else probe_classes, (train, dev, test)


def target_of(clip: Clip, label: str, number: bool) -> str | float:
    """A label's value, as a number where that is asked for."""
    return float(clip.labels[label]) if number else clip.labels[label]


def words_of(clip: Clip) -> frozenset[str]:
    """The different words of a clip's text."""
    return frozenset(normalise_words(clip.text).split())


def speakers(clips: Iterable[Clip], most: int | None = None) -> tuple[Split, Split, Split]:
    """The speakers with most training clips, MAX_LABEL_VALUES at most and five clips at least, split 3 : 1 : 1.

    Args:
        clips: Of any split.
        most: Clips of one speaker, the rest are left out; None: all.
    """
    spoken = [clip for clip in clips if clip.split == "train" and clip.speaker]
    counts = Counter(clip.speaker for clip in spoken)
    chosen = sorted((name for name in counts if counts[name] >= LEAST_CLIPS), key=lambda name: (-counts[name], name))
    by_speaker = defaultdict(list)
    for clip in sorted(spoken, key=lambda clip: stable_hash("probe", clip.id)):
        by_speaker[clip.speaker].append(clip)
    splits: tuple[Split, Split, Split] = [], [], []
    for name in chosen[:MAX_LABEL_VALUES]:
        for turn, clip in enumerate(by_speaker[name][:most]):
            splits[(0, 1, 0, 2, 0)[turn % 5]].append((clip, name))
    return splits


def token_features(coded: CodedClips, streams: Sequence[str], clips: Sequence[Clip]) -> list[Tensor]:
    """(F,) of each clip: mean and deviation over the frames of streams, side by side."""
    by_stream = [coded.vectors(stream, clips) for stream in streams]
    return [torch.cat([pooled(vectors) for vectors in of_clip]) for of_clip in zip(*by_stream, strict=True)]


def mel_features(coded: CodedClips, clips: Sequence[Clip]) -> list[Tensor]:
    """(F,) of each clip: mean and deviation of its log-mel spectrum."""
    return [
        coded.once(("pooled mel", clip.id), lambda clip=clip: pooled(torch.from_numpy(coded.mel(clip))))
        for clip in clips
    ]


def pooled(frames: Tensor) -> Tensor:
    """(T, dim) -> (2 dim,): mean and standard deviation over frames."""
    return torch.cat([frames.mean(0), frames.std(0, correction=0)]).float()
