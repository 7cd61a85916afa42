"""What a language-model recipe draws: its stream of sentences, and the first ones of each entry for people to see."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from auditory_sentences.stream.examples import Entry, LossWeights, WatchedStore, about, examples
from auditory_sentences.stream.mixing import NoClips, SentenceStream, absent_streams
from auditory_sentences.token_store import JoinedStores, TokenStore, open_stores
from codec.io.errors import UserError
from codec.io.strict import nearest
from codec.io.terminal import shown
from training.engine.checkpoint import resolve_model
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


class Drawn(NamedTuple):
    """What a recipe's mixture draws."""

    # with what its store made of it
    recipe: LanguageModelRecipe
    # of the store
    split: str
    # tokenizers and store
    data: Data
    # that store, as the sentences were drawn from it
    store: WatchedStore
    # in the recipe's order
    entries: Sequence[Entry]
    # what was changed in the recipe for its store, as training changes it
    changes: Sequence[str]

    @property
    def loss(self) -> LossWeights:
        """Of the stage."""
        loss = self.recipe.loss
        return LossWeights(loss.text, loss.audio if any(loss.streams) else 0.0)


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
                f"{place}: no token store is there; build it with `uniaudio corpus store CORPUS --out {place}`, or "
                "name another with store=FOLDER"
            )
    if recipe.init:
        try:
            resolve_model(recipe.init)
        except UserError as error:
            raise UserError(f"{error}; to see sentences, init may be any model of the same tokenizers") from None
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
    means = {
        name: sum(one.kept_rows(fitted.context) for one in drawn) / len(drawn) for name, drawn in found.items() if drawn
    }
    rows = {name: count * means[name] for name, (count, _) in stream.shares.items() if name in means}
    every_one = len(rows) == len(stream.shares) and sum(rows.values()) > 0
    entries = []
    for name, weight in weights.items():
        if name in reasons:
            entries.append(Entry(name, weight, about(name), reason=reasons[name]))
            continue
        drawn, anchors = stream.shares[name]
        share_of_rows = rows[name] / sum(rows.values()) if every_one else None
        entries.append(
            Entry(name, weight, about(name), drawn / len(stream), share_of_rows, anchors, found.get(name, ()))
        )
    shown_ones = [entry for entry in entries if not only or entry.name in only]
    return Drawn(fitted, split, data, watched, shown_ones, changes)
