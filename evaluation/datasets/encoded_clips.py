"""Clips of data sets in the place of a token store: tokens are made when a task asks for them, and cached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path

import soundfile

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.lengths import Units
from auditory_sentences.sentence import AuditorySentence
from auditory_sentences.token_store import StoredClip
from codec.io.errors import UserError
from codec.streams import StreamSpec
from evaluation.datasets.task_dataset import TaskDataset, folders_of
from evaluation.items import Item
from evaluation.recordings import hash_of_recordings
from evaluation.runner import CodecRunner


class EncodedClips:
    """The clips of several data sets. A data set that cannot be had is `missing`, with the reason."""

    name = fingerprint = ""

    def __init__(self, datasets: Sequence[TaskDataset], given: Sequence[str | Path], unpacked: Path) -> None:
        """Read the data sets.

        Args:
            datasets: Each once, however many tasks name it.
            given: Folders that stand in the place of the hub (`folders_of`).
            unpacked: Folder for sound that lies within rows.

        Raises:
            UserError: A folder stands for none of them, or two data sets have one name.
        """
        by_name: dict[str, TaskDataset] = {}
        for dataset in datasets:
            if by_name.setdefault(dataset.name, dataset) != dataset:
                raise UserError(f"two tasks describe the data set '{dataset.name}' differently; rename one of them")
        folders = folders_of(datasets, given)
        self.missing: dict[str, str] = {}
        clips: list[Clip] = []
        for name, dataset in by_name.items():
            try:
                clips += dataset.clips(folders.get(name), unpacked / name)
            except UserError as error:
                self.missing[name] = str(error)
        self.clips = tuple(clips)
        self.data_hash = hash_of_recordings(self.clips)
        self._encoder: CodecRunner | None = None

    def encode_with(self, encoder: CodecRunner) -> None:
        """Make tokens with this codec from now on."""
        self._encoder = encoder

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        return self._codec.codec.streams

    @property
    def sample_rate(self) -> int:
        return self._codec.codec.sample_rate

    @cached_property
    def units(self) -> Units:
        """How clips are cut."""
        return Units(self.streams, self.sample_rate)

    @cached_property
    def num_samples(self) -> Mapping[int, int]:
        """Of each clip at the codec's rate, read off its file."""
        lengths = {}
        for i, clip in enumerate(self.clips):
            info = soundfile.info(clip.path)
            lengths[i] = round(info.frames * self.sample_rate / info.samplerate)
        return lengths

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> StoredClip:
        """The clip of that position with its tokens. Raises UserError where its recording cannot be read."""
        clip = self.clips[i]
        item = Item(clip.id, clip, None, AuditorySentence((), clip.id), "audio", None, {})
        if item.unreadable:
            raise UserError(item.unreadable)
        (answer,) = self._codec.encode([item])
        return StoredClip(**{one.name: getattr(clip, one.name) for one in fields(Clip)}, tokens=answer.tokens)

    @property
    def _codec(self) -> CodecRunner:
        if self._encoder is None:
            raise ValueError("no codec was given to encode with (encode_with)")
        return self._encoder
