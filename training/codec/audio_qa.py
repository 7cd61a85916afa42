"""Recordings with questions about them: the examples from which the descriptive branch learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from auditory_sentences.builders.catalogue import label_values
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import CONTENTS, QUESTIONS, Task, find_task, is_eligible
from auditory_sentences.corpora.clip import Clip
from auditory_sentences.rng import KeyedRng, stable_hash
from codec.audio.waveform import audio_length, load_audio
from codec.experts.base import feature_frames
from codec.experts.mel import MelExpert
from codec.io.errors import UserError
from codec.io.numbers import AnyLayers, Index, ProperShare, Share
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from codec.tokens import SAMPLE_RATE
from training.codec import speaker_pairs
from training.codec.prompt_template import Dialogue
from training.codec.speaker_pairs import SpeakerPairs

_POOL = 8  # batches that are drawn together and sorted by length, so that little of a batch is padding


@dataclass(frozen=True)
class Augmentation:
    """Random changes to the features that leave the answers true.

    time_masks, time_width: stretches of at most `time_width` frames at 25 Hz that are silenced (SpecAugment)
    band_masks, band_width: groups of neighbouring channels, each at most this share of all, that are silenced
    warp: fixed spectral features only: the frequency axis is stretched by up to this share, as by another vocal tract
    """

    time_masks: AnyLayers = 0
    time_width: Index = 5
    band_masks: AnyLayers = 0
    band_width: Share = 0.15
    warp: ProperShare = 0.0


@dataclass(frozen=True)
class Example:
    """One question about one clip, or about it and the `other` that follows it."""

    clip: Clip
    task: str
    dialogue: Dialogue
    other: Clip | None = None

    @property
    def name(self) -> str:
        return f"{self.task}:{self.clip.id}" + (f"+{self.other.id}" if self.other else "")


@dataclass(frozen=True)
class ListeningBatch:
    """Examples with the features of their clips; see DescriptiveBranch for the shapes."""

    examples: tuple[Example, ...]
    speech: Tensor
    music: Tensor
    frames: Tensor

    def inputs(self, device: torch.device) -> dict[str, object]:
        """Arguments of Audio LLM.forward but for `quantise`."""
        return {
            "speech": self.speech.to(device),
            "music": self.music.to(device),
            "frames": self.frames.to(device),
            "dialogues": [example.dialogue for example in self.examples],
            "transcripts": [e.clip.text if e.clip.kind == "speech" and e.other is None else "" for e in self.examples],
        }


class AudioQADataset:
    """Batches of examples: batch i is a pure function of the clips, the tasks and the key.

    tasks: name -> weight, of auditory_sentences.tasks or training.speaker_pairs. A task is drawn first, then one of the
        clips that can serve it.
    cache: keep the features of every clip in memory, in half precision, once they are computed
    Raises UserError where no clip can serve any task.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        tasks: Mapping[str, float],
        encoder: DescriptiveEncoder,
        bank: PromptBank,
        batch: int,
        max_seconds: float,
        augmentation: Augmentation,
        cache: bool,
        *key: object,
    ) -> None:
        self.encoder, self.size, self.augmentation, self.key = encoder, batch, augmentation, key
        self.bank = bank.with_label_values(label_values(clips))
        lengths = {clip.id: audio_length(clip.path) for clip in clips}
        self.lengths = {name: n for name, n in lengths.items() if n <= max_seconds * SAMPLE_RATE}
        fitting = [clip for clip in clips if clip.id in self.lengths]
        self.pairs = SpeakerPairs(fitting, self.lengths, int(max_seconds * SAMPLE_RATE))
        self.clips_of: dict[str, list[Clip]] = {}
        for name in tasks:
            if name == speaker_pairs.TASK:
                found = self.pairs.firsts
            else:
                found = [clip for clip in fitting if is_eligible(find_task(name), clip, self.bank)]
            if found:
                self.clips_of[name] = found
        if not self.clips_of:
            raise UserError(
                f"none of {len(clips)} clips of at most {max_seconds:g} s can serve any of the tasks {', '.join(tasks)}"
            )
        total = sum(tasks[name] for name in self.clips_of)
        ends = accumulate(tasks[name] / total for name in self.clips_of)
        self.shares = list(zip(self.clips_of, ends, strict=True))  # task -> where its part of [0, 1) ends
        self.cache: dict[str, tuple[Tensor, Tensor]] | None = {} if cache else None

    @property
    def fingerprint(self) -> str:
        """Hash of which clips there are and how long they are."""
        return f"{stable_hash(*(f'{name} {n}' for name, n in self.lengths.items())):016x}"

    def batch(self, index: int) -> ListeningBatch:
        """Batch `index`: examples of similar length, their features changed at random."""
        pool, position = divmod(index, _POOL)
        rng = KeyedRng("pool", *self.key, pool)
        drawn = [self._draw(rng) for _ in range(_POOL * self.size)]
        order = sorted(range(len(drawn)), key=lambda i: self.lengths[drawn[i][1].id])
        slices = rng.shuffled([order[i * self.size : (i + 1) * self.size] for i in range(_POOL)])
        rng = KeyedRng("question", *self.key, index)
        examples = [self._example(name, clip, rng) for name, clip in (drawn[i] for i in slices[position])]
        return self._with_features(examples, KeyedRng("augment", *self.key, index))

    def questions(self, task: str, limit: int) -> list[ListeningBatch]:
        """The same question about each of the first `limit` clips that can serve the task, unchanged, in batches."""
        examples = [
            self._example(task, clip, KeyedRng("held out", task, clip.id))
            for clip in self.clips_of.get(task, [])[:limit]
        ]
        examples.sort(key=self._length)
        return [self._with_features(examples[i : i + 32], None) for i in range(0, len(examples), 32)]

    def _draw(self, rng: KeyedRng) -> tuple[str, Clip]:
        place = rng.randrange(1 << 53) / (1 << 53)
        name = next((name for name, end in self.shares if place < end), self.shares[-1][0])
        return name, rng.choice(self.clips_of[name])

    def _example(self, name: str, clip: Clip, rng: KeyedRng) -> Example:
        if name == speaker_pairs.TASK:
            other, answer = self.pairs.partner(clip, rng)
            return Example(clip, name, Dialogue(self.bank.prompt(name, rng), answer), other)
        return Example(clip, name, self._dialogue(find_task(name), clip, rng))

    def _length(self, example: Example) -> int:
        """Samples of what is heard."""
        more = 0 if example.other is None else speaker_pairs.GAP + self.lengths[example.other.id]
        return self.lengths[example.clip.id] + more

    def _dialogue(self, task: Task, clip: Clip, rng: KeyedRng) -> Dialogue:
        for part in task.parts:
            if part.content in QUESTIONS:
                labels = [task.label] if task.label else [n for n in sorted(clip.labels) if n in self.bank.label_values]
                question, answer = QUESTIONS[part.content](clip, rng.choice(labels), rng, self.bank).values()
                return Dialogue(question, answer)
        return Dialogue(self.bank.prompt(task.base, rng), CONTENTS[task.parts[-1].content](clip))

    def _with_features(self, examples: Sequence[Example], rng: KeyedRng | None) -> ListeningBatch:
        features = self._features(examples)
        if rng is not None:
            features = [self._changed(speech, music, rng) for speech, music in features]
        return ListeningBatch(
            tuple(examples),
            pad_sequence([speech.T for speech, _ in features], batch_first=True).transpose(1, 2),
            pad_sequence([music.T for _, music in features], batch_first=True).transpose(1, 2),
            torch.tensor([feature_frames(self._length(example), 25) for example in examples]),
        )

    def _features(self, examples: Sequence[Example]) -> list[tuple[Tensor, Tensor]]:
        """Speech-text (C, T50) and music features (C, T25) of what each example is about."""
        if self.cache is None:
            return self._listen(examples)
        found = []
        for example in examples:
            features = self.cache.get(example.clip.id) if example.other is None else None
            if features is None:
                # One by one: what a batch's other clips do to the last bit must not depend on where a run began.
                features = tuple(part.half().cpu() for part in self._listen([example])[0])
                if example.other is None:  # of pairs there are too many
                    self.cache[example.clip.id] = features
            found.append(tuple(part.float() for part in features))
        return found

    def _listen(self, examples: Sequence[Example]) -> list[tuple[Tensor, Tensor]]:
        audio = [_audio(example) for example in examples]
        lengths = torch.tensor([len(waveform) for waveform in audio])
        device = self.encoder.branch.merge.weight.device
        heard = self.encoder.extract_features(pad_sequence(audio, batch_first=True).to(device), lengths.to(device))
        return [
            (speech[:, : feature_frames(len(waveform), 50)], music[:, : feature_frames(len(waveform), 25)])
            for waveform, speech, music in zip(audio, heard[0], heard[1], strict=True)
        ]

    def _changed(self, speech: Tensor, music: Tensor, rng: KeyedRng) -> tuple[Tensor, Tensor]:
        change = self.augmentation
        expert = self.encoder.experts["speech_text"]
        if change.warp and isinstance(expert, MelExpert):
            share = (2 * rng.randrange(1 << 20) / (1 << 20) - 1) * change.warp
            speech = warped(speech, 1 + share, expert.views["speech_text"].stack)
        speech, music = speech.clone(), music.clone()
        for _ in range(change.time_masks):
            width = rng.randint(0, change.time_width)
            start = rng.randint(0, max(0, music.shape[1] - width))
            speech[:, 2 * start : 2 * (start + width)] = 0
            music[:, start : start + width] = 0
        for features in (speech, music):
            for _ in range(change.band_masks):
                width = rng.randint(0, round(change.band_width * len(features)))
                start = rng.randint(0, len(features) - width)
                features[start : start + width] = 0
        return speech, music


def _audio(example: Example) -> Tensor:
    """(n,) samples that are heard."""
    waveform = load_audio(example.clip.path)
    if example.other is None:
        return waveform
    return torch.cat([waveform, waveform.new_zeros(speaker_pairs.GAP), load_audio(example.other.path)])


def train_and_held_out(
    clips: Sequence[Clip], tasks: Mapping[str, float], held_out_tasks: Sequence[str], *rest: object
) -> tuple[AudioQADataset, AudioQADataset]:
    """Questions about train clips, and about dev clips. rest: of AudioQADataset's arguments, from `encoder` on."""
    train, held_out = (
        AudioQADataset([clip for clip in clips if clip.split == split], wanted, *rest, split)
        for split, wanted in (("train", tasks), ("dev", dict.fromkeys(held_out_tasks, 1.0)))
    )
    return train, held_out


def warped(features: Tensor, factor: float, stack: int) -> Tensor:
    """Band energies (bands * stack, T) with stretched frequency axis: what lay in band b comes to lie in factor * b."""
    bands = features.unflatten(0, (-1, stack))  # (bands, stack, T)
    count = len(bands)
    places = torch.arange(count) / factor  # where each new band is read
    low = places.floor().long().clamp(max=count - 1)
    high = (low + 1).clamp(max=count - 1)
    share = (places - low).clamp(0, 1)[:, None, None]
    return ((1 - share) * bands[low] + share * bands[high]).flatten(0, 1)
