"""What people are shown of a recipe is what its training reads, sentence by sentence and row by row."""

from dataclasses import replace

import pytest
import torch

from auditory_sentences.sentence import to_rows
from auditory_sentences.stream.packing import Packing
from codec.io.errors import UserError
from tests.factories import stages
from training.lm.recipe import LanguageModelRecipe
from training.lm.sentences import draw, sentence_stream
from training.lm.starting_point import StartingPoint
from training.recipe import parse

MIXTURE = {"asr": 3, "tts": 3, "segmented_audio": 1, "same_text_voices": 1, "few_shot:asr": 1, "classification": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    stages.prepare(folder)
    return folder


def recipe(folder, stage=4, **more) -> LanguageModelRecipe:
    return parse(LanguageModelRecipe, stages.recipe(folder, stage, **({"mixture": MIXTURE} | more)), "the test")


def contents(sentence):
    return [
        s.text if s.is_text else {name: ids.tolist() for name, ids in s.tokens.streams.items()}
        for s in sentence.segments
    ]


def test_they_are_in_the_first_packs_of_a_run(folder):
    """Rows of what is shown, hidden conditions and all, are rows of the packs that training reads first."""
    asked = recipe(folder)
    drawn, start = draw(asked, 3), StartingPoint.load(asked)
    packing = Packing(sentence_stream(asked, start.store, "train"), start.layout, start.tokenizer, asked.context)
    batches = packing.read(0)
    packed = [next(batches) for _ in range(40)]
    checked = 0
    for entry in drawn.entries:
        assert len(entry.examples) == 3
        for one in entry.examples:
            assert one.epoch * len(packing.stream) + one.number < 256, "within the first window of packing"
            rows = to_rows(one.drawn.sentence, start.layout, start.tokenizer, one.drawn.drop_conditions)
            assert len(rows) == one.total_rows
            if one.total_rows <= asked.context:
                windows = (ids.unfold(0, len(rows), 1).transpose(1, 2) for ids in (batch.ids[0] for batch in packed))
                assert any((window == rows.ids).all(dim=(1, 2)).any() for window in windows), entry.name
                checked += 1
    assert checked > 12


def test_the_same_every_time_and_others_with_another_seed(folder):
    one, same, other = (draw(recipe(folder, seed=seed), 2) for seed in (3, 3, 4))
    said = [
        [contents(x.drawn.sentence) for entry in drawn.entries for x in entry.examples] for drawn in (one, same, other)
    ]
    assert said[0] == said[1] != said[2]


def test_shares_are_those_of_the_stream_and_add_up(folder):
    drawn = draw(recipe(folder), 2)
    assert [entry.name for entry in drawn.entries] == list(MIXTURE), "in the recipe's order"
    assert sum(entry.share for entry in drawn.entries) == pytest.approx(1)
    assert sum(entry.share_of_rows for entry in drawn.entries) == pytest.approx(1)
    for entry in drawn.entries:
        assert entry.share == pytest.approx(entry.weight / sum(MIXTURE.values()), abs=0.02)
    assert [entry.share_of_rows for entry in draw(recipe(folder), 2, ["asr"]).entries] == [None], (
        "of the others nothing is known"
    )


def test_the_dev_split_hides_nothing(folder):
    drawn = draw(recipe(folder, mixture={"tts": 1}), 25, split="dev")
    names = {one.drawn.sentence.name for one in drawn.entries[0].examples}
    assert all(name.startswith("tts:dev-") for name in names)
    assert not any(one.drawn.drop_conditions for one in drawn.entries[0].examples)


def test_an_entry_without_clips_is_listed_with_what_training_would_do(folder):
    asked = recipe(folder, mixture={"asr": 1, "lyric_recognition": 1, "dereverberation": 2, "text_only": 1})
    drawn = draw(asked, 2)
    reasons = {entry.name: entry.reason for entry in drawn.entries}
    assert reasons["asr"] == reasons["text_only"] == ""
    for name in ("lyric_recognition", "dereverberation"):
        assert reasons[name].startswith(
            f"training would stop here: the mixture asks for '{name}', but the split 'train'"
        )
    start = StartingPoint.load(asked)
    with pytest.raises(UserError, match="the mixture asks for 'dereverberation'"):
        sentence_stream(asked, start.store, "train")
    with pytest.raises(UserError, match="lyric_recognition: training would stop here"):
        draw(replace(asked, mixture={"lyric_recognition": 1.0}), 1)


def test_a_weight_of_zero_is_no_entry_and_another_name_is_refused(folder):
    asked = recipe(folder, mixture={"asr": 1, "tts": 0})
    assert [entry.name for entry in draw(asked, 1).entries] == ["asr"]
    with pytest.raises(UserError, match=r"no entry 'asrr'; did you mean 'asr'\?|no entry 'asrr'.*asr"):
        draw(asked, 1, ["asrr"])
    with pytest.raises(UserError, match="which is no task, construction or episode"):
        draw(recipe(folder, mixture={"asr": 1, "nonsense": 1}), 1)


def test_the_loss_is_the_stages(folder):
    for stage, text, audio in ((1, 1.0, 0.0), (2, 0.0, 1.0), (4, 1.6, 1.0)):
        assert draw(recipe(folder, stage, mixture={"asr": 1}), 1).loss == (text, audio)


def test_without_a_store_the_message_says_what_to_run(folder):
    with pytest.raises(
        UserError, match="gone: no token store is there; build it with `uniaudio corpus store CORPUS --out"
    ):
        draw(recipe(folder, store=str(folder / "gone")), 1)


def test_the_codec_can_be_had(folder):
    drawn = draw(recipe(folder, mixture={"asr": 1}), 1)
    codec = drawn.data.load_codec()
    tokens = drawn.entries[0].examples[0].segments[1].tokens
    assert codec.fingerprint == tokens.fingerprint
    assert torch.isfinite(codec.decode([tokens])[0]).all()
