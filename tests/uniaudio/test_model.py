"""The facade: what was trained through rows and packing is what comes back from requests."""

import shutil
from pathlib import Path

import pytest
import torch

from auditory_sentences.builders.tasks import build, request_of
from auditory_sentences.rng import KeyedRng
from auditory_sentences.sentence import AuditorySentence, Segment, to_rows
from codec.audio.waveform import load_audio, write_audio
from codec.io.errors import UserError
from lm.generation.settings import GenerationSettings
from lm.vocabulary import VocabularyLayout
from tests.factories.codec import noise, small_codec
from tests.factories.store import CODES, WORDS, random_tokens
from tests.factories.tokenizer import FakeTokenizer
from tests.factories.uniaudio import small_uniaudio, tiny_uniaudio
from tests.uniaudio.test_model_folder import refused
from uniaudio.model import UniAudio

GREEDY = GenerationSettings(max_rows=60, top_k=1)


def requests(store, bank, task):
    return [request_of(build(task, store[i], KeyedRng(i), bank)) for i in range(len(store))]


def ask(uniaudio, asked, settings=GREEDY):
    return uniaudio.complete([r.sentence for r in asked], [r.role for r in asked], settings, range(len(asked)))


def test_what_was_learned_is_said(trained, store, bank):
    """Training and requests share every row, or this would fail: packed in training, alone in generation."""
    asked = requests(store, bank, "asr")
    answers = ask(trained, asked)
    assert [answer.segment.content for answer in answers] == [r.reference for r in asked]
    assert {(answer.segment.role, answer.reason) for answer in answers} == {("transcription", "end")}


def test_what_was_learned_is_played(trained, store, bank):
    asked = requests(store, bank, "tts")
    answers = ask(trained, asked)
    assert all(answer.reason == "end" for answer in answers)
    exact = 0
    for r, answer in zip(asked, answers, strict=True):
        tokens = answer.segment.content
        assert tokens.fingerprint == trained.codec.fingerprint
        exact += torch.equal(tokens["structural"], r.reference["structural"])
    assert exact == len(store)


def test_what_was_learned_is_chosen(trained, untrained, store, bank):
    asked = requests(store, bank, "asr")
    options = [WORDS[: len(store)]] * len(asked)

    def right(uniaudio):
        scores = uniaudio.choose([r.sentence for r in asked], "transcription", options)
        best = [max(range(len(store)), key=row.__getitem__) for row in scores]
        return sum(WORDS[k] == r.reference for k, r in zip(best, asked, strict=True))

    assert right(trained) == len(store)
    assert right(untrained) < len(store)


def test_scores_are_log_probabilities_of_the_whole_answer(trained, store, bank):
    """The same number as the model's own loss gives, end of the answer included."""
    r = requests(store, bank, "asr")[0]
    ((score,),) = trained.choose([r.sentence], "transcription", [["five"]])
    whole = r.sentence.then(Segment("transcription", "five", is_target=True))
    rows = to_rows(whole, trained.layout, trained.text_tokenizer)
    with torch.no_grad():
        logits = trained.model(rows.ids[None], rows.mask[None]).text_logits[0].log_softmax(-1)
    words = slice(len(rows) - 2 - len(trained.text_tokenizer.encode("five")), len(rows) - 1)  # words and EOS
    by_hand = logits[words.start - 1 : words.stop - 1].gather(1, rows.ids[words, -1:]).sum()
    assert score == pytest.approx(by_hand.item(), abs=1e-4)


def test_mixed_requests_equal_single_ones(untrained, store, bank):
    """Text and audio asked for in one call, more than one batch of them; sampled."""
    settings = GenerationSettings(max_rows=14, temperature=1.0, top_k=5)
    both = zip(requests(store, bank, "asr"), requests(store, bank, "tts"), strict=True)
    asked = [r for pair in both for r in pair] * 6
    together = ask(untrained, asked, settings)
    for i in (0, 1, 21, 34, 35):
        (alone,) = untrained.complete([asked[i].sentence], asked[i].role, settings, [i])
        assert alone.reason == together[i].reason
        assert (alone.segment is None) == (together[i].segment is None)
        if alone.segment is not None:
            content = together[i].segment.content
            assert alone.segment.content == content if alone.segment.is_text else alone.segment.content.equal(content)
    assert {r.segment.is_text for r in together if r.segment} == {True, False}


def test_seeds_differ_and_repeat(untrained, store, bank):
    r = requests(store, bank, "asr")[0]
    settings = GenerationSettings(max_rows=10, temperature=1.0, top_k=None)
    said = [c.segment.content for c in untrained.complete([r.sentence] * 6, r.role, settings, [1, 2, 3, 1, 2, 3])]
    assert said[:3] == said[3:] and len(set(said)) == 3


def test_guidance_changes_audio_and_hides_all_that_is_given(untrained, store, bank):
    sentence = build("tts", store[0], KeyedRng(), bank)
    given = AuditorySentence(sentence.segments[:-1])
    learned = AuditorySentence(tuple(Segment(s.role, s.content, is_target=True) for s in given.segments))
    settings = GenerationSettings(max_rows=12, temperature=0.9, top_k=4, guidance=3.0)
    plain = untrained.complete([given], "audio", GenerationSettings(12, 0.9, 4), [0])[0]
    guided = untrained.complete([given], "audio", settings, [0])[0]
    assert untrained.complete([learned], "audio", settings, [0])[0].reason == guided.reason
    if plain.segment and guided.segment:
        assert not plain.segment.content.equal(guided.segment.content)


def test_audio_cut_short_has_no_segment(untrained, store, bank):
    r = requests(store, bank, "tts")[0]
    (answer,) = untrained.complete([r.sentence], "audio", GenerationSettings(max_rows=2), [0])
    assert answer.segment is None and answer.reason == "max_rows"


def test_waveforms_in_and_out(untrained, tmp_path):
    wave = torch.sin(torch.arange(24_000) / 10)
    tokens = untrained.tokens_of(wave)
    assert tokens.fingerprint == untrained.codec.fingerprint and tokens.num_samples == 24_000
    made = untrained.waveform(tokens)
    assert made.shape == (24_000,)
    many = untrained.waveforms([tokens] * 20, seeds=range(20))
    assert [len(w) for w in many] == [24_000] * 20
    with pytest.raises(ValueError, match="mono"):
        untrained.tokens_of(wave[None])
    missing = tmp_path / "no.wav"
    with pytest.raises(UserError, match="no.wav"):
        untrained.tokens_of(missing)


@pytest.mark.parametrize("role", ["prompt", "structural", "descriptive", "audio_prompt", "nonsense"])
def test_roles_that_cannot_be_asked_for(untrained, store, bank, role):
    r = requests(store, bank, "asr")[0]
    with pytest.raises(ValueError, match=f"completed with '{role}'"):
        untrained.complete([r.sentence], role, GREEDY, [0])


def test_a_task_that_it_was_not_trained_for_is_said_to_be_none(untrained, monkeypatch):
    assert untrained.trained_tasks == ()
    untrained.request("tts", text="one")
    monkeypatch.setattr(untrained.model.config, "tasks", ["few_shot:asr", "tts:descriptive", "segmented_audio"])
    assert untrained.trained_tasks == ("asr", "tts")
    untrained.request("tts", text="one")
    with pytest.warns(UserWarning, match="not trained for 'music_generation'; it was for asr, tts"):
        untrained.request("music_generation", caption="a song")


def test_counts_that_do_not_match(untrained, store, bank):
    r = requests(store, bank, "asr")[0]
    with pytest.raises(ValueError, match="2 sentences, 2 roles and 1 seeds"):
        untrained.complete([r.sentence] * 2, "text", GREEDY, [0])
    with pytest.raises(ValueError, match="1 sentences and 0 lists"):
        untrained.choose([r.sentence], "text", [])
    assert untrained.complete([], "text", GREEDY, []) == []


def test_a_sentence_that_is_too_long(untrained, codec):
    sentence = AuditorySentence((Segment("audio", random_tokens(24_000 * 20, 0, codec.fingerprint)),), "asr:long")
    for role in ("text", "audio"):
        with pytest.raises(UserError, match="'asr:long' takes 35.* rows, .* holds 200; use shorter audio"):
            untrained.complete([sentence], role, GREEDY, [0])
    with pytest.raises(UserError, match="'asr:long' takes"):
        untrained.choose([sentence], "text", [["a"]])


def test_audio_of_another_tokenizer(untrained):
    sentence = AuditorySentence((Segment("audio", random_tokens(24_000, 0, "another")),))
    with pytest.raises(UserError, match="another"):
        untrained.complete([sentence], "text", GREEDY, [0])


def test_saved_and_loaded_says_the_same(trained, saved, store, bank):
    loaded = UniAudio.from_pretrained(saved)
    names = {"config.json", "model.safetensors", "vocabulary.json", "text_tokenizer", "audio_tokenizer"}
    assert names <= {path.name for path in saved.iterdir()}
    asked = requests(store, bank, "asr")
    assert [a.segment.content for a in ask(loaded, asked)] == [a.segment.content for a in ask(trained, asked)]


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "text_tokenizer", "audio_tokenizer"])
def test_an_incomplete_folder_is_named(saved, name):
    path = saved / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=f"has no {name}"):
        UniAudio.from_pretrained(saved)


def test_tokenizers_of_another_model_are_refused(saved, trained):
    FakeTokenizer(shift=1).save_pretrained(saved / "audio_tokenizer")
    with pytest.raises(UserError, match="audio_tokenizer: the model reads the audio tokenizer .* but was given"):
        UniAudio.from_pretrained(saved)


def test_a_vocabulary_of_another_model_is_refused(saved, trained):
    other = VocabularyLayout.from_dict({**trained.layout.to_dict(), "descriptive_pad": CODES})
    other.save(saved / "vocabulary.json")
    with pytest.raises(UserError, match="descriptive_pad"):
        UniAudio.from_pretrained(saved)


def test_shards_load_and_give_way_to_one_file_again(sharded, trained, store, bank):
    asked = requests(store, bank, "asr")
    loaded = UniAudio.from_pretrained(sharded)
    assert [a.segment.content for a in ask(loaded, asked)] == [a.segment.content for a in ask(trained, asked)]
    trained.save_pretrained(sharded)
    assert [path.name for path in sharded.glob("model*")] == ["model.safetensors"]


@pytest.mark.parametrize("name", ["audio_tokenizer/config.json", "text_tokenizer/sentencepiece.model"])
def test_damaged_tokenizers_are_named(saved, name):
    (saved / name).write_bytes(b"damaged")
    refused(saved, name)


def test_files_for_the_library_alone_do_no_harm(saved, trained):
    (saved / "processor_config.json").write_text("{")
    assert UniAudio.from_pretrained(saved).layout == trained.layout


def test_a_damaged_generation_config_is_named(saved):
    (saved / "generation_config.json").write_text("{")
    refused(saved, "generation_config.json")


def test_a_save_that_breaks_off_leaves_one_model_or_none(saved, trained, codec, store, monkeypatch):
    other = small_uniaudio(codec, seed=1)
    before = (saved / "model.safetensors").read_bytes()
    for step in (0, 3, 9, 14, 18):
        calls = iter(range(1000))
        real = Path.replace

        def failing(*arguments, real=real, calls=calls, step=step):
            if next(calls) == step:
                raise OSError(28, "No space left on device", str(arguments[0]))
            return real(*arguments)

        monkeypatch.setattr(Path, "replace", failing)
        try:
            other.save_pretrained(saved)
        except UserError as error:
            assert "No space left" in str(error)
        monkeypatch.setattr(Path, "replace", real)
        assert not list(saved.rglob(".tmp-*"))
        try:
            assert UniAudio.from_pretrained(saved).model is not None
            assert (saved / "model.safetensors").read_bytes() == before or step == 18
        except UserError as error:
            assert "has no config.json" in str(error)
        trained.save_pretrained(saved)
        assert (saved / "model.safetensors").read_bytes() == before  # the same model, the same bytes


@pytest.mark.parametrize("source", ["nowhere", "/no/such/folder", "./nothing"])
def test_no_such_folder(source):
    with pytest.raises(UserError, match="no such folder"):
        UniAudio.from_pretrained(source)


def test_with_the_real_codec_from_file_to_file(store, tmp_path):
    """A sound file in, a sound file out, through a saved folder and the project's own codec."""
    codec = small_codec()
    made = small_uniaudio(codec, codes=64)
    made.save_pretrained(tmp_path / "model")
    uniaudio = UniAudio.from_pretrained(tmp_path / "model")
    write_audio(tmp_path / "in.wav", noise(30_000) / 2)
    tokens = uniaudio.tokens_of(tmp_path / "in.wav")
    assert tokens.num_samples == 30_000 and tokens.equal(made.tokens_of(tmp_path / "in.wav"))
    sentence = AuditorySentence((Segment("audio", tokens), Segment("prompt", "again")))
    settings = GenerationSettings(max_rows=100, top_k=None)
    answers, before = (each.complete([sentence] * 6, "audio", settings, range(6)) for each in (uniaudio, made))
    assert [answer.reason for answer in answers] == [answer.reason for answer in before]
    place = next(i for i, answer in enumerate(answers) if answer.segment)  # random weights do not always get that far
    answer = answers[place]
    assert answer.segment.content.equal(before[place].segment.content)
    wave = uniaudio.waveform(answer.segment.content, steps=2)
    assert wave.shape == (answer.segment.content.num_samples,) and wave.isfinite().all()
    together = uniaudio.waveforms([tokens, answer.segment.content], steps=2, seeds=[5, 0])
    assert torch.equal(together[1], wave)
    write_audio(tmp_path / "out.wav", wave)
    assert len(load_audio(tmp_path / "out.wav")) == len(wave)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_stream_is_the_completion_while_it_is_being_made(guidance):
    model, sentence = tiny_uniaudio(), AuditorySentence((Segment("transcription", "three seven one"),))
    settings = GenerationSettings(max_rows=200, guidance=guidance)
    made = model.complete([sentence], "audio", settings, [0])[0]
    stream = model.stream(sentence, settings, seed=0, steps=1)
    assert stream.completion is None
    pieces, early = [], 0
    for piece in stream:
        pieces.append(piece)
        early += stream.completion is None
    assert stream.completion.segment.content.equal(made.segment.content) and stream.completion.reason == made.reason
    whole = model.codec.decode([made.segment.content], steps=1, seed=0, first_window=model.codec.low_latency_window)[0]
    heard = torch.cat(pieces)
    assert early == len(pieces) >= 2 and heard.shape == whole.shape
    assert (heard - whole).square().mean() < 1e-3 * whole.square().mean()  # a phase search enlarges rounding


def test_a_stream_cut_off_before_there_is_sound_has_no_piece():
    model, sentence = tiny_uniaudio(), AuditorySentence((Segment("transcription", "three seven one"),))
    stream = model.stream(sentence, GenerationSettings(max_rows=2), seed=0)
    assert list(stream) == [] and stream.completion.segment is None and stream.completion.reason == "max_rows"
    with pytest.raises(UserError, match="rows"):
        model.stream(AuditorySentence((Segment("transcription", "seven " * 900),)), GREEDY, seed=0)


def test_a_codec_that_cannot_stream_says_so(untrained):
    with pytest.raises(UserError, match="'fake' decodes whole clips only"):
        untrained.stream(AuditorySentence((Segment("transcription", "red"),)), GREEDY, seed=0)
