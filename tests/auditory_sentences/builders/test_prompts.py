"""Prompt banks: every task and label has phrasings that can be filled in, and a bad bank is named."""

import json

import pytest

from auditory_sentences.builders.catalogue import label_values
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import TASKS, build
from auditory_sentences.corpora.clip import Clip
from auditory_sentences.rng import KeyedRng
from codec.io.errors import UserError
from tests.factories.store import tiny_store


def test_labels_without_phrasings_of_their_own():
    clips = [Clip(str(i), "x", "sound", "train", labels={"room_size": size}) for i, size in enumerate(("big", "small"))]
    bank = PromptBank.load().with_label_values(label_values(clips))
    questions = {bank.question("room_size", "big", KeyedRng(i)) for i in range(30)}
    assert all("room size" in question for question in questions) and len(questions) >= 3
    assert bank.yes_no_question("room_size", "big", KeyedRng())[1] in ("yes", "no")


def test_every_prompted_task_has_eight_prompts_at_least():
    bank = PromptBank.load()
    for task in TASKS.values():
        assert not task.prompted or len(set(bank.prompts[task.name])) >= 8
    assert len(set(bank.prompts["classification"])) >= 8
    for label in bank.questions:
        bank.question(label, "x", KeyedRng())  # every phrasing can be filled in
    for phrasings in (*bank.questions.values(), *bank.yes_no.values()):
        for phrasing in phrasings:
            phrasing.format(label="l", options="o", value="v")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ('{"prompts": {}}', "key 'questions' is missing"),
        (
            json.dumps({"prompts": {"asr": []}, "questions": {}, "yes_no": {}, "names": {}}),
            "'asr' must list at least one",
        ),
        (json.dumps({"prompts": {"asr": ["  "]}, "questions": {}, "yes_no": {}, "names": {}}), "none of them empty"),
        (json.dumps({"prompts": {"asr": [5]}, "questions": {}, "yes_no": {}, "names": {}}), "must be str, not 5"),
        (json.dumps({"prompts": {"asr": "say"}, "questions": {}, "yes_no": {}, "names": {}}), "must be a list"),
        (json.dumps({"prompts": {}, "questions": {}, "yes_no": {}, "names": {}}), "'questions' needs phrasings for"),
        (
            json.dumps({"prompts": {}, "questions": {"*": ["{labell}?"]}, "yes_no": {"*": ["x"]}, "names": {}}),
            "has a place {labell}; the places are {label}, {options}",
        ),
        (
            json.dumps({"prompts": {}, "questions": {"*": ["x"]}, "yes_no": {"*": ["{value"]}, "names": {}}),
            "'yes_no' -> '[*]': '{value' cannot be filled in",
        ),
    ],
)
def test_a_bad_prompt_bank_is_named(tmp_path, text, complaint):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as error:
        PromptBank.load(path)
    assert str(path) in str(error.value)


def test_a_missing_prompt_is_named():
    with pytest.raises(UserError, match="no prompts for 'asr'"):
        build("asr", tiny_store()[0], KeyedRng(), PromptBank({}, {}, {}))
