"""A token store in memory: a few clips of every kind, with random tokens and exact labels."""

from __future__ import annotations

from dataclasses import fields

import torch

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.lengths import Units
from auditory_sentences.token_store import StoredClip
from codec.streams import StreamSpec
from codec.tokens import SAMPLE_RATE, AudioTokens
from lm.text_tokenizer import SentencePieceTokenizer
from lm.vocabulary import VocabularyLayout
from tests.factories.tokens import both, descriptive_frames, structural_frames, two_streams

FINGERPRINT = "tiny"
CODES = 16
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES = ("ann", "bob", "cid", "dot")
INSTRUMENTS = ("piano", "flute", "violin", "organ")
SOUNDS = ("rain", "dog", "bell", "siren")


class TinyStore:
    """`clips` without tokens, `store[i]` with them, as the real store."""

    data_hash, name = FINGERPRINT, "the tiny store"
    streams, sample_rate = two_streams(CODES, CODES), SAMPLE_RATE
    units = Units(streams, sample_rate)

    def __init__(self, clips: list[Clip], seconds: list[float]):
        self.clips = clips
        self.num_samples = [round(24_000 * s) for s in seconds]

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, i: int) -> StoredClip:
        values = {f.name: getattr(self.clips[i], f.name) for f in fields(Clip)}
        return StoredClip(**values, tokens=random_tokens(self.num_samples[i], seed=i))


def random_tokens(num_samples: int, seed: int = 0, fingerprint: str = FINGERPRINT) -> AudioTokens:
    generator = torch.Generator().manual_seed(seed)
    return both(
        torch.randint(CODES, (8, descriptive_frames(num_samples)), generator=generator),
        torch.randint(CODES, (8, structural_frames(num_samples)), generator=generator),
        num_samples,
        fingerprint,
    )


def tiny_store(speech: int = 12, sounds: int = 8, music: int = 8, seconds: float = 1.5) -> TinyStore:
    """Clips of the train split, and a third as many of dev after them, with shared texts, a recording, a mixture."""
    clips, lengths = [], []

    def add(clip: Clip, length: float = seconds) -> None:
        clips.append(clip)
        lengths.append(length + 0.1 * (len(clips) % 4))

    for split, share in (("train", 1), ("dev", 3)):

        def say(name: str, i: int, text: str, split: str = split, **fields) -> None:
            voice = VOICES[i % len(VOICES)]
            labels = {"gender": ("female", "male")[i % 2], "speed": ("slow", "fast")[i // 2 % 2], "bpm": str(i)}
            caption = f"a {labels['gender']} voice, {labels['speed']}"
            add(Clip(f"{split}-{name}", "x.wav", "speech", split, text, caption, voice, labels, **fields))

        for i in range(speech // share):
            say(f"speech-{i}", i, WORDS[i % len(WORDS)])
        for i in range(4):  # the same text in four voices
            say(f"same-{i}", i, "Zero, one!" if i % 2 else "zero one")
        for i in range(5):  # a long recording, in an order that is not that of the file
            say(f"story-{i}", 0, f"part {WORDS[i]}", group=f"{split}-story", position=4 - i)
        for i in range(sounds // share):
            name = SOUNDS[i % len(SOUNDS)]
            add(
                Clip(
                    f"{split}-sound-{i}",
                    "x.wav",
                    "sound",
                    split,
                    caption=f"the sound of {name}",
                    labels={"class": name},
                )
            )
        for i in range(music // share):
            labels = {
                "instrument": INSTRUMENTS[i % len(INSTRUMENTS)],
                "tempo": ("slow", "fast")[i % 2],
                "bpm": str(90 + i),
            }
            caption = f"{labels['tempo']} music of a {labels['instrument']}"
            add(Clip(f"{split}-music-{i}", "x.wav", "music", split, caption=caption, labels=labels))
        add(Clip(f"{split}-long", "x.wav", "music", split, caption="a long piece", labels={"instrument": "piano"}), 9.0)
        parts = (f"{split}-speech-0", f"{split}-sound-0")
        add(Clip(f"{split}-mixture", "x.wav", "mixture", split, "zero", "a voice in the rain", parts=parts))
    return TinyStore(clips, lengths)


def tiny_tokenizer() -> SentencePieceTokenizer:
    texts = [*WORDS, *INSTRUMENTS, *SOUNDS, "the sound of a voice, slow and fast", "Which one do you hear?"] * 3
    return SentencePieceTokenizer.train(texts, 320)


def tiny_layout(tokenizer: SentencePieceTokenizer) -> VocabularyLayout:
    return VocabularyLayout.build(tokenizer, two_streams(CODES, CODES), FINGERPRINT)


class OneStreamStore(TinyStore):
    """The same clips through a codec of one stream, 50 frames a second."""

    streams, sample_rate = (StreamSpec("codes", 50.0, 4, CODES, extra_frame=False),), SAMPLE_RATE
    units = Units(streams, sample_rate)

    def __getitem__(self, i: int) -> StoredClip:
        spec, samples = self.streams[0], self.num_samples[i]
        generator = torch.Generator().manual_seed(i)
        shape = spec.codebooks, spec.num_frames(samples, self.sample_rate)
        tokens = AudioTokens({spec.name: torch.randint(CODES, shape, generator=generator)}, samples, FINGERPRINT)
        values = {f.name: getattr(self.clips[i], f.name) for f in fields(Clip)}
        return StoredClip(**values, tokens=tokens)


def one_stream_store() -> OneStreamStore:
    store = tiny_store()
    return OneStreamStore(store.clips, [n / SAMPLE_RATE for n in store.num_samples])
