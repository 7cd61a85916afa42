"""How predictable the tokens are: one small fixed language model, trained on training clips, tested on test clips.

Codecs differ in how many tokens they spend on a second, and a model that sees more of them finds each more predictable.
So all are compared at about TOKENS_PER_SECOND: of every frame the first codebooks are taken, as many as come nearest to
it (at least one, at most all; the row says how many). Ids are spelt frame by frame, codebook by codebook; a prediction
is one of its own codebook's codes. Comparable between codecs is the model's bits a second of audio, its cross-entropy
times the tokens of a second; the perplexity of a token is comparable where also the numbers of codes are equal.

The model is a Llama (evaluation/token_measures/small_model.py), trained for STEPS steps; of the weights at the
beginning and after every CHECK steps those with the lowest loss on the dev clips are kept. Every text is a window of at
most WINDOW tokens of one clip.
Chance: all codes equally likely. Standard errors: test clips resampled with replacement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.io.errors import UserError
from codec.streams import StreamSpec
from evaluation.metrics.estimate import Estimate, ratio
from evaluation.token_measures.coded import CodedClips, Measured
from evaluation.token_measures.small_model import BATCH, fit, llama

TOKENS_PER_SECOND = 50.0
WINDOW = 192  # tokens
STEPS, CHECK = 240, 30


def perplexity(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Perplexity of a token under the language model. Raises UserError where a split has no clip."""
    estimate, chance, note = _likelihood(coded, stream)
    return Measured(_transformed(estimate, np.exp), chance, note=note)


def model_bits(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Bits a second of audio that the tokens cost under the language model. Raises UserError as `perplexity`."""
    estimate, chance, note = _likelihood(coded, stream)
    spec = coded.spec(stream)
    per_second = spec.rate * books_of(spec) / math.log(2)
    return Measured(_transformed(estimate, lambda nats: nats * per_second), per_second * math.log(chance), note=note)


def books_of(spec: StreamSpec) -> int:
    """How many codebooks of a stream come nearest to TOKENS_PER_SECOND."""
    return min(max(round(TOKENS_PER_SECOND / spec.rate), 1), spec.codebooks)


def _transformed(pairs: tuple[list[float], list[float]], transform) -> Estimate:
    return ratio(*pairs, transform)


def _likelihood(coded: CodedClips, stream: str) -> tuple[tuple[list[float], list[float]], float, str]:
    """(nats of each test clip, its tokens), perplexity of chance, and a note."""
    spec, codes = coded.spec(stream), coded.codes(stream)
    books = books_of(spec)
    splits = {"train": coded.sample("train"), "dev": coded.sample("dev"), "test": coded.test}
    if empty := [name for name, clips in splits.items() if not clips]:
        raise UserError(f"a language model of tokens needs clips of split '{empty[0]}', and there is none")

    def measure() -> tuple[list[float], list[float]]:
        frames = {name: [t[stream][:books].T for t in coded.tokens(clips)] for name, clips in splits.items()}
        nats = token_nats(frames["train"], frames["dev"], frames["test"], codes, coded.seed, STEPS)
        return nats, [float(clip.numel()) for clip in frames["test"]]

    note = (
        f"Of {books} of {spec.codebooks} codebook{'s' * (spec.codebooks > 1)}: {spec.rate * books:g} tokens a second, "
        f"after {len(splits['train'])} training clips."
    )
    return coded.once(("likelihood", stream), measure), float(codes), note


def token_nats(
    train: Sequence[Tensor], dev: Sequence[Tensor], test: Sequence[Tensor], codes: int, seed: int = 0,
    steps: int = STEPS,
) -> list[float]:  # fmt: skip
    """Negative log likelihood in nats of each test clip, under a model that is trained on the training clips.

    Args:
        train: (frames, codebooks) ids of each clip, the same number of codebooks everywhere.
        dev: The same: the best weights are chosen by these.
        test: The same.
        codes: Ids of every codebook are below it.
        seed: Of weights and windows.
        steps: Of training.
    """
    books = train[0].shape[1]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = _TokenModel(books, codes)
        rng, length = np.random.default_rng(seed), _window(books)
        sizes = np.array([len(clip) for clip in train], dtype=float)

        def loss() -> Tensor:
            chosen = rng.choice(len(train), size=BATCH, p=sizes / sizes.sum())
            starts = [int(rng.integers(0, max(1, len(train[i]) - length + 1))) for i in chosen]
            batch, there = _padded([train[i][s : s + length] for i, s in zip(chosen, starts, strict=True)])
            return model(batch)[there].mean()

        def on_dev() -> float:
            return sum(_clip_nats(model, dev)) / sum(clip.numel() for clip in dev)

        fit(model, loss, on_dev, steps, CHECK, start=math.log(codes))  # it begins with all codes equally likely
    return _clip_nats(model, test)


def _window(books: int) -> int:
    """Frames of a window."""
    return max(1, WINDOW // books)


@torch.no_grad()
def _clip_nats(model: _TokenModel, clips: Sequence[Tensor]) -> list[float]:
    """Nats of each clip, in windows."""
    length = _window(model.books)
    windows = [(i, part) for i, clip in enumerate(clips) for part in clip.split(length)]
    found = [0.0] * len(clips)
    for start in range(0, len(windows), BATCH):
        some = windows[start : start + BATCH]
        batch, there = _padded([part for _, part in some])
        each = (model(batch) * there).double().sum((1, 2))
        for (i, _), nats in zip(some, each.tolist(), strict=True):
            found[i] += nats
    return found


def _padded(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(B, frames, codebooks) ids, and which of them are no padding."""
    batch = nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    lengths = torch.tensor([len(part) for part in parts])
    there = torch.arange(batch.shape[1])[None] < lengths[:, None]
    return batch, there[:, :, None].expand_as(batch)


class _TokenModel(nn.Module):
    """A causal language model of ids that are spelt codebook by codebook, each codebook with its own codes."""

    def __init__(self, books: int, codes: int) -> None:
        super().__init__()
        self.books, self.codes = books, codes
        self.body = llama(books * codes + 1, WINDOW)  # the last one begins
        self.heads = nn.Parameter(torch.zeros(books, codes, self.body.config.hidden_size))

    def forward(self, ids: Tensor) -> Tensor:
        """Nats of each id: (B, frames, codebooks) -> the same shape."""
        spelt = (ids + self.codes * torch.arange(self.books)).flatten(1)  # (B, tokens)
        begins = spelt.new_full((len(spelt), 1), self.books * self.codes)
        hidden = self.body(input_ids=torch.cat([begins, spelt[:, :-1]], dim=1)).last_hidden_state
        hidden = hidden.unflatten(1, (-1, self.books))  # (B, frames, codebooks, d)
        logits = torch.einsum("bfkd,kcd->bfkc", hidden, self.heads)
        return F.cross_entropy(logits.flatten(0, 2), ids.flatten(), reduction="none").view(ids.shape)
