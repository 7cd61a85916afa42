"""The first sentences of an entry are the stream's own, each construction is to be known by its segments."""

from itertools import pairwise

import pytest

from auditory_sentences.builders.constructions import CONSTRUCTIONS
from auditory_sentences.builders.tasks import TASKS
from auditory_sentences.sentence import TEXT_ROLES, AuditorySentence, Segment, to_rows
from auditory_sentences.stream.examples import Example, LossWeights, WatchedStore, about, examples
from auditory_sentences.stream.mixing import SampledSentence, SentenceStream
from codec.io.errors import UserError
from codec.tokens import AudioTokens
from tests.auditory_sentences.stream.test_mixing import EVERYTHING
from tests.factories.store import one_stream_store, random_tokens, tiny_layout, tiny_store, tiny_tokenizer

COUNT = 6


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def draw(tokenizer, store=None, mixture=EVERYTHING, only=(), count=COUNT):
    watched = WatchedStore(store or tiny_store())
    stream = SentenceStream(watched, mixture, seed=3, max_rows=400)
    return watched, examples(stream, watched, tiny_layout(tokenizer), tokenizer, count, only)


@pytest.fixture(scope="module")
def drawn(tokenizer):
    return draw(tokenizer)


def same(one: AuditorySentence, other: AuditorySentence) -> bool:
    """Whether two sentences say the same, word for word and id for id."""
    return one.name == other.name and all(
        (a.role, a.is_target) == (b.role, b.is_target)
        and (a.content == b.content if a.is_text else a.tokens.equal(b.tokens))
        for a, b in zip(one.segments, other.segments, strict=True)
    )


def test_they_are_what_the_stream_draws_and_the_first_of_their_entry(drawn):
    stream = SentenceStream(tiny_store(), EVERYTHING, seed=3, max_rows=400)
    order = {}
    for epoch in range(40):
        for i in range(len(stream)):
            order.setdefault(stream.place(epoch, i)[0].name, []).append((epoch, i))
    assert set(drawn[1]) == set(EVERYTHING)
    for name, found in drawn[1].items():
        assert [(one.epoch, one.number) for one in found] == order[name][:COUNT]
        for one in found:
            sentence, hidden = stream[one.epoch, one.number]
            assert same(sentence, one.drawn.sentence) and hidden == one.drawn.drop_conditions


def test_only_some_entries_are_the_same_sentences(drawn, tokenizer):
    _, few = draw(tokenizer, only=("asr", "mixture_parts"), count=2)
    assert set(few) == {"asr", "mixture_parts"}
    for name, found in few.items():
        assert [(one.epoch, one.number) for one in found] == [(o.epoch, o.number) for o in drawn[1][name][:2]]


def test_rows_add_up_to_those_of_the_whole_sentence(drawn, tokenizer):
    layout = tiny_layout(tokenizer)
    for found in drawn[1].values():
        for one in found:
            assert one.total_rows == len(to_rows(one.drawn.sentence, layout, tokenizer))
            assert one.kept_rows(one.total_rows) == one.total_rows and one.kept_rows(one.total_rows - 1) == 0


@pytest.mark.parametrize("store", [tiny_store, one_stream_store])
def test_every_audio_segment_is_found_in_its_clip(tokenizer, store):
    mixture = {"segmented_audio": 1, "audio_caption": 1, "prompt_tts": 1, "few_shot:asr": 1, "conversation": 1}
    watched = WatchedStore(store())
    stream = SentenceStream(watched, mixture, seed=1, max_rows=2_000)
    pieces = 0
    for i in range(len(stream)):
        watched.seen.clear()
        segments = stream[0, i].sentence.segments
        for segment, origin in zip(segments, watched.origins(segments), strict=True):
            assert (origin is None) == segment.is_text
            if origin is None:
                continue
            if origin.start is None:
                assert origin.clip.tokens.equal(segment.tokens) and origin.place == f"clip {origin.clip.id}"
            else:
                pieces += 1
                units = watched.units
                start, count = round(origin.start / units.seconds), units.in_clip(segment.tokens)
                assert units.crop(origin.clip.tokens, start, count).equal(segment.tokens)
                assert f"{origin.place}".endswith(f" from {origin.start:.1f} s")
    assert pieces > 5


def test_pieces_of_a_sound_that_repeats_itself_follow_each_other():
    store = tiny_store()
    watched, units = WatchedStore(store), store.units
    clip = watched[next(i for i, clip in enumerate(store.clips) if clip.id == "train-long")]
    silent = {name: ids * 0 for name, ids in clip.tokens.streams.items()}
    watched.seen[:] = [
        clip := type(clip)(**(vars(clip) | {"tokens": AudioTokens(silent, clip.tokens.num_samples, "tiny")}))
    ]
    cut = [Segment("audio", units.crop(clip.tokens, start, 3)) for start in (0, 3, 6)]
    starts = [origin.start for origin in watched.origins(cut)]
    assert starts[0] == 0 and all(later > earlier for earlier, later in pairwise(starts))


def test_audio_of_nobody_has_no_origin():
    watched = WatchedStore(tiny_store())
    strange = Segment("audio", random_tokens(30_000, seed=99))
    assert watched[0] and watched.origins([strange]) == (None,)
    assert watched.described(strange, None) == "audio 1.2 s"


def test_what_is_said_of_a_segment(drawn):
    watched, found = drawn
    one = next(one for one in found["few_shot:asr"] if any(s.role == "descriptive" for s in one.segments))
    at = next(i for i, segment in enumerate(one.segments) if segment.role == "descriptive")
    said = watched.described(one.segments[at], one.origins[at])
    assert said.startswith("descriptive tokens alone, of 1.") and said.endswith(f", clip {one.origins[at].clip.id}")


def test_marks_say_what_bears_loss():
    tokens = random_tokens(24_000)
    segments = (Segment("prompt", "say it"), Segment("audio", tokens, True), Segment("text", "yes", True))
    for hidden, given in ((False, "given"), (True, "hidden")):
        one = Example(0, 0, SampledSentence(AuditorySentence(segments), hidden), (None,) * 3, (1,) * 3)
        assert one.marks(LossWeights(1.6, 1.0)) == (given, "target", "target")
        assert one.marks(LossWeights(1.0, 0.0)) == (given, "no loss", "target")
        assert one.marks(LossWeights(0.0, 1.0)) == (given, "target", "no loss")


def kinds(example):
    return ["text" if segment.role in TEXT_ROLES else "audio" for segment in example.segments]


def test_each_construction_is_known_by_its_segments(drawn):
    """UniAudio 2.0 §4.4: what a reader of the paper looks for."""
    _, found = drawn
    for one in found["segmented_audio"]:
        assert set(kinds(one)) == {"audio"}
        clips = [origin.clip for origin in one.origins]
        assert len({clip.id for clip in clips}) == 1 or len({clip.group for clip in clips}) == 1, "one recording"
    for one in found["speech_text"]:
        assert {"audio", "text"} == set(kinds(one)) and {clip.kind for clip in _clips(one)} == {"speech"}
        assert {segment.role for segment in one.segments if segment.is_text} == {"transcription"}
    for one in found["audio_caption"]:
        assert kinds(one) in (["audio", "text"] * (len(one.rows) // 2), ["text", "audio"] * (len(one.rows) // 2))
        assert {segment.role for segment in one.segments if segment.is_text} == {"caption"}
    for one in found["mixture_parts"]:
        whole = [clip for clip in _clips(one) if clip.kind == "mixture"]
        assert len(whole) == 1 and {clip.id for clip in _clips(one)} == {whole[0].id, *whole[0].parts}
    for one in found["same_text_voices"]:
        assert len({clip.speaker for clip in _clips(one)}) == len(_clips(one)) > 1
        assert len({clip.text.lower().strip("!").replace(",", "") for clip in _clips(one)}) == 1


def _clips(example):
    return [origin.clip for origin in example.origins if origin]


def test_every_entry_is_described_and_the_constructions_by_their_number():
    for name in EVERYTHING:
        assert about(name).endswith(".") and "\n" not in about(name)
    for number, name in enumerate(CONSTRUCTIONS, 1):
        assert about(name).startswith(f"Construction {number} of UniAudio 2.0 §4.4, {CONSTRUCTIONS[name].title}. ")
    assert about("asr") == "Task asr: given prompt, audio; learned transcription."
    assert about("tts:descriptive") == "Task tts:descriptive: given prompt, transcription; learned descriptive tokens."
    assert about("audio_only") == "Task audio_only: learned audio."
    assert "voice (part.speaker)" in about("speaker_extraction")
    assert "solved examples" in about("few_shot:asr") and about("asr") in about("few_shot:asr")
    assert "unrelated requests" in about("conversation") and "Args" not in about("conversation")
    assert all(task in about(task) for task in TASKS)
    with pytest.raises(UserError, match="did you mean 'asr'"):
        about("asrr")
