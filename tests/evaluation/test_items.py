import shutil
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from auditory_sentences.builders.arbitrary_names import is_held_out
from auditory_sentences.builders.catalogue import ClipStore
from auditory_sentences.builders.few_shot import TooFewExamples
from auditory_sentences.token_store import JoinedStores, TokenStore
from auditory_sentences.token_store.manifest import Manifest, write_manifest
from auditory_sentences.token_store.shard import write_shard
from auditory_sentences.token_store.sources import Source, write_sources
from codec.io.errors import UserError
from codec.tokens import AudioTokens
from evaluation import run_suite
from evaluation.config import EvaluationConfig
from evaluation.datasets.encoded_clips import EncodedClips
from evaluation.items import ItemBuilder
from evaluation.recordings import Recordings, Relocated
from evaluation.task import Data, EvalTask, Score, load_task
from lm.words import normalise_words
from tests import ROOT
from tests.factories.store import tiny_store


@pytest.fixture(scope="module")
def store(model):
    return TokenStore(model / "../tokens")


def test_items_are_held_out_and_spread_evenly(store):
    items = ItemBuilder(store).items(load_task("sound_caption"), 0, 6)
    assert Counter(item.clip.labels["class"] for item in items) == {"rain": 2, "engine": 2, "clock": 2}
    assert {item.clip.split for item in items} == {"test"}


def test_several_stores_are_asked_as_one(store, tmp_path):
    """Also those that the recipe beside a model names."""
    half = len(store) // 2
    for name, places in (("a", range(half)), ("b", range(half, len(store)))):
        clips = [store[i] for i in places]
        shard = write_shard(
            tmp_path / name / "shard-00000.arrow", clips, [clip.tokens for clip in clips], store.streams
        )
        sources = [Source(clip.id, clip.path, sha256="0" * 64) for clip in clips]
        write_sources(tmp_path / name, shard, sources)
        manifest = Manifest(
            fingerprint=store.fingerprint, streams=store.streams, sample_rate=store.sample_rate, complete=True,
            shards=(shard,),
        )  # fmt: skip
        write_manifest(tmp_path / name, manifest)
    (tmp_path / "run/model").mkdir(parents=True)
    (tmp_path / "run/recipe.yaml").write_text(f"store: [{tmp_path}/a, {tmp_path}/b]\n")
    task = load_task("asr")
    for stores in ([tmp_path / "a", tmp_path / "b"], None):
        joined = run_suite._item_builder(EvaluationConfig(tmp_path / "run/model", store=stores), [task])
        assert [item.id for item in joined.items(task, 1, 5)] == [i.id for i in ItemBuilder(store).items(task, 1, 5)]
    (tmp_path / "run/recipe.yaml").write_text("store: 7\n")
    with pytest.raises(UserError, match="names no token store but 7"):
        run_suite._item_builder(EvaluationConfig(tmp_path / "run/model"), [task])


def test_the_same_seed_asks_the_same_and_another_seed_does_not(store):
    task = load_task("asr")

    def asked(seed):
        items = ItemBuilder(store, seed).items(task, 0, 5)
        return [(item.id, item.sentence.segments[0].content) for item in items]

    assert asked(0) == asked(0) != asked(1)


def test_a_smaller_limit_is_the_beginning_of_a_larger_one(store):
    builder, task = ItemBuilder(store), load_task("music_caption")
    ids = [item.id for item in builder.items(task, 0, None)]
    assert [item.id for item in builder.items(task, 0, 3)] == ids[:3] and len(ids) > 3


@pytest.fixture(scope="module")
def served(store):
    """The shipped tasks that the store has clips for."""
    names = sorted(path.stem for path in (ROOT / "evaluation/tasks").glob("*.yaml"))
    tasks = [load_task(name) for name in names]
    return [task for task in tasks if _serves(store, task)]


def _serves(store, task):
    try:
        return bool(ItemBuilder(store).positions(task, None))
    except UserError:
        return False


def test_the_store_serves_every_kind_of_task(served):
    kinds = {task.request.partition(":")[0] for task in served} | {"shots" for task in served if max(task.shots) > 0}
    assert kinds >= {
        "asr", "tts", "text_only", "classification", "audio_qa", "audio_yes_no", "sound_caption", "sound_generation",
        "music_caption", "music_generation", "speech_caption", "reconstruction", "tokens", "shots",
    }  # fmt: skip


def test_recordings_that_have_moved_change_no_request(store, served, model):
    """Whatever the task and the number of examples: a store whose recordings lie elsewhere stands in for itself."""
    moved = Relocated(store, [model / "../corpus"])
    for task in served:
        for shots in () if task.is_of_tokens else task.shots:
            assert _all_asked(store, task, shots) == _all_asked(moved, task, shots), (task.task, shots)


def _all_asked(store, task, shots):
    try:
        return [_asked(item) for item in ItemBuilder(store).items(task, shots, 3)]
    except TooFewExamples as error:  # of eight, or of a fourth by the same voice
        assert shots >= 4
        return str(error)


@pytest.mark.parametrize("stand_in", [TokenStore, JoinedStores, Relocated, EncodedClips])
def test_whatever_stands_for_a_store_has_what_sentences_are_built_from(store, model, stand_in):
    made = {
        TokenStore: lambda: store,
        JoinedStores: lambda: JoinedStores([store]),
        Relocated: lambda: Relocated(store, [model / "../corpus"]),
        EncodedClips: lambda: EncodedClips,  # of the class: it reads nothing before it is given a codec
    }[stand_in]()
    instance = ("clips", "data_hash") if stand_in is EncodedClips else ()
    needed = {name for name in vars(ClipStore) if not name.startswith("_")} | {"__getitem__"}
    assert len(needed) == 7 and all(hasattr(made, name) for name in needed - set(instance))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_first_items_of_any_task_stay_when_the_limit_grows(store, served, data):
    """Also their prompts, examples and right answers: results at a smaller limit are a part of those at a larger."""
    task = data.draw(st.sampled_from(served))
    shots = data.draw(st.sampled_from(task.shots))
    builder = ItemBuilder(store, data.draw(st.integers(0, 3)))
    few, more = data.draw(st.integers(1, 12)), data.draw(st.none() | st.integers(12, 24))
    positions = builder.positions(task, more)
    assert builder.positions(task, few) == positions[:few] and len(set(positions)) == len(positions)
    if task.is_of_tokens:  # measured on clips: there are no requests
        return
    try:
        first, all_of_them = builder.items(task, shots, few), builder.items(task, shots, more)
    except TooFewExamples:  # of eight, or of a fourth by the same voice, in so small a store
        assume(shots < 4)
        raise
    assert [_asked(item) for item in first] == [_asked(item) for item in all_of_them[:few]]
    assert len(first) == min(few, len(all_of_them))


def _asked(item):
    """All that a model is asked and all that is right."""

    def plain(content):
        if not isinstance(content, AudioTokens):
            return content
        return content.num_samples, {name: ids.tolist() for name, ids in content.streams.items()}

    request = [(segment.role, plain(segment.content)) for segment in item.sentence.segments]
    return item.id, item.role, request, plain(item.answer), item.targets


def test_the_request_holds_no_answer(store):
    for name in ("asr", "sound_caption", "tts", "music_generation"):
        for item in ItemBuilder(store).items(load_task(name), 0, 3):
            given = item.sentence.segments
            assert not any(segment.is_target for segment in given)
            assert all(segment.content is not item.answer for segment in given)


def test_shots_come_from_training_and_ask_about_the_same_clips(store):
    builder, task = ItemBuilder(store), load_task("sound_caption_shots")
    without, four = (builder.items(task, shots, 4) for shots in (0, 4))
    assert [item.id for item in without] == [item.id for item in four]
    assert all(sum(not s.is_text for s in item.sentence.segments) == 5 for item in four)
    # what the examples say is no list of choices
    assert {item.targets["class"].num_choices for item in four} == {3}


def test_classification_offers_its_options(store):
    builder, task = ItemBuilder(store), load_task("sound_2_way")
    for item in builder.items(task, 1, 6):
        target = item.targets["class"]
        assert len(target.phrases) == target.num_choices == 2 and item.answer in target.phrases
        assert target.reference == item.answer


@pytest.mark.parametrize("name", ["sound_new_names", "voice_new_names"])
def test_arbitrary_names_are_answers_that_training_never_gives(store, name):
    task = load_task(name)
    classes = replace(task.classification, examples_from="train")
    task = replace(task, data=replace(task.data, split="train"), classification=classes)
    for shots in (0, 1):
        for item in ItemBuilder(store).items(task, shots, 6):
            for target in item.targets.values():
                assert target.reference == item.answer and len(target.phrases) == target.num_choices == 2
            assert all(map(is_held_out, item.targets[task.scores[0].name].phrases))


def test_voices_have_no_names_unless_they_are_given_some(store):
    task = load_task("voice_new_names")
    plain = replace(task, classification=replace(task.classification, arbitrary_names=False))
    with pytest.raises(UserError, match="voices, which have no names to answer with; .*`arbitrary_names: true`"):
        ItemBuilder(store).items(plain, 0, 2)


def test_a_question_that_lists_its_answers_offers_as_many_choices(store):
    items = ItemBuilder(store).items(load_task("sound_question"), 0, None)
    assert {item.targets["class"].num_choices for item in items} == {3}  # all classes, listed or not


def about(name, kind, **changes):
    """A task of that request: an answer in audio is compared with the right one."""
    values = {"metric": "si_sdr", "scorer": "waveform"} | changes
    scores = (Score(name="likeness", **values),)
    return EvalTask(name, 1, name, name, name, Data(kind, "train"), scores)


def test_the_right_answer_may_be_of_another_clip():
    store = tiny_store()
    items = ItemBuilder(store).items(about("denoising", "mixture"), 0, None)
    (mixture,) = (clip for clip in store.clips if clip.kind == "mixture" and clip.split == "train")
    assert [(item.id, item.clip.id) for item in items] == [(mixture.id, mixture.parts[0])]
    assert items[0].answer.equal(items[0].tokens) and not items[0].sentence.segments[-1].content.equal(items[0].tokens)
    for item in ItemBuilder(store).items(about("voice_conversion", "speech"), 0, None):
        assert item.id == item.clip.id and item.answer.equal(item.tokens)
        voice, source = item.sentence.segments[1:]
        assert voice.role == "audio_prompt" and not source.content.equal(item.tokens)


def test_examples_of_related_clips_come_from_training():
    store = tiny_store()
    task = replace(about("voice_conversion", "speech"), data=Data("speech", "dev"), shots=(1,))
    for item in ItemBuilder(store).items(task, 1, None):
        assert [segment.role for segment in item.sentence.segments[1:]] == ["audio_prompt", "audio", "audio"] + [
            "audio_prompt",
            "audio",
        ]


def test_every_part_of_a_mixture_is_an_item_of_one_request():
    store = tiny_store()
    items = ItemBuilder(store).items(about("separation", "mixture"), 0, None)
    (mixture,) = (clip for clip in store.clips if clip.kind == "mixture" and clip.split == "train")
    assert [item.clip.id for item in items] == list(mixture.parts) and [item.part for item in items] == [0, 1]
    assert [item.id for item in items] == [f"{mixture.id}:1", f"{mixture.id}:2"]
    assert items[0].sentence == items[1].sentence and not any(s.is_target for s in items[0].sentence.segments)
    assert [segment.role for segment in items[0].sentence.segments] == ["prompt", "audio"]
    assert all(item.answer.equal(item.tokens) and item.given.id == mixture.id for item in items)


def test_what_is_given_is_the_recording_that_the_answer_is_a_version_of():
    store = tiny_store()
    (item,) = ItemBuilder(store).items(about("denoising", "mixture"), 0, None)
    assert item.given.kind == "mixture" and item.given.id != item.clip.id
    for item in ItemBuilder(store).items(about("voice_conversion", "speech"), 0, None):
        assert normalise_words(item.given.text) == normalise_words(item.clip.text)
        assert item.given.speaker != item.clip.speaker
    assert all(item.given is None for item in ItemBuilder(store).items(about("tts", "speech"), 0, None))


def test_no_such_clips_is_an_error_that_says_what_was_looked_for(store):
    with pytest.raises(UserError, match="'asr_real_digits' finds no clip of speech in split 'dev'"):
        ItemBuilder(store).items(load_task("asr_real_digits"), 0, 5)


def test_recordings_of_a_folder_that_describes_itself(model, tmp_path, real_audio_dir):
    digits = Recordings([real_audio_dir / "spoken_digits" / "recordings"])
    items = ItemBuilder(digits).items(load_task("codec_real_digits"), 0, 5)
    assert {item.clip.split for item in items} == {"dev"} and all(item.clip.text for item in items)
    sentences = ItemBuilder(Recordings([real_audio_dir / "sentences"])).items(
        load_task("codec_real_sentences"), 0, None
    )
    assert len(sentences) == 10 and all(len(item.clip.text.split()) > 3 for item in sentences)
    clips = ItemBuilder(Recordings([real_audio_dir / "clips"])).items(load_task("codec_recordings"), 0, None)
    assert len(clips) == 8


def test_recordings_must_be_there(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Recordings([tmp_path / "absent"])
    with pytest.raises(UserError, match="holds no sound file"):
        Recordings([tmp_path])


def test_recordings_that_have_moved(model, store, tmp_path):
    moved = shutil.copytree(model / "../corpus", tmp_path / "moved")
    items = ItemBuilder(Relocated(store, [moved])).items(load_task("sound_caption"), 0, 2)
    assert all(str(moved) in item.clip.path and len(item.recording) > 0 for item in items)
    assert [i.id for i in items] == [i.id for i in ItemBuilder(store).items(load_task("sound_caption"), 0, 2)]
    (tmp_path / "other").mkdir()
    shutil.copy(next((moved / "audio").iterdir()), tmp_path / "other" / "x.flac")
    with pytest.raises(UserError, match="holds none of the token store's clips"):
        Relocated(store, [tmp_path / "other"])
