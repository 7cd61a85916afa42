"""Recipes over the tokens of another codec: what changes, what is said of it, and that nothing else ever does."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from auditory_sentences.corpora.read import read_corpora
from auditory_sentences.stream.mixing import SentenceStream
from auditory_sentences.token_store import build_store
from auditory_sentences.token_store.manifest import read_manifest, write_manifest
from codec import tokenizer as registry
from codec.io.errors import UserError
from codec.tokenizer import load_tokenizer
from tests.factories import stages
from tests.factories.evaluation import write_corpus
from tests.factories.store import tiny_store
from tests.factories.streams_tokenizer import StreamsTokenizer
from training.lm.another_codec import fit_to_store
from training.lm.recipe import LanguageModelRecipe
from training.recipe import load_recipe

GOLDEN = {  # recipe -> hash of its sentences over the tiny store, and digest of some; made before codecs could differ
    "starter/stage1": ("bb94c23192370a35", "839cfd550e1320a2"),
    "starter/stage2": ("54b105661405ebb3", "5edd884453b72f1c"),
    "starter/stage3": ("cb1690ad6fb5ee43", "319cae0060cc117e"),
    "starter/stage4": ("fdbf22ee9d339b29", "744be1385a500101"),
}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    place = ("tests.factories.streams_tokenizer", "StreamsTokenizer")
    monkeypatch.setitem(registry.TOKENIZERS, "streams", place)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """FOLDER/codec, of one stream, and FOLDER/tokens made with it; FOLDER/two of the starter's codec."""
    folder = tmp_path_factory.mktemp("another")
    codec = StreamsTokenizer()
    codec.save_pretrained(folder / "codec")
    clips = list(read_corpora([write_corpus(folder / "corpus", train=2, test=1)]))
    build_store(clips, codec, folder / "tokens", tokenizer_source=folder / "codec")
    build_store(clips, codec, folder / "unsaid")
    starter = load_tokenizer(registry.AudioTokenizer.folder_of("starter/codec"))
    for name in ("two", "two unsaid"):
        stages.write_store(folder / name, starter.fingerprint)
    write_manifest(folder / "two", replace(read_manifest(folder / "two"), tokenizer="starter/codec"))
    return folder


def shipped(name: str, store: Path, **more) -> LanguageModelRecipe:
    return replace(load_recipe(name, [f"store={store}"]), **more)


@pytest.mark.parametrize("name", [*GOLDEN, "starter/longer", "starter/own", "full/stage1", "full/stage4"])
def test_nothing_changes_over_the_codec_that_a_recipe_was_written_for(folder, name):
    """Whether its store says where that lies, or was built before stores did."""
    for store in ("two", "two unsaid"):
        recipe = shipped(name, folder / store)
        if store == "two" and recipe.audio_tokenizer:
            recipe = replace(recipe, audio_tokenizer="starter/codec")  # runs/full/codec is not there to be read
        fitted, changes = fit_to_store(recipe)
        assert fitted is recipe and changes == ()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_sentences(name):
    """A change here changes the data of the recipes that are shipped."""
    recipe = load_recipe(name)
    stream = SentenceStream(tiny_store(), recipe.mixture, recipe.seed, max_rows=recipe.context)
    total = hashlib.sha256()
    for sentence, hidden in (stream[epoch, i] for epoch in (0, 3) for i in range(40)):
        total.update(repr((sentence.name, hidden)).encode())
        for segment in sentence.segments:
            total.update(repr((segment.role, segment.is_target)).encode())
            if segment.is_text:
                total.update(segment.text.encode())
            else:
                for ids in segment.tokens.streams.values():
                    total.update(ids.numpy().tobytes())
    assert (stream.hash, total.hexdigest()[:16]) == GOLDEN[name]


def test_a_new_model_is_made_for_the_codec_of_its_store(folder):
    fitted, changes = fit_to_store(shipped("starter/stage1", folder / "tokens"))
    assert (fitted.audio_tokenizer, fitted.audio_llm) == (str(folder / "codec"), "")
    assert fitted.loss.streams == (0.25, 0.25, 0.25, 0.125)
    tokenizer, audio_llm, loss = changes
    assert tokenizer.startswith("audio_tokenizer: ") and "in place of starter/codec" in tokenizer
    assert audio_llm.startswith("audio_llm: left out") and loss.startswith("loss.streams: 0.25, 0.25, 0.25, 0.125")
    assert fit_to_store(fitted) == (fitted, ())
    bare, said = fit_to_store(shipped("starter/stage1", folder / "tokens", audio_tokenizer="", audio_llm=""))
    assert bare.audio_tokenizer == fitted.audio_tokenizer and "in place" not in said[0]


def test_an_audio_llm_that_lies_beside_the_codec_is_taken(folder, tmp_path):
    codec = StreamsTokenizer()
    codec.save_pretrained(tmp_path / "codec")
    (tmp_path / "codec/audio_llm.safetensors").write_bytes(b"")
    clips = list(read_corpora([folder / "corpus"]))
    build_store(clips, codec, tmp_path / "tokens", tokenizer_source=tmp_path / "codec")
    fitted, changes = fit_to_store(shipped("starter/stage1", tmp_path / "tokens"))
    assert fitted.audio_llm == str(tmp_path / "codec/audio_llm.safetensors")
    assert "in place of starter/codec/audio_llm.safetensors" in changes[1]


def test_the_codec_may_have_moved(folder, tmp_path):
    StreamsTokenizer().save_pretrained(tmp_path / "codec")
    recipe = shipped("starter/stage1", folder / "tokens", audio_tokenizer=str(tmp_path / "codec"))
    fitted, changes = fit_to_store(recipe)
    assert fitted.audio_tokenizer == recipe.audio_tokenizer and not any("audio_tokenizer" in one for one in changes)
    with pytest.raises(UserError, match=r"unsaid: does not say where the tokenizer lies.*audio_tokenizer=\.\.\."):
        fit_to_store(shipped("starter/stage1", folder / "unsaid", audio_tokenizer=""))
    clips = list(read_corpora([folder / "corpus"]))
    build_store(clips, StreamsTokenizer(), tmp_path / "tokens", tokenizer_source=tmp_path / "codec")
    StreamsTokenizer(seed=1).save_pretrained(tmp_path / "codec")
    with pytest.raises(UserError, match=r"where that lay, now holds \w+; say where it is with audio_tokenizer"):
        fit_to_store(shipped("starter/stage1", tmp_path / "tokens"))
    (tmp_path / "codec").rename(tmp_path / "gone")
    with pytest.raises(UserError, match="tokens: the tokenizer that made it: .*codec"):
        fit_to_store(shipped("starter/stage1", tmp_path / "tokens"))


def test_entries_about_absent_streams_are_left_out_and_named(folder):
    recipe = shipped("starter/stage3", folder / "tokens")
    fitted, changes = fit_to_store(recipe)
    assert fitted.mixture == {n: w for n, w in recipe.mixture.items() if "descriptive" not in n}
    (mixture,) = (change for change in changes if change.startswith("mixture: "))
    assert all(name in mixture for name in set(recipe.mixture) - set(fitted.mixture))
    assert mixture.endswith("has no descriptive stream") and "share goes to the others" in mixture
    (sampling,) = (change for change in changes if change.startswith("sampling"))
    assert "sampling.all.stream_guidance.structural: left out" in sampling
    everywhere = {key: value for key, value in recipe.sampling["all"].items() if key != "stream_guidance"}
    assert fitted.sampling == recipe.sampling | {"all": everywhere}


def test_what_cannot_be_served_is_an_error(folder):
    store = folder / "tokens"
    with pytest.raises(UserError, match="nothing is left to train, since .*tokens has no descriptive stream"):
        fit_to_store(shipped("starter/stage3", store, mixture={"tts:descriptive": 1.0, "asr": 0.0}))
    with pytest.raises(UserError, match="'tts:descriptiv' is about a stream 'descriptiv'.*did you mean 'descriptive'"):
        fit_to_store(shipped("starter/stage3", store, mixture={"tts:descriptiv": 1.0, "asr": 1.0}))
    with pytest.raises(UserError, match="sampling.tts.stream_guidance is about a stream 'structual'"):
        fit_to_store(shipped("starter/stage3", store, sampling={"tts": {"stream_guidance": {"structual": 1.0}}}))


def test_weights_of_the_codebooks_that_somebody_chose_stay(folder):
    recipe = shipped("starter/stage2", folder / "tokens")
    own = replace(recipe, loss=replace(recipe.loss, streams=(1.0, 0.5)))
    assert fit_to_store(own).recipe.loss == own.loss  # and StartingPoint says that they are too few
