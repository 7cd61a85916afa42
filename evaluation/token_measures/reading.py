"""Which words the tokens let a small language model read: one of a fixed size, trained anew on transcripts of clips.

It is what a language model needs of a codec, in minutes: frames are the sum of their codebooks' embeddings, as in the
language model of this project, the words follow them one by one, and only they are learned. Nothing tells it where a
word stands. The score is the word error rate of what it reads from test clips, most likely word after word; originals
are the log-mel frames of the recordings, at the stream's rate, read by the same model through a linear layer.

The model is a Llama (evaluation/token_measures/small_model.py), trained for STEPS steps; of the weights after every
CHECK steps those that read the dev clips best are kept. Its words are those of the training clips: for tasks of few
words and many clips, such as digits. Chance: nothing is read. Standard errors: test clips resampled with replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auditory_sentences.corpora.clip import Clip
from codec.io.errors import UserError
from evaluation.cache import bytes_key, key_of
from evaluation.metrics.estimate import ratio
from evaluation.metrics.words import word_errors
from evaluation.token_measures.coded import CodedClips, Measured
from evaluation.token_measures.small_model import BATCH, fit, llama
from lm.words import normalise_words

STEPS, CHECK = 1600, 200
POSITIONS = 4096  # of frames and words, at most
IGNORED = -100  # no word is asked for

Read = tuple[Tensor, list[str]]  # (T, ...) frames of a clip, and its words
Errors = tuple[list[float], list[float]]  # errors in each clip, and its words


def words_read(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Word error rate of a small language model on a stream. Raises UserError where a split has no clip with words."""
    spec, codes = coded.spec(stream), coded.codes(stream)
    splits = [_with_words(clips) for clips in (coded.sample("train"), coded.sample("dev"), coded.test)]
    for name, clips in zip(("train", "dev", "test"), splits, strict=True):
        if not clips:
            raise UserError(f"a small language model reads words from clips with a text, and split '{name}' has none")

    def errors(frames: Sequence[Sequence[Tensor]], embedding: Callable[[int], nn.Module]) -> Errors:
        train, dev, test = (
            [(made, _words(clip)) for made, clip in zip(of_split, clips, strict=True)]
            for of_split, clips in zip(frames, splits, strict=True)
        )
        return reading_errors(train, dev, test, embedding, coded.seed, STEPS)

    def of_the_recordings() -> Errors:
        mel = [[torch.from_numpy(coded.mel_frames(clip, spec.rate)).float() for clip in clips] for clips in splits]
        heard = torch.cat(mel[0])
        mean, deviation = heard.mean(0), heard.std(0) + 1e-5
        standard = [[(frames - mean) / deviation for frames in of_split] for of_split in mel]
        words = [_words(clip) for of_split in splits for clip in of_split]
        frames = bytes_key(*(clip.numpy() for of_split in mel for clip in of_split))
        key = key_of(what="words read", mel=frames, words=words, seed=coded.seed, steps=STEPS)
        return coded.kept(key, lambda: errors(standard, lambda width: nn.Linear(heard.shape[1], width)))

    ids = [[tokens[stream].T for tokens in coded.tokens(clips)] for clips in splits]
    found = errors(ids, lambda width: SummedCodebooks(spec.codebooks, codes, width))
    original = coded.once(("words read", spec.rate), of_the_recordings)
    note = f"Of a small language model, after {STEPS} steps on {len(splits[0])} training clips."
    return Measured(ratio(*found), 1.0, ratio(*original), note=note)


def _with_words(clips: Sequence[Clip]) -> list[Clip]:
    return [clip for clip in clips if _words(clip)]


def _words(clip: Clip) -> list[str]:
    return normalise_words(clip.text or "").split()


class SummedCodebooks(nn.Module):
    """Ids of a frame, as a language model hears them: the sum of an embedding for each codebook."""

    def __init__(self, codebooks: int, codes: int, width: int) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(0.02 * torch.randn(codebooks, codes, width))

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T, codebooks) -> (B, T, width)."""
        return self.embeddings[torch.arange(ids.shape[2]), ids].sum(2)


def reading_errors(
    train: Sequence[Read], dev: Sequence[Read], test: Sequence[Read], embedding: Callable[[int], nn.Module],
    seed: int = 0, steps: int = STEPS,
) -> Errors:  # fmt: skip
    """Word errors in each test clip, and its words, as a model reads them that is trained on the training clips.

    Args:
        train: Frames of each clip, (T, codebooks) ids or (T, bands), and its words.
        dev: The same: the best weights are chosen by these.
        test: The same.
        embedding: Makes, for a width, what embeds padded frames: (B, T, ...) -> (B, T, width).
        seed: Of weights and batches.
        steps: Of training.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = _Reader(embedding, sorted({word for _, words in train for word in words}))
        rng = np.random.default_rng(seed)

        def loss() -> Tensor:
            return model.loss([train[i] for i in rng.choice(len(train), size=BATCH)])

        def on_dev() -> float:
            errors, words = _errors(model, dev)
            return sum(errors) / sum(words)

        fit(model, loss, on_dev, steps, CHECK, start=float("inf"))
    return _errors(model, test)


@torch.no_grad()
def _errors(model: _Reader, clips: Sequence[Read]) -> Errors:
    order = sorted(range(len(clips)), key=lambda i: len(clips[i][0]))  # of about one length: little padding
    found = [(0.0, 0.0)] * len(clips)
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        for i, read in zip(some, model.read([clips[i][0] for i in some]), strict=True):
            found[i] = word_errors(" ".join(read), " ".join(clips[i][1]))
    return [errors for errors, _ in found], [words for _, words in found]


class _Reader(nn.Module):
    """A causal language model of words behind frames of sound. The entry after the last word begins and ends a text."""

    def __init__(self, embedding: Callable[[int], nn.Module], words: Sequence[str]) -> None:
        super().__init__()
        self.words, self.end = list(words), len(words)
        self.ids = {word: i for i, word in enumerate(words)}
        self.body = llama(len(words) + 1, POSITIONS)  # the words' embeddings are its own
        width = self.body.config.hidden_size
        self.frames = embedding(width)
        self.head = nn.Linear(width, len(words) + 1)

    def forward(self, frames: Sequence[Tensor], words: Tensor) -> Tensor:
        """(B, words + 1) ids of texts that begin -> logits of what comes after each, (B, words + 1, vocabulary)."""
        lengths = torch.tensor([len(clip) for clip in frames])
        heard = self.frames(nn.utils.rnn.pad_sequence(list(frames), batch_first=True))
        there = torch.arange(heard.shape[1]) < lengths[:, None]
        there = torch.cat([there, torch.ones_like(words, dtype=torch.bool)], dim=1)
        positions = (there.cumsum(1) - 1).clamp(min=0)  # the words follow the last frame, whatever the padding
        hidden = self.body(
            inputs_embeds=torch.cat([heard, self.body.embed_tokens(words)], dim=1), attention_mask=there,
            position_ids=positions,
        ).last_hidden_state  # fmt: skip
        return self.head(hidden[:, heard.shape[1] :])

    def loss(self, clips: Sequence[Read]) -> Tensor:
        """Mean cross-entropy of the words of clips, their ends included."""
        ids = [torch.tensor([self.ids[word] for word in words]) for _, words in clips]
        end = torch.tensor([self.end])
        texts = nn.utils.rnn.pad_sequence([torch.cat([end, text]) for text in ids], True, self.end)
        right = nn.utils.rnn.pad_sequence([torch.cat([text, end]) for text in ids], True, IGNORED)
        return F.cross_entropy(self([frames for frames, _ in clips], texts).transpose(1, 2), right)

    def read(self, frames: Sequence[Tensor]) -> list[list[str]]:
        """The likeliest words, one after the other, of each clip; a clip of T frames has at most T."""
        texts = torch.full((len(frames), 1), self.end)
        for _ in range(max(len(clip) for clip in frames)):
            likeliest = self(frames, texts)[:, -1].argmax(-1)
            texts = torch.cat([texts, likeliest[:, None]], dim=1)
            if bool((texts[:, 1:] == self.end).any(1).all()):
                break
        read = [text[: text.index(self.end)] if self.end in text else text for text in texts[:, 1:].tolist()]
        return [[self.words[i] for i in text[: len(clip)]] for text, clip in zip(read, frames, strict=True)]
