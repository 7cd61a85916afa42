"""The processor: messages become the rows of the same auditory sentence, and what was generated comes back."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

from auditory_sentences.sentence import AuditorySentence, Segment, to_rows
from codec.audio.waveform import write_audio
from codec.io.errors import UserError
from lm.generation.settings import GenerationSettings
from lm.rows import collate
from tests.factories.codec import noise
from tests.factories.uniaudio import tiny_codec, tiny_uniaudio
from uniaudio.model import UniAudio
from uniaudio.processor import UniAudioProcessor


@pytest.fixture(scope="module")
def uniaudio():
    return tiny_uniaudio()


@pytest.fixture(scope="module")
def processor(uniaudio):
    return uniaudio.processor


@pytest.fixture(scope="module")
def clip(processor):
    """A waveform and its tokens."""
    wave = 0.5 * noise(9_600, seed=1)
    return wave, processor.tokens_of(wave)


def say(text, role=None):
    return {"type": "text", "text": text} | ({"role": role} if role else {})


def hear(audio, role=None):
    return {"type": "audio", "audio": audio} | ({"role": role} if role else {})


def conversation(wave):
    """Two turns: a transcription, then speech in the same voice."""
    return [
        {"role": "user", "content": [say("Write what is said."), hear(wave)]},
        {"role": "assistant", "content": [say("the red bird", "transcription")]},
        {"role": "user", "content": [say("Say it so."), hear(wave, "audio_prompt"), say("low", "caption")]},
        {"role": "assistant", "content": [hear(wave), say("there it is")]},
    ]


def segments(tokens):
    """The segments of the conversation, in the project's own words."""
    return (
        Segment("prompt", "Write what is said."),
        Segment("audio", tokens),
        Segment("transcription", "the red bird", is_target=True),
        Segment("prompt", "Say it so."),
        Segment("audio_prompt", tokens),
        Segment("caption", "low"),
        Segment("audio", tokens, is_target=True),
        Segment("text", "there it is", is_target=True),
    )


def test_rows_are_those_of_the_sentence(processor, clip):
    wave, tokens = clip
    made = processor.apply_chat_template(conversation(wave), output_labels=True)
    rows = to_rows(AuditorySentence(segments(tokens)), processor.layout, processor.tokenizer)
    assert sorted(made) == ["ids", "loss", "mask"]
    assert torch.equal(made["ids"], rows.ids[None]) and torch.equal(made["mask"], rows.mask[None])
    assert torch.equal(made["loss"], rows.loss[None]) and 0 < rows.loss.sum() < len(rows)
    assert sorted(processor.apply_chat_template(conversation(wave))) == ["ids", "mask"]


def test_the_loss_is_that_of_training(uniaudio, clip):
    """Dense with labels, and packed as training packs the same two sentences."""
    wave, tokens = clip
    processor, model = uniaudio.processor, uniaudio.model
    short = [{"role": "user", "content": "Speak."}, {"role": "assistant", "content": "hello"}]
    batch = processor.apply_chat_template([conversation(wave), short], output_labels=True)
    sentences = [
        AuditorySentence(segments(tokens)),
        AuditorySentence((Segment("prompt", "Speak."), Segment("text", "hello", is_target=True))),
    ]
    parts = [to_rows(sentence, processor.layout, processor.tokenizer) for sentence in sentences]
    positions = torch.cat([torch.arange(len(part)) for part in parts])
    ids, mask, loss = (torch.cat([getattr(part, name) for part in parts])[None] for name in ("ids", "mask", "loss"))
    ours, trained = model(**batch), model(ids, mask, loss, positions[None])
    assert ours.text_count == trained.text_count and ours.audio_count == trained.audio_count
    torch.testing.assert_close(ours.loss, trained.loss)
    torch.testing.assert_close(ours.per_stream_loss, trained.per_stream_loss)
    ours.loss.backward()
    assert model.lm_head.weight.grad.abs().sum() > 0 and model.audio_head.grad.abs().sum() > 0
    model.zero_grad()


def test_a_batch_is_padded_on_the_right(processor, clip):
    short = [{"role": "system", "content": "Speak."}]
    both = processor.apply_chat_template([conversation(clip[0]), short])
    alone = processor.apply_chat_template(short)
    length = alone["ids"].shape[1]
    assert torch.equal(both["ids"][1, :length], alone["ids"][0]) and not both["mask"][1, length:].any()
    sentences = [processor.sentence(one) for one in (conversation(clip[0]), short)]
    expected = collate([to_rows(s, processor.layout, processor.tokenizer) for s in sentences], processor.layout)
    assert torch.equal(both["ids"], expected.ids) and torch.equal(both["mask"], expected.mask)


@pytest.mark.parametrize("role", ["text", "transcription"])
def test_generated_text_is_the_completion(uniaudio, clip, role):
    processor, settings = uniaudio.processor, GenerationSettings(max_rows=6, temperature=1.0, top_k=20)
    asked = [conversation(clip[0])[:1], [{"role": "user", "content": "Speak."}]]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True, response_role=role)
    options = {"max_new_tokens": 6, "temperature": 1.0, "top_k": 20, "do_sample": True, "seed": [3, 4]}
    ours = processor.batch_decode(uniaudio.model.generate(**prompt, **options))
    theirs = uniaudio.complete([processor.sentence(one) for one in asked], role, settings, [3, 4])
    assert ours == [answer.segment.content for answer in theirs] and any(ours)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_generated_audio_is_the_completion_and_can_be_heard(uniaudio, clip, guidance):
    processor, settings = uniaudio.processor, GenerationSettings(40, 0.9, 1000, guidance)
    asked = [[{"role": "user", "content": text}] for text in ("Speak.", "a slow piano melody")]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True, response_role="audio")
    options = {"max_new_tokens": 40, "top_k": 1000, "guidance_scale": guidance, "seed": [3, 4]}
    made = [processor.audio_tokens(one) for one in uniaudio.model.generate(**prompt, **options)]
    theirs = uniaudio.complete([processor.sentence(one) for one in asked], "audio", settings, [3, 4])
    for ours, answer in zip(made, theirs, strict=True):
        assert (ours is None) == (answer.segment is None)
        assert ours is None or ours.equal(answer.segment.content)
    heard = [tokens for tokens in made if tokens is not None]
    for tokens, wave in zip(heard, processor.waveforms(heard, steps=1), strict=True):
        assert wave.shape == (tokens.num_samples,)


def test_audio_may_be_a_file_an_array_or_tokens(processor, clip, tmp_path):
    wave, tokens = clip
    write_audio(tmp_path / "clip.wav", wave)
    heard = processor.tokens_of(tmp_path / "clip.wav")  # 16 bits
    for audio, expected in ((str(tmp_path / "clip.wav"), heard), (np.asarray(wave), tokens), (tokens, tokens)):
        made = processor.apply_chat_template([{"role": "user", "content": [hear(audio)]}])
        rows = to_rows(AuditorySentence((Segment("audio", expected),)), processor.layout, processor.tokenizer)
        assert torch.equal(made["ids"][0], rows.ids)


def test_arrays_of_any_type_of_number_give_the_same_ids(processor, clip, tmp_path):
    sixteen = (clip[0].clamp(-1, 1) * 32_767).to(torch.int16)
    expected = processor.tokens_of(sixteen / 32_768)
    write_audio(tmp_path / "clip.wav", sixteen / 32_768)
    for same in (sixteen, sixteen.numpy(), sixteen.int() * 65_536, sixteen.numpy() / 32_768.0, tmp_path / "clip.wav"):
        assert processor.tokens_of(same).equal(expected)
        made = processor.apply_chat_template([{"role": "user", "content": [hear(same)]}])
        rows = to_rows(AuditorySentence((Segment("audio", expected),)), processor.layout, processor.tokenizer)
        assert torch.equal(made["ids"][0], rows.ids)
    with pytest.raises(UserError, match="divide"):
        processor.tokens_of(sixteen.float())
    with pytest.raises(ValueError, match="mono"):
        processor.tokens_of(np.stack([sixteen, sixteen]))


def test_round_trip(uniaudio, clip, tmp_path):
    expected = uniaudio.processor.apply_chat_template(conversation(clip[0]))
    uniaudio.processor.save_pretrained(tmp_path)
    for loaded in (UniAudioProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, UniAudioProcessor) and loaded.layout == uniaudio.layout
        assert torch.equal(loaded.apply_chat_template(conversation(clip[0]))["ids"], expected["ids"])
    uniaudio.model.save_pretrained(tmp_path)
    again = UniAudio.from_pretrained(tmp_path)  # model and processor in one folder are a model folder
    assert again.processor.layout == uniaudio.layout
    (tmp_path / "processor_config.json").unlink()  # as the folders that training writes
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), UniAudioProcessor)
    assert AutoModel.from_pretrained(tmp_path).config.layout == uniaudio.layout


def test_folders_and_parts_that_do_not_belong_together(uniaudio, tmp_path):
    with pytest.raises(UserError, match="no vocabulary.json"):
        UniAudioProcessor.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        UniAudioProcessor.from_pretrained(tmp_path / "nothing")
    with pytest.raises(TypeError, match="takes no revision"):
        UniAudioProcessor.from_pretrained(tmp_path, revision="x")
    with pytest.raises(UserError, match="use the audio tokenizer that it was trained with"):
        UniAudioProcessor(uniaudio.text_tokenizer, tiny_codec(seed=1), uniaudio.layout)
    other = uniaudio.processor.tokens_of(noise(9_600, seed=1))
    other = type(other)(other.streams, other.num_samples, "another")
    with pytest.raises(UserError, match="made by the tokenizer another"):
        uniaudio.processor.apply_chat_template([{"role": "user", "content": [hear(other)]}])


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "at least one message"),
        ([{"role": "user"}], "message 0 must have a 'role' and a 'content'"),
        ([{"role": "robot", "content": "x"}], "message 0: the role 'robot' must be one of system, user, assistant"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": []}], "message 1: the content must be"),
        ([{"role": "user", "content": ["x"]}], "message 0, part 0 must have the type 'text' or 'audio', not None"),
        ([{"role": "user", "content": [say("x"), {"type": "image"}]}], "part 1 must have the type .*, not 'image'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "part 0 has no 'text'"),
        ([{"role": "user", "content": [say("x") | {"txt": "y"}]}], "has the unknown key 'txt'"),
        ([{"role": "user", "content": [say("x", "audio")]}], "'audio' is no role of text; it may be prompt, text"),
        ([{"role": "user", "content": [say(3)]}], "its text must be a string, not int"),
        ([{"role": "user", "content": [hear(3)]}], "its audio must be a file, a waveform or AudioTokens, not int"),
        ([{"role": "user", "content": [hear(torch.zeros(2, 100))]}], "mono"),
    ],
)
def test_messages_that_cannot_be_read(processor, messages, words):
    with pytest.raises(ValueError, match=words):
        processor.apply_chat_template(messages)


def test_requests_that_contradict_themselves(processor, tmp_path):
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(ValueError, match="add_generation_prompt or output_labels"):
        processor.apply_chat_template(messages, add_generation_prompt=True, output_labels=True)
    with pytest.raises(ValueError, match="'prompt' must be one of text, transcription, lyric, caption, audio"):
        processor.apply_chat_template(messages, add_generation_prompt=True, response_role="prompt")
    with pytest.raises(UserError, match="nothing.wav"):
        processor.apply_chat_template([{"role": "user", "content": [hear(str(tmp_path / "nothing.wav"))]}])
