"""A language-model recipe over the tokens of another codec than it was written for: what it asks of that one changes.

A recipe names a codec, tasks about single streams, settings of single streams and a weight for each codebook. Its store
decides all of these: a model can read and write no tokens but those. So `store=` is all that a person has to give, and
what is trained is what `recipe.yaml` in the run's folder says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from auditory_sentences.stream.mixing import absent_streams
from auditory_sentences.token_store import JoinedStores, TokenStore, open_stores
from codec.io.errors import UserError
from codec.tokenizer import AudioTokenizer, load_tokenizer
from lm.generation.settings import without_absent_streams
from training.engine.checkpoint import model_or_id
from training.lm.audio_projector import AUDIO_LLM_FILE, find_audio_llm
from training.lm.recipe import LanguageModelRecipe
from training.lm.stages import LossRecipe, default_streams

Store = TokenStore | JoinedStores


class Fitted(NamedTuple):
    """A recipe that its store can serve."""

    # the recipe, the same where nothing had to change
    recipe: LanguageModelRecipe
    # what was changed and why, a sentence for people each
    changes: tuple[str, ...]


def fit_to_store(recipe: LanguageModelRecipe) -> Fitted:
    """The recipe with the codec of its store, without what that codec does not have.

    Raises:
        UserError: The store cannot be read, nothing of the mixture is left, a stream is misspelt, or the codec is not
            where the store says.
    """
    store = open_stores(recipe.store)
    changes: list[str] = []
    for fit in (_tokenizer, _mixture, _sampling, _loss):
        recipe, said = fit(recipe, store)
        changes += said
    return Fitted(recipe, tuple(changes))


def _tokenizer(recipe: LanguageModelRecipe, store: Store) -> tuple[LanguageModelRecipe, list[str]]:
    """A new model is made for the codec that made the store."""
    named, stored = recipe.audio_tokenizer, store.tokenizer
    if recipe.init or (named and stored in ("", named)):
        return recipe, []
    if not stored:
        raise UserError(
            f"{store.name}: does not say where the tokenizer lies that made it; name it with audio_tokenizer=..., or "
            "run `uniaudio corpus store` again with the same corpora and codec, which writes it down"
        )
    if named and _load(named, "audio_tokenizer").fingerprint == store.fingerprint:
        return recipe, []
    found = _load(stored, f"{store.name}: the tokenizer that made it").fingerprint
    if found != store.fingerprint:
        raise UserError(
            f"{store.name}: made with the tokenizer {store.fingerprint}, and {stored}, where that lay, now holds "
            f"{found}; say where it is with audio_tokenizer=..."
        )
    place = f", in place of {named}" if named else ""
    changes = [f"audio_tokenizer: {stored}, the codec that made {store.name}{place}"]
    if recipe.audio_llm:
        beside = Path(stored) / AUDIO_LLM_FILE
        if find_audio_llm(beside).exists():
            changes.append(f"audio_llm: {beside}, in place of {recipe.audio_llm}")
            return replace(recipe, audio_tokenizer=stored, audio_llm=str(beside)), changes
        changes.append(
            f"audio_llm: left out, since {recipe.audio_llm} was trained with another codec and there is none beside "
            f"{stored}; the audio embeddings start from its codebooks alone"
        )
    return replace(recipe, audio_tokenizer=stored, audio_llm=""), changes


def _load(source: str, what: str) -> AudioTokenizer:
    try:
        return load_tokenizer(model_or_id(source))
    except UserError as error:
        raise UserError(f"{what}: {error}") from error


def _mixture(recipe: LanguageModelRecipe, store: Store) -> tuple[LanguageModelRecipe, list[str]]:
    """Without the entries about streams that the tokens do not have."""
    wanted = {name: weight for name, weight in recipe.mixture.items() if weight}
    absent = absent_streams(wanted, _names(store))
    if not absent:
        return recipe, []
    lacking = f"{store.name} has no {_and(dict.fromkeys(absent.values()))} stream"
    if len(absent) == len(wanted):
        raise UserError(f"mixture: {_and(absent)}: nothing is left to train, since {lacking}; name other tasks")
    kept = {name: weight for name, weight in recipe.mixture.items() if name not in absent}
    changes = f"mixture: without {_and(absent)}, whose share goes to the others, since {lacking}"
    return replace(recipe, mixture=kept), [changes]


def _sampling(recipe: LanguageModelRecipe, store: Store) -> tuple[LanguageModelRecipe, list[str]]:
    """Without settings of streams that the tokens do not have."""
    sampling, left_out = {}, {}
    for task, settings in recipe.sampling.items():
        sampling[task], absent = without_absent_streams(settings, _names(store), f"sampling.{task}")
        left_out |= {f"sampling.{task}.{key}": stream for key, stream in absent.items()}
    if not left_out:
        return recipe, []
    lacking = f"{store.name} has no {_and(dict.fromkeys(left_out.values()))} stream"
    return replace(recipe, sampling=sampling), [f"{_and(left_out)}: left out, since {lacking}"]


def _loss(recipe: LanguageModelRecipe, store: Store) -> tuple[LanguageModelRecipe, list[str]]:
    """A weight for each codebook, where the recipe has the usual ones; others are a person's own."""
    codebooks = max(stream.codebooks for stream in store.streams)
    usual = default_streams(codebooks)
    if recipe.loss.streams != LossRecipe.streams or recipe.loss.streams == usual:
        return recipe, []
    weights = ", ".join(f"{weight:g}" for weight in usual)
    changes = f"loss.streams: {weights}, the usual weights of {codebooks} codebooks, as many as {store.name} has"
    return replace(recipe, loss=replace(recipe.loss, streams=usual)), [changes]


def _names(store: Store) -> list[str]:
    return [stream.name for stream in store.streams]


def _and(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
