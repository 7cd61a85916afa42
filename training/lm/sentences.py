"""What a language-model recipe draws: its stream of sentences, and the first ones of each entry for people to see."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from auditory_sentences.stream.examples import Example, WatchedStore, about, examples
from auditory_sentences.stream.mixing import NoClips, SentenceStream, absent_streams
from auditory_sentences.token_store import JoinedStores, TokenStore, open_stores
from codec.io.errors import UserError
from codec.io.strict import nearest
from codec.io.terminal import shown
from training.lm.another_codec import fit_to_store
from training.lm.recipe import LanguageModelRecipe
from training.lm.starting_point import Data
from training.lm.text_lines import read_lines


def sentence_stream(
    recipe: LanguageModelRecipe, store: TokenStore | JoinedStores | WatchedStore, split: str
) -> SentenceStream:
    """The recipe's sentences. Those of other splits than train keep their conditions, and have their own clips' texts.

    Args:
        recipe: Whose mixture, seed and context count.
        store: The recipe's, opened.
        split: Of the store.

    Raises:
        UserError: As of SentenceStream, and where a file of texts cannot be read.
    """
    if split == "train":
        options = {"texts": [line for path in recipe.texts for line in read_lines(path)]}
    else:
        options = {"guidance_dropout": 0.0}
    return SentenceStream(store, recipe.mixture, recipe.seed, split, max_rows=recipe.context, **options)


class Entry(NamedTuple):
    """One entry of a mixture, with sentences that were drawn of it."""

    # as the recipe names it
    name: str
    # in the recipe
    weight: float
    # what it is, for people
    about: str
    # of the stream's sentences, in [0, 1]
    share: float = 0.0
    # things that one sentence each is built around: clips, recordings, lines of text
    anchors: int = 0
    # its first sentences in the stream
    examples: Sequence[Example] = ()
    # why there are none; "" where there are
    reason: str = ""


class Drawn(NamedTuple):
    """What a recipe's mixture draws."""

    # with what its store made of it
    recipe: LanguageModelRecipe
    # of the store
    split: str
    # tokenizers and store
    data: Data
    # in the recipe's order
    entries: Sequence[Entry]
    # what was changed in the recipe for its store, as training changes it
    changes: Sequence[str]

    def mean_rows(self, entry: Entry) -> float:
        """Mean rows of the entry's sentences here that training keeps, those that fit into the context."""
        kept = [one.total_rows if one.total_rows <= self.recipe.context else 0 for one in entry.examples]
        return sum(kept) / max(1, len(kept))

    def share_of_rows(self, entry: Entry) -> float | None:
        """Of the stream's rows, in [0, 1], estimated from the sentences here; None unless those of all entries are."""
        total = sum(one.share * self.mean_rows(one) for one in self.entries)
        known = sum(one.share for one in self.entries if one.examples)
        return entry.share * self.mean_rows(entry) / total if total and known > 0.999999 else None

    def learns(self, is_text: bool) -> bool:
        """Whether the stage has a loss of text, or of audio."""
        loss = self.recipe.loss
        return bool(loss.text if is_text else loss.audio and any(loss.streams))


def draw(recipe: LanguageModelRecipe, count: int, only: Sequence[str] = (), split: str = "train") -> Drawn:
    """The first sentences of each entry of the recipe's mixture that a run draws, by the code that draws them there.

    An entry that the store cannot serve is listed with the reason. Training leaves those out whose stream the
    tokenizer does not have, and stops at those that there are no clips for; then what the others draw is what they
    would without them.

    Args:
        recipe: As it was read.
        count: Sentences of each entry.
        only: Names of entries; none: all.
        split: Of the store.

    Raises:
        UserError: The recipe, its store or its model cannot be read, or a name in `only` is no entry.
    """
    weights = {name: weight for name, weight in recipe.mixture.items() if weight}
    for name in only:
        if name not in weights:
            raise UserError(
                f"the mixture has no entry {shown(name)}{nearest(name, weights)}; it has {', '.join(weights)}"
            )
    for place in recipe.read_under("store"):
        if not os.path.isdir(place):
            raise UserError(
                f"{place}: no token store is there; build it with `uniaudio corpus store CORPUS --out {place}`, or name "
                "another with store=FOLDER"
            )
    store = open_stores(recipe.store)
    streams = [stream.name for stream in store.streams]
    reasons = {
        name: f"left out by training: {store.name} has no {stream} stream"
        for name, stream in absent_streams(weights, streams).items()
    }
    fitted, changes = fit_to_store(recipe)
    data = Data.load(fitted)
    watched = WatchedStore(data.store)
    stream = None
    while stream is None:
        left = {name: weight for name, weight in weights.items() if name not in reasons}
        if not left:
            raise UserError("; ".join(f"{name}: {why}" for name, why in reasons.items()))
        try:
            stream = sentence_stream(replace(fitted, mixture=left), watched, split)
        except NoClips as error:
            reasons[error.entry] = f"training would stop here: {error}"
    found = examples(stream, watched, data.layout, data.tokenizer, count, only)
    entries = []
    for name, weight in weights.items():
        if name in reasons:
            entries.append(Entry(name, weight, about(name), reason=reasons[name]))
        else:
            drawn, anchors = stream.shares[name]
            share = drawn / len(stream)
            entries.append(Entry(name, weight, about(name), share, anchors, found.get(name, ())))
    return Drawn(fitted, split, data, entries, changes)
