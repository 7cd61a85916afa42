"""Streams of any number, and both tokenizers of one stream: sound, tokens, store, rows, loss, generation and back."""

from __future__ import annotations

import json

import pytest
import torch

from auditory_sentences.corpora.read import read_corpora
from auditory_sentences.sentence import AuditorySentence, Segment, to_rows
from auditory_sentences.stream.mixing import SentenceStream
from auditory_sentences.stream.packing import Packing
from auditory_sentences.token_store import TokenStore, build_store
from codec import tokenizer as registry
from codec.audio.waveform import write_audio
from codec.io.errors import UserError
from codec.streams import StreamSpec
from lm.config import UniAudioConfig
from lm.generation.generate import stream_audio
from lm.generation.settings import GenerationSettings
from lm.model import UniAudioForConditionalGeneration
from lm.text_tokenizer import SentencePieceTokenizer
from lm.vocabulary import VocabularyLayout
from tests.factories.codec import noise
from tests.factories.language_model import shape
from tests.factories.one_stream.almtokenizer import small_almtokenizer
from tests.factories.one_stream.xcodec import small_xcodec
from tests.factories.streams_tokenizer import StreamsTokenizer
from uniaudio.model import UniAudio

SPECS = (
    StreamSpec("words", 3.125, 2, 16),
    StreamSpec("phones", 12.5, 1, 32),
    StreamSpec("sound", 25.0, 6, 24),
    StreamSpec("detail", 50.0, 4, 8, extra_frame=False),
)


MADE = {
    **{f"{n} streams": lambda n=n: StreamsTokenizer(SPECS[-n:], 16_000) for n in (1, 2, 3, 4)},
    "X-Codec": small_xcodec,
    "ALMTokenizer": lambda: small_almtokenizer().with_window(7),  # 75 / 7 frames a second
}


@pytest.fixture(scope="module", params=MADE)
def tokenizer(request):
    return MADE[request.param]()


@pytest.fixture(scope="module")
def store(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    lines = []
    for i, word in enumerate(("one", "two", "three", "four", "five", "six")):
        write_audio(folder / f"{i}.wav", noise(9_000 + 4_000 * i, seed=i), tokenizer.sample_rate)
        lines.append({"id": f"c{i}", "path": f"{i}.wav", "kind": "speech", "split": "train", "text": word})
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return build_store(list(read_corpora([folder])), tokenizer, folder / "tokens")


@pytest.fixture(scope="module")
def model(tokenizer):
    text = SentencePieceTokenizer.train(["one two three four five six"] * 20, 300)
    layout = VocabularyLayout.build(text, tokenizer.streams, tokenizer.fingerprint, tokenizer.sample_rate)
    torch.manual_seed(0)
    sizes = {"vocab_size": layout.text_size, "max_position_embeddings": 512}
    config = UniAudioConfig(
        cross_modal=shape(32, 2, **sizes),
        depth=shape(16, 1),
        understanding_layers=1,
        generation_layers=1,
        vocabulary=layout.to_dict(),
        initializer_range=0.2,
    )
    return UniAudio(UniAudioForConditionalGeneration(config), text, tokenizer)


def test_a_store_holds_the_tokenizers_streams(tokenizer, store):
    assert (
        isinstance(store, TokenStore)
        and store.streams == tokenizer.streams
        and store.sample_rate == tokenizer.sample_rate
    )
    again = TokenStore(store.folder)
    assert again.streams == tokenizer.streams
    for i, clip in enumerate(again):
        fresh = tokenizer.encode(torch.as_tensor(noise(9_000 + 4_000 * i, seed=i))[None])[0]
        assert clip.tokens.num_samples == fresh.num_samples and list(clip.tokens.streams) == list(fresh.streams)
        tokenizer.require_own(clip.tokens)
    again.require_streams(tokenizer.streams)
    with pytest.raises(UserError, match="holds the streams"):
        again.require_streams(SPECS[:1])


def test_packed_rows_train_the_columns_that_a_stream_has(tokenizer, store, model):
    stream = SentenceStream(store, {"tts": 1, "asr": 1, "audio_only": 1}, 0, max_rows=256)
    batch = next(Packing(stream, model.layout, model.text_tokenizer, 256).read(batch_size=2))
    assert batch.ids.shape == (2, 256, model.layout.num_columns)
    widths = {s.codebooks for s in tokenizer.streams}
    active = batch.mask[..., :-1].sum(-1)
    assert set(active[active > 0].tolist()) == widths
    output = model.model.train()(batch.ids, batch.mask, batch.loss, batch.position_ids)
    assert output.loss.isfinite() and output.per_stream_loss.shape == (max(widths),)
    model.model.zero_grad()
    output.loss.backward()
    # A head learns nothing of frames that have no such codebook.
    for i, spec in enumerate(tokenizer.streams):
        here = slice(model.layout.offsets[i], model.layout.offsets[i] + spec.codes)
        heads = model.model.audio_head.grad
        targets = (batch.loss * batch.mask[..., 0]).sum() > 0
        assert targets and heads[: spec.codebooks, :, here].abs().sum() > 0
    model.model.eval()


def test_columns_that_a_stream_does_not_have_cost_nothing(model, tokenizer):
    narrow = min(tokenizer.streams, key=lambda spec: spec.codebooks)
    tokens = tokenizer.encode(noise(8_000)[None])[0]
    sentence = AuditorySentence((Segment("text", "one"), Segment(narrow.name, tokens, is_target=True)))
    rows = to_rows(sentence, model.layout, model.text_tokenizer)
    with torch.no_grad():
        losses = model.model(rows.ids[None], rows.mask[None], rows.loss[None]).per_stream_loss
    assert (losses[: narrow.codebooks] > 0).all() and (losses[narrow.codebooks :] == 0).all()
    ids = rows.ids[rows.mask[:, 0]]
    assert (ids[:, narrow.codebooks : -1] == model.layout.pad(model.layout.index(narrow.name))).all()


def test_generated_audio_is_decodable_and_streams_as_it_is_made(model, tokenizer):
    asked = model.request("tts", text="two")
    settings = GenerationSettings(400, 1.0, 8, max_seconds=0.5)
    first, again = (model.complete([asked.sentence], "audio", settings, [5])[0] for _ in range(2))
    assert first.segment is not None and first.segment.content.equal(again.segment.content)
    tokens = first.segment.content
    tokenizer.require_own(tokens)
    limits = model.layout.frames_in(0.5)
    assert all(ids.shape[1] <= most for ids, most in zip(tokens.streams.values(), limits, strict=True))
    rows = [model._rows(asked.sentence)]
    frames: dict[str, list] = {spec.name: [] for spec in tokenizer.streams}
    for frame in stream_audio(model.model, rows, settings, [5]):
        frames[frame.stream].append(frame.codes)
    last = tokenizer.streams[-1].name
    assert frames[last] == tokens[last].T.tolist()
    heard = torch.cat(list(model.stream(asked.sentence, settings, 5)))
    torch.testing.assert_close(heard, model.waveform(tokens, seed=5), atol=1e-5, rtol=0)


def test_a_batch_and_other_guidance_for_each_stream(model, tokenizer):
    asked = [model.request("tts", text=word) for word in ("one", "two", "three")]
    names = [spec.name for spec in tokenizer.streams]
    settings = GenerationSettings(
        200, 1.0, 8, 2.0, {names[-1]: 0.5}, {name: 1.0 for name in names[1:]}, max_seconds=0.4
    )
    sentences = [one.sentence for one in asked]
    together = model.complete(sentences, "audio", settings, [1, 2, 3])
    for i, sentence in enumerate(sentences):
        alone = model.complete([sentence], "audio", settings, [i + 1])[0]
        assert alone.segment.content.equal(together[i].segment.content)


def test_a_saved_model_comes_back(model, tokenizer, tmp_path, monkeypatch):
    place = ("tests.factories.streams_tokenizer", "StreamsTokenizer")
    monkeypatch.setitem(registry.TOKENIZERS, "streams", place)
    model.save_pretrained(tmp_path / "model")
    again = UniAudio.from_pretrained(tmp_path / "model")
    assert again.layout == model.layout and again.layout.hash == model.layout.hash
    settings = GenerationSettings(200, 1.0, 8, max_seconds=0.3)
    sentence = model.request("tts", text="six").sentence
    ours, theirs = (m.complete([sentence], "audio", settings, [9])[0] for m in (model, again))
    assert ours.segment.content.equal(theirs.segment.content)


def test_a_task_about_a_stream_that_is_not_there_is_named(store):
    with pytest.raises(UserError, match="about a stream 'descriptive'"):
        SentenceStream(store, {"tts:descriptive": 1}, 0, max_rows=256)
    name = store.streams[0].name
    sentence = SentenceStream(store, {f"tts:{name}": 1}, 0, max_rows=256, guidance_dropout=0.0)[0, 0].sentence
    assert sentence.segments[-1].role == name
