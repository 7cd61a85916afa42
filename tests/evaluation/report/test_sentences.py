"""The page of auditory sentences: whole, harmless, and it plays what there is to hear."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from auditory_sentences.sentence import AuditorySentence, Segment
from auditory_sentences.stream.examples import Entry, Example, LossWeights, Origin, WatchedStore
from auditory_sentences.stream.mixing import SampledSentence
from codec.io.errors import UserError
from evaluation.report import sentences
from evaluation.report.sentences import SegmentSounds, sentences_page
from tests.evaluation.report.test_write import Reader
from tests.factories.store import FINGERPRINT, random_tokens, tiny_store

RATE = 24_000
BOTH = LossWeights(1.6, 1.0)


class Decoder:
    """Stands for a codec: its sound is a tone as long as the tokens say."""

    sample_rate = RATE

    def __init__(self, fingerprint=FINGERPRINT):
        self.fingerprint, self.decoded = fingerprint, 0

    def require_own(self, tokens, source):
        if tokens.fingerprint != self.fingerprint:
            raise UserError(f"{source}: another's")

    def decode(self, tokens):
        import torch

        self.decoded += 1
        return [0.5 * torch.sin(torch.arange(one.num_samples) / 9) for one in tokens]


@pytest.fixture
def watched(tmp_path):
    """A store whose clips have recordings, but for the last."""
    store = tiny_store()
    for i, clip in enumerate(store.clips[:-1]):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, np.full(store.num_samples[i], 0.1), RATE)
        store.clips[i] = replace(clip, path=str(path))
    return WatchedStore(store)


def example(*parts, hidden=False, epoch=0, number=0):
    """Of (segment, origin) pairs."""
    segments, origins = zip(*parts, strict=True)
    drawn = SampledSentence(AuditorySentence(segments, "a test"), hidden)
    return Example(epoch, number, drawn, origins, (7,) * len(segments))


def page(entries, sounds, context=100, loss=BOTH):
    return sentences_page("my/recipe", {"Store": "a <store>"}, ["a & b"], entries, context, loss, sounds)


def whole(watched, i, role="audio", target=False):
    clip = watched[i]
    return Segment(role, clip.tokens, target), Origin(clip)


def sound_in(text):
    found = re.findall(r'src="data:audio/flac;base64,([^"]+)"', text)
    return [soundfile.read(io.BytesIO(base64.b64decode(one)))[0] for one in found]


def test_the_page_is_whole_and_loads_nothing(watched):
    one = example((Segment("prompt", "say <b>it</b> & more"), None), whole(watched, 0, target=True), hidden=True)
    entries = [
        Entry("tts", 2.0, "Task <tts>.", 0.75, 0.6, 12, [one]),
        Entry("asr", 1, "Task asr.", reason="no <clips>"),
    ]
    text = page(entries, SegmentSounds(watched, Decoder, {}))
    reader = Reader(text)
    assert {"tts", "asr"} <= reader.ids and {"#tts", "#asr"} <= set(reader.links)
    assert all(load.startswith("data:") for load in reader.loads) and "script" not in reader.tags
    for said in (
        "say &lt;b&gt;it&lt;/b&gt; &amp; more",
        "Task &lt;tts&gt;.",
        "no &lt;clips&gt;",
        "a &lt;store&gt;",
        "a &amp; b",
    ):
        assert said in text
    assert "<b>it</b>" not in text and "weight 2 · 75.0 % of the sentences" in text and "<td>60.0 %</td>" in text
    assert "epoch 0, sentence 0: 2 segments, 14 of 100 rows" in text
    assert 'class="segment text hidden"' in text and 'class="segment audio target"' in text
    assert 'class="segment audio no-loss"' in page(entries, SegmentSounds(watched, Decoder, {}), loss=LossWeights(1, 0))


def test_a_long_text_is_whole(watched):
    words = " ".join(map(str, range(3_000)))
    assert words in page([Entry("a", 1, "", 1, None, 1, [example((Segment("text", words, True), None))])],
                         SegmentSounds(watched, Decoder, {}))  # fmt: skip


def test_a_sentence_that_does_not_fit_is_said_to_be_left_out(watched):
    one = example((Segment("text", "one", True), None))
    text = page([Entry("a", 1, "", 1, None, 1, [one])], SegmentSounds(watched, Decoder, {}), context=6)
    assert "7 of 6 rows; does not fit, training leaves it out" in text


def test_whole_clips_play_their_recordings_and_pieces_their_tokens(watched):
    piece = Segment("audio", watched.units.crop(watched[0].tokens, 1, 2)), Origin(watched[0], 0.4)
    codec = Decoder()
    sounds = SegmentSounds(watched, lambda: codec, {})
    text = page([Entry("a", 1, "", 1, None, 1, [example(whole(watched, 0), piece)])], sounds)
    recording, tokens = sound_in(text)
    assert np.allclose(recording, 0.1, atol=1e-4) and len(recording) == watched.num_samples[0]
    assert len(tokens) == 19_199 and np.abs(tokens).max() > 0.4 and codec.decoded == 1
    assert "recording, 1.6 s" in text and "decoded tokens, 0.8 s" in text
    assert f"clip {watched[0].id} from 0.4 s" in text


def test_decoded_plays_tokens_alone(watched):
    codec = Decoder()
    text = page(
        [Entry("a", 1, "", 1, None, 1, [example(whole(watched, 0))])], SegmentSounds(watched, lambda: codec, {}, True)
    )
    assert codec.decoded == 1 and np.abs(sound_in(text)[0]).max() > 0.4 and "decoded tokens" in text


def test_a_recording_that_has_moved_is_found_or_else_decoded(watched, tmp_path):
    last = len(watched) - 1
    soundfile.write(tmp_path / "moved.wav", np.full(2_400, 0.3), RATE)
    segment, origin = whole(watched, last)
    sounds = SegmentSounds(watched, Decoder, {origin.clip.id: str(tmp_path / "moved.wav")})
    assert sounds.of(segment, origin).caption == "recording"
    assert np.allclose(sounds.of(segment, origin).waveform, 0.3, atol=1e-4)
    assert SegmentSounds(watched, Decoder, {}).of(segment, origin).caption == "decoded tokens"


def test_descriptive_tokens_alone_have_nothing_to_play(watched):
    def load():
        raise AssertionError("no codec is needed")

    text = page(
        [Entry("a", 1, "", 1, None, 1, [example(whole(watched, 0, "descriptive"))])], SegmentSounds(watched, load, {})
    )
    assert sound_in(text) == [] and "these tokens alone hold no waveform" in text and "descriptive tokens alone" in text
    assert SegmentSounds(watched, load, {}).has_sound(whole(watched, 0, "structural")[0])
    assert SegmentSounds(watched, load, {}).has_sound(whole(watched, 0, "audio_prompt")[0])


def test_tokens_of_another_codec_are_refused(watched):
    sounds = SegmentSounds(watched, lambda: Decoder("another"), {})
    with pytest.raises(UserError, match="another's"):
        sounds.of(Segment("audio", random_tokens(24_000)), None)


def test_the_sound_in_a_page_is_limited_and_what_one_entry_spares_is_for_the_next(watched, monkeypatch):
    monkeypatch.setattr(sentences, "AUDIO_BUDGET", 150_000)
    codec = Decoder()
    sounds = SegmentSounds(watched, lambda: codec, {}, decoded=True)
    loud = [example(*[whole(watched, i) for i in range(8)])]
    silent = [example((Segment("text", "one", True), None))]
    crowded = page([Entry("a", 1, "", 0.5, None, 1, loud), Entry("b", 1, "", 0.5, None, 1, loud)], sounds)
    decoded = codec.decoded
    assert 0 < len(sound_in(crowded)) < 16 and "limit of sound is reached" in crowded and decoded < 16
    each = [len(sound_in(part)) for part in crowded.split("<section")[1:]]
    spared = page([Entry("a", 1, "", 0.5, None, 1, silent), Entry("b", 1, "", 0.5, None, 1, loud)], sounds)
    assert min(each) > 0 and len(sound_in(spared)) > max(each)
