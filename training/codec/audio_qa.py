"""Recordings with questions about them: the examples that supervise the descriptive branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

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
from training.codec.speaker_pairs import SpeakerPairs
from training.lm.prompt_template import Dialogue

_POOL = 8  # batches that are drawn together and sorted by length, so that little of a batch is padding


@dataclass(frozen=True)
class Augmentation:
    """Random changes to the features that leave the answers true (SpecAugment)."""

    # stretches of time that are silenced
    time_masks: AnyLayers = 0
    # 25 Hz frames of each of them, at most
    time_width: Index = 5
    # groups of neighbouring channels that are silenced
    band_masks: AnyLayers = 0
    # share of all channels that each of them has, at most
    band_width: Share = 0.15
    # share by which the frequency axis is stretched, at most, as by another vocal tract; spectral features only
    warp: ProperShare = 0.0


@dataclass(frozen=True)
class Example:
    """One question about one clip, or about two in a row."""

    # the first one
    clip: Clip
    # name of the task
    task: str
    # question and answer
    dialogue: Dialogue
    # the second one, after a pause
    other: Clip | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.task}:{self.clip.id}" + (f"+{self.other.id}" if self.other else "")


@dataclass(frozen=True)
class AudioQABatch:
    """Examples with the expert features of their recordings."""

    # B of them
    examples: tuple[Example, ...]
    # (B, C, T50) float32
    speech: Tensor
    # (B, C, T25) float32
    music: Tensor
    # (B,) 25 Hz frames of each recording
    frames: Tensor

    @property
    def names(self) -> list[str]:
        """Of the examples, for messages."""
        return [example.name for example in self.examples]

    @property
    def seconds(self) -> float:
        """Of all recordings together."""
        return int(self.frames.sum()) / 25

    @property
    def questions(self) -> list[str]:
        """Of the examples."""
        return [example.dialogue.question for example in self.examples]

    def features(self, device: torch.device) -> dict[str, Tensor]:
        """What the audio LLM hears."""
        return {name: getattr(self, name).to(device) for name in ("speech", "music", "frames")}

    def inputs(self, device: torch.device) -> dict[str, Any]:
        """Arguments of AudioLLM.forward but for `quantise`. Of a pair is not told which was said where."""
        return self.features(device) | {
            "dialogues": [example.dialogue for example in self.examples],
            "transcripts": [e.clip.text if e.clip.kind == "speech" and e.other is None else "" for e in self.examples],
            "labels": [e.clip.labels if e.other is None else {} for e in self.examples],
        }


@dataclass(frozen=True, kw_only=True)
class AudioQAConfig:
    """How questions are put and batched."""

    # phrasings of the questions
    bank: PromptBank
    # examples in a batch
    batch: int
    # seconds; longer clips are left out
    max_seconds: float
    # of the features of training batches
    augmentation: Augmentation = Augmentation()
    # whether the features of every clip are kept in memory, in 16 bits, once they are computed
    cache_features: bool = False


class AudioQADataset:
    """Batches of examples: batch i is a pure function of the clips, the tasks and the key.

    Args:
        clips: to ask about.
        tasks: name -> weight, of auditory_sentences/builders/tasks.py or speaker_pairs.py. A task is drawn first, then
            one of the clips that can serve it.
        encoder: whose experts extract the features.
        config: how questions are put and batched.
        key: what the random numbers depend on, such as seed and split.

    Raises:
        UserError: no clip can serve any task.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        tasks: Mapping[str, float],
        encoder: DescriptiveEncoder,
        config: AudioQAConfig,
        *key: int | str,
    ) -> None:
        self.encoder, self.config, self.key = encoder, config, key
        max_seconds = config.max_seconds
        self.bank = config.bank.with_label_values(label_values(clips))
        lengths = {clip.id: audio_length(clip.path) for clip in clips}
        self.lengths = {name: n for name, n in lengths.items() if n <= max_seconds * SAMPLE_RATE}
        fitting = [clip for clip in clips if clip.id in self.lengths]
        self.pairs = SpeakerPairs(fitting, self.lengths, int(max_seconds * SAMPLE_RATE))
        self.clips_of: dict[str, list[Clip]] = {}
        for name in tasks:
            if name == speaker_pairs.TASK:
                eligible = self.pairs.firsts
            else:
                eligible = [clip for clip in fitting if is_eligible(find_task(name), clip, self.bank)]
            if eligible:
                self.clips_of[name] = eligible
        if not self.clips_of:
            raise UserError(
                f"none of {len(clips)} clips of at most {max_seconds:g} s can serve any of the tasks {', '.join(tasks)}"
            )
        total = sum(tasks[name] for name in self.clips_of)
        ends = accumulate(tasks[name] / total for name in self.clips_of)
        self.shares = list(zip(self.clips_of, ends, strict=True))  # task -> where its part of [0, 1) ends
        self.cache: dict[str, tuple[Tensor, Tensor]] | None = {} if config.cache_features else None

    @classmethod
    def train_and_dev(
        cls,
        clips: Sequence[Clip],
        tasks: Mapping[str, float],
        held_out_tasks: Sequence[str],
        encoder: DescriptiveEncoder,
        config: AudioQAConfig,
        seed: int,
    ) -> tuple[Self, Self]:
        """Questions of `tasks` about train clips, and of `held_out_tasks` about dev clips."""
        train, dev = (
            cls([clip for clip in clips if clip.split == split], weights, encoder, config, seed, split)
            for split, weights in (("train", tasks), ("dev", dict.fromkeys(held_out_tasks, 1.0)))
        )
        return train, dev

    @property
    def fingerprint(self) -> str:
        """Hash of which clips there are and how long they are."""
        return f"{stable_hash(*(f'{name} {n}' for name, n in self.lengths.items())):016x}"

    def batch(self, index: int) -> AudioQABatch:
        """Batch `index`: examples of similar length, their features changed at random."""
        pool, position = divmod(index, _POOL)
        rng = KeyedRng("pool", *self.key, pool)
        size = self.config.batch
        sampled = [self._sample(rng) for _ in range(_POOL * size)]
        order = sorted(range(len(sampled)), key=lambda i: self.lengths[sampled[i][1].id])
        slices = rng.shuffled([order[i * size : (i + 1) * size] for i in range(_POOL)])
        rng = KeyedRng("question", *self.key, index)
        examples = [self._example(name, clip, rng) for name, clip in (sampled[i] for i in slices[position])]
        return self._with_features(examples, KeyedRng("augment", *self.key, index))

    def questions(self, task: str, limit: int) -> list[AudioQABatch]:
        """The same question about each of the first `limit` clips that can serve the task, unchanged, in batches."""
        examples = [
            self._example(task, clip, KeyedRng("held out", task, clip.id))
            for clip in self.clips_of.get(task, [])[:limit]
        ]
        examples.sort(key=self._length)
        return [self._with_features(examples[i : i + 32], None) for i in range(0, len(examples), 32)]

    def _sample(self, rng: KeyedRng) -> tuple[str, Clip]:
        uniform = rng.randrange(1 << 53) / (1 << 53)
        name = next((name for name, end in self.shares if uniform < end), self.shares[-1][0])
        return name, rng.choice(self.clips_of[name])

    def _example(self, name: str, clip: Clip, rng: KeyedRng) -> Example:
        if name == speaker_pairs.TASK:
            other, answer = self.pairs.partner(clip, rng)
            return Example(clip, name, Dialogue(self.bank.prompt(name, rng), answer), other)
        return Example(clip, name, self._dialogue(find_task(name), clip, rng))

    def _length(self, example: Example) -> int:
        """Samples of an example's recording."""
        more = 0 if example.other is None else speaker_pairs.GAP + self.lengths[example.other.id]
        return self.lengths[example.clip.id] + more

    def _dialogue(self, task: Task, clip: Clip, rng: KeyedRng) -> Dialogue:
        for part in task.parts:
            if part.content in QUESTIONS:
                labels = [task.label] if task.label else [n for n in sorted(clip.labels) if n in self.bank.label_values]
                question, answer = QUESTIONS[part.content](clip, rng.choice(labels), rng, self.bank).values()
                return Dialogue(question, answer)
        return Dialogue(self.bank.prompt(task.base, rng), CONTENTS[task.parts[-1].content](clip))

    def _with_features(self, examples: Sequence[Example], rng: KeyedRng | None) -> AudioQABatch:
        features = self._features(examples)
        if rng is not None:
            features = [self._augmented(speech, music, rng) for speech, music in features]
        return AudioQABatch(
            tuple(examples),
            pad_sequence([speech.T for speech, _ in features], batch_first=True).transpose(1, 2),
            pad_sequence([music.T for _, music in features], batch_first=True).transpose(1, 2),
            torch.tensor([feature_frames(self._length(example), 25) for example in examples]),
        )

    def _features(self, examples: Sequence[Example]) -> list[tuple[Tensor, Tensor]]:
        """Speech-text (C, T50) and music features (C, T25) of what each example is about."""
        if self.cache is None:
            return self._extract(examples)
        batch = []
        for example in examples:
            features = self.cache.get(example.clip.id) if example.other is None else None
            if features is None:
                # One by one: what a batch's other clips do to the last bit must not depend on where a run began.
                features = tuple(part.half().cpu() for part in self._extract([example])[0])
                if example.other is None:  # of pairs there are too many
                    self.cache[example.clip.id] = features
            batch.append(tuple(part.float() for part in features))
        return batch

    def _extract(self, examples: Sequence[Example]) -> list[tuple[Tensor, Tensor]]:
        audio = [_audio(example) for example in examples]
        lengths = torch.tensor([len(waveform) for waveform in audio])
        device = self.encoder.branch.merge.weight.device
        features = self.encoder.extract_features(pad_sequence(audio, batch_first=True).to(device), lengths.to(device))
        return [
            (speech[:, : feature_frames(len(waveform), 50)], music[:, : feature_frames(len(waveform), 25)])
            for waveform, speech, music in zip(audio, features[0], features[1], strict=True)
        ]

    def _augmented(self, speech: Tensor, music: Tensor, rng: KeyedRng) -> tuple[Tensor, Tensor]:
        change = self.config.augmentation
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
    """The recording that a question is about, (n,) float32 at 24 kHz."""
    waveform = load_audio(example.clip.path)
    if example.other is None:
        return waveform
    return torch.cat([waveform, waveform.new_zeros(speaker_pairs.GAP), load_audio(example.other.path)])


def warped(features: Tensor, factor: float, stack: int) -> Tensor:
    """Band energies (bands * stack, T) with stretched frequency axis: what lay in band b comes to lie in factor * b."""
    bands = features.unflatten(0, (-1, stack))  # (bands, stack, T)
    count = len(bands)
    positions = torch.arange(count) / factor  # where each new band is read
    low = positions.floor().long().clamp(max=count - 1)
    high = (low + 1).clamp(max=count - 1)
    share = (positions - low).clamp(0, 1)[:, None, None]
    return ((1 - share) * bands[low] + share * bands[high]).flatten(0, 1)
