"""Episodes: solved examples, then the query, whose answer nothing before it gives away."""

from collections import Counter

import pytest

from auditory_sentences.builders.arbitrary_names import is_held_out
from auditory_sentences.builders.catalogue import Catalogue
from auditory_sentences.builders.few_shot import Episodes, TooFewExamples, class_of
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import build, cast_of, find_task, request_of
from auditory_sentences.corpora.clip import Clip
from auditory_sentences.lengths import row_limit
from auditory_sentences.rng import KeyedRng
from auditory_sentences.sentence import to_rows
from codec.io.errors import UserError
from tests.factories.store import TinyStore, tiny_layout, tiny_store, tiny_tokenizer


@pytest.fixture(scope="module")
def pool():
    return Catalogue(tiny_store(speech=20, music=24, sounds=24), "train")


@pytest.fixture(scope="module")
def episodes(pool):
    return Episodes(pool, PromptBank.load().with_label_values(pool.label_values))


def stored(pool, name):
    return next(pool.stored(i) for i in pool.members if pool.clip(i).id == name)


def names_of_audio(pool, sentence):
    known = {pool.stored(i).tokens["structural"].numpy().tobytes(): pool.clip(i).id for i in pool.members}
    return [known[s.content["structural"].numpy().tobytes()] for s in sentence.segments if not s.is_text]


@pytest.mark.parametrize("task", ["asr", "tts", "instruct_tts", "sound_caption", "music_generation", "audio_qa"])
@pytest.mark.parametrize("shots", [1, 2, 4])
def test_shots_have_the_form_of_the_query(pool, episodes, task, shots):
    for i in episodes.eligible(find_task(task))[:6]:
        query = pool.stored(i)
        prompt, *segments = episodes.from_task(task, query, shots, KeyedRng(i)).segments
        size = len(segments) // (shots + 1)
        forms = [[(s.role, s.is_target) for s in segments[k * size : (k + 1) * size]] for k in range(shots + 1)]
        assert prompt.role == "prompt" and len(segments) == size * (shots + 1)
        assert all(one == forms[-1] for one in forms)


def test_zero_shots_is_the_task_itself(pool, episodes):
    query = pool.stored(0)
    for task in ("asr", "tts", "audio_qa"):
        assert same(episodes.from_task(task, query, 0, KeyedRng(3)), build(task, query, KeyedRng(3), episodes.bank))


def same(one, other):
    return [(s.role, s.is_target, s.content if s.is_text else s.content.num_samples) for s in one.segments] == [
        (s.role, s.is_target, s.content if s.is_text else s.content.num_samples) for s in other.segments
    ]


def test_the_query_is_never_among_its_shots(pool, episodes):
    """Nor its recording, nor its mixture or parts, nor, where words are asked for, its words."""
    for i in episodes.eligible(find_task("asr")):
        query = pool.stored(i)
        for seed in range(4):
            sentence = episodes.from_task("asr", query, 4, KeyedRng(seed))
            *shots, last = names_of_audio(pool, sentence)
            assert last == query.id and query.id not in shots and len(set(shots)) == 4
            clips = [stored(pool, name) for name in shots]
            assert not query.group or all(clip.group != query.group for clip in clips)
            assert all(plain(clip.text) != plain(query.text) for clip in clips)
    mixture = stored(pool, "train-mixture")
    for seed in range(200):
        shots = names_of_audio(pool, episodes.from_task("sound_caption", mixture, 4, KeyedRng(seed)))[:-1]
        assert not {"train-mixture", *mixture.parts} & set(shots)
        shots = names_of_audio(
            pool, episodes.from_task("sound_caption", stored(pool, "train-sound-0"), 4, KeyedRng(seed))
        )
        assert "train-mixture" not in shots


@pytest.mark.parametrize("task", ["prompt_tts", "voice_conversion"])
def test_no_clip_of_the_query_is_in_an_example(pool, episodes, task):
    """Not the answer as another example's voice, nor the voice's own clip as an answer."""
    task = find_task(task)
    found = 0
    for i in episodes.eligible(task):
        for seed in range(6):
            cast = pool.stored_cast(cast_of(task, pool, i, episodes.bank, KeyedRng(seed)))
            try:
                sentence = episodes.from_task(task, pool.stored(i), 1, KeyedRng(seed), cast=cast)
            except TooFewExamples:
                continue
            audio = [s.content for s in sentence.segments if not s.is_text]
            half = len(audio) // 2
            heard = {row.tobytes() for tokens in audio[:half] for row in tokens["structural"].T.numpy()}
            told = {row.tobytes() for tokens in audio[half:] for row in tokens["structural"].T.numpy()}
            assert not heard & told  # 8 of 16 codes a frame: two clips share none by chance
            found += 1
    assert found > 10


def plain(text):
    return "".join(filter(str.isalpha, text.lower()))


def test_queries_of_another_split(pool, episodes):
    dev = Catalogue(pool.store, "dev")
    query = dev.stored(dev.by_kind["music"][0])
    sentence = episodes.from_task("music_caption", query, 4, KeyedRng(0))
    *shots, _ = names_of_audio(pool, type(sentence)(sentence.segments[:-2]))
    assert len(shots) == 3 and all(name.startswith("train-") for name in shots)
    assert request_of(sentence).reference == query.caption


def test_episodes_are_pure_functions(pool, episodes):
    query = pool.stored(0)
    assert same(episodes.from_task("asr", query, 3, KeyedRng(1)), episodes.from_task("asr", query, 3, KeyedRng(1)))
    different = {tuple(names_of_audio(pool, episodes.from_task("asr", query, 3, KeyedRng(i)))) for i in range(20)}
    assert len(different) > 15
    fresh = Episodes(pool, episodes.bank)
    assert same(fresh.from_task("asr", query, 3, KeyedRng(1)), episodes.from_task("asr", query, 3, KeyedRng(1)))


def test_questions_keep_to_one_label(pool, episodes):
    query = stored(pool, "train-music-0")
    for seed in range(30):
        sentence = episodes.from_task("audio_qa", query, 3, KeyedRng(seed))
        answers = [s.content for s in sentence.segments if s.role == "text" and s.is_target]
        label = next(k for k, v in query.labels.items() if v == answers[-1])
        assert set(answers) <= set(pool.label_values[label])


@pytest.mark.parametrize(("ways", "shots"), [(2, 1), (3, 2), (4, 4), (2, 0)])
def test_classification(pool, episodes, ways, shots):
    query = stored(pool, "train-music-1")
    places = Counter()
    for seed in range(60):
        sentence, options = episodes.of_label("instrument", query, ways, shots, KeyedRng(seed))
        assert len(set(options)) == ways and query.labels["instrument"] in options
        answers = [s.content for s in sentence.segments if s.is_target]
        assert Counter(answers[:-1]) == {option: shots for option in options if shots}
        assert answers[-1] == query.labels["instrument"]
        assert all(option in sentence.segments[0].content for option in options)
        names = names_of_audio(pool, sentence)
        assert len(set(names)) == len(names) == ways * shots + 1 and names[-1] == query.id
        for name, answer in zip(names, answers, strict=True):
            assert stored(pool, name).labels["instrument"] == answer
        places[options.index(query.labels["instrument"])] += 1
    assert set(places) == set(range(ways))  # the place among the options gives nothing away


@pytest.mark.parametrize("label", ["instrument", "speaker"])
@pytest.mark.parametrize("names", ["arbitrary", "held_out"])
def test_only_the_examples_say_what_an_arbitrary_name_stands_for(pool, episodes, label, names):
    """One to one within an episode, new in every other, and none of the words that are held out in training."""
    query = stored(pool, "train-music-1" if label == "instrument" else "train-speech-1")
    stood_for = {}
    for seed in range(40):
        sentence, options = episodes.of_label(label, query, 2, 3, KeyedRng(seed), names=names)
        answers = [s.content for s in sentence.segments if s.is_target]
        clips = [stored(pool, name) for name in names_of_audio(pool, sentence)]
        meant = {(word, class_of(clip, label)) for word, clip in zip(answers, clips, strict=True)}
        assert len(meant) == len(set(options)) == 2 and {word for word, _ in meant} == set(options)
        assert all(word in sentence.segments[0].content for word in options)
        assert {is_held_out(word) for word in options} == {names == "held_out"}
        assert not set(options) & {value for values in pool.label_values.values() for value in values}
        for word, value in meant:
            stood_for.setdefault(word, set()).add(value)
    assert len(stood_for) > 4 and max(map(len, stood_for.values())) > 1


def test_a_label_that_is_called_speaker_is_a_label():
    """Of a person's corpus, with names of its own; who speaks is asked by it, not by the voice's id."""
    clips = [
        Clip(f"c{i}", "x", "speech", "train", text=f"text {i}", speaker=f"id-{i % 4}", labels={"speaker": name})
        for i, name in enumerate(["Ann", "Bob"] * 4)
    ]
    catalogue = Catalogue(TinyStore(clips, [1] * 8), "train")
    episodes = Episodes(catalogue, PromptBank.load().with_label_values(catalogue.label_values))
    assert episodes.class_labels(clips[0]) == ["speaker"]
    for names in ("own", "arbitrary"):
        sentence, options = episodes.of_label("speaker", catalogue.stored(0), 2, 1, KeyedRng(3), names=names)
        assert (set(options) == {"Ann", "Bob"}) == (names == "own") and len(sentence.segments) == 7


def test_voices_are_told_apart_by_arbitrary_names_alone(pool, episodes):
    query = stored(pool, "train-speech-1")
    assert episodes.can_classify(query, "speaker", "arbitrary") and not episodes.can_classify(query, "speaker")
    with pytest.raises(UserError, match="choose another label"):
        episodes.of_label("speaker", query, 2, 1, KeyedRng(0))
    position = next(i for i in pool.members if pool.clip(i).id == query.id)
    for seed in range(20):  # in full: descriptive tokens do not say whose voice it is
        sentence = episodes.draw_of_label("speaker", position, KeyedRng(seed), 2048, "arbitrary")
        assert {s.role for s in sentence.segments if not s.is_text} == {"audio"}


def test_four_shots_of_four_classes_fit_into_512_rows(pool, episodes):
    """With descriptive-only examples; clips of 1.5 to 1.8 s."""
    tokenizer = tiny_tokenizer()
    query = stored(pool, "train-music-1")
    sentence, _ = episodes.of_label("instrument", query, 4, 4, KeyedRng(0), shot_audio="descriptive")
    roles = [s.role for s in sentence.segments if not s.is_text]
    assert roles == ["descriptive"] * 16 + ["audio"]
    assert len(to_rows(sentence, tiny_layout(tokenizer), tokenizer)) <= 512
    whole, _ = episodes.of_label("instrument", query, 2, 4, KeyedRng(0))
    assert len(to_rows(whole, tiny_layout(tokenizer), tokenizer)) <= 512


def test_answers_that_are_audio_are_shown_whole(pool, episodes):
    with pytest.raises(ValueError, match="must be whole audio"):
        episodes.from_task("tts", pool.stored(0), 1, KeyedRng(0), shot_audio="descriptive")


def test_too_few_clips_are_counted(pool):
    clips = [Clip(str(i), "x", "speech", "train", text=f"text {i}") for i in range(3)]
    catalogue = Catalogue(TinyStore(clips, [1] * 3), "train")
    episodes = Episodes(catalogue, PromptBank.load())
    assert len(episodes.from_task("asr", catalogue.stored(0), 2, KeyedRng(0)).segments) == 7
    with pytest.raises(UserError, match="'train' has 2 clips .* 4 are asked for"):
        episodes.from_task("asr", catalogue.stored(0), 4, KeyedRng(0))
    with pytest.raises(UserError, match="no label 'gender'"):
        episodes.of_label("gender", catalogue.stored(0), 2, 1, KeyedRng(0))


@pytest.mark.parametrize("max_rows", [60, 150, 300, 2048])
def test_training_episodes_fit(pool, episodes, max_rows):
    shots = Counter()
    for seed in range(40):
        task = find_task(("asr", "tts", "audio_qa")[seed % 3])
        position = episodes.eligible(task)[seed % 20]
        sentence = episodes.draw_of_task(task, position, KeyedRng(seed), max_rows)
        count = sum(segment.is_target for segment in sentence.segments) - 1
        assert count == 0 or row_limit(sentence.segments) <= max_rows
        shots[count] += 1
        sentence = episodes.draw_of_label(None, position, KeyedRng(seed), max_rows)
        assert len(sentence.segments) == 3 or row_limit(sentence.segments) <= max_rows
    assert set(shots) == {1, 2, 3, 4} if max_rows == 2048 else max(shots) < 4 if max_rows == 60 else True
