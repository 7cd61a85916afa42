"""Single clips of the starter corpus: as long, as loud and as fast as they are asked to be."""

from dataclasses import asdict

import numpy as np
import pytest

from auditory_sentences.starter.jobs import DEMO
from auditory_sentences.starter.randomness import generator
from auditory_sentences.starter.rendering import Job, StarterSize, draw_voice, recorded, speech_text, utter
from auditory_sentences.starter.texts import belongs_to
from codec.io.errors import UserError

JOB = Job("speech", "train", 0)


def said(seed=0, text="three two one", speed="medium", **asked):
    rng = generator(0, "test", seed)
    return utter(rng, JOB, "clip", text, "digits", draw_voice(generator(0, "voice"), JOB, DEMO), speed, **asked)


def test_a_size_that_is_none():
    with pytest.raises(UserError, match="speech must be a whole number from 0 to a million, not -1"):
        StarterSize(speech=-1)
    with pytest.raises(UserError, match="related must be a whole number"):
        StarterSize(related=True)


def test_what_is_recorded_of_a_size_names_related_clips_where_there_are_some():
    assert DEMO.values == {name: value for name, value in asdict(DEMO).items() if name != "related"}
    assert StarterSize(related=3).values["related"] == 3


def test_an_utterance_is_as_loud_and_as_fast_as_it_is_asked_to_be():
    loudness = [10 * np.log10(np.mean(said(level=level).wave ** 2)) for level in (-30.0, -20.0)]
    assert loudness == pytest.approx([-30, -20], abs=0.2)
    slow, fast = (said(rate=rate) for rate in (120, 240))
    assert 1.6 < len(slow.wave) / len(fast.wave) < 2.2
    assert slow.clip.labels["speed"] == fast.clip.labels["speed"] == "medium"  # which is what it is told


def test_phones_lie_within_the_clip_and_in_order():
    clip, wave, phones = said()
    ends = [time for phone in phones for time in (phone.start, phone.end)]
    assert ends == sorted(ends) and 0.03 < ends[0] and ends[-1] < len(wave) / 24_000
    assert clip.id == "clip" and clip.path == "audio/clip.flac" and clip.licence == "CC0-1.0"


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_texts_belong_to_their_split(split):
    rng = generator(0, split)
    assert all(belongs_to(speech_text(rng, split)[0], split) for _ in range(100))


def test_a_recording_is_never_clipped():
    loud = recorded(generator(0, "loud"), np.full(1000, 5.0))
    assert loud.dtype == np.float32 and 0.94 < np.abs(loud).max() <= 0.951
