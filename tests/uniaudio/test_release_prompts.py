"""A release's prompts: read strictly, kept with the model, and used in place of ours."""

import json

import pytest

from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import request
from codec.io.errors import UserError
from tests.factories.uniaudio import tiny_uniaudio
from uniaudio.model import UniAudio
from uniaudio.release_prompts import PROMPTS_FILE, bank_of, read_prompts, save_prompts, unused, used

PROMPTS = {"TTS": ["Utter this."], "TTM": ["Play it.", "Let it sound."], "Yue_ASR": ["One more."]}


def written(folder, content) -> str:
    path = folder / "release.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_tasks_have_the_releases_names_or_ours(tmp_path):
    prompts = read_prompts(written(tmp_path, PROMPTS))
    assert prompts == PROMPTS and list(prompts) == list(PROMPTS)
    assert used(prompts) == {"tts": ["Utter this."], "music_generation": PROMPTS["TTM"]} and unused(prompts) == [
        "Yue_ASR"
    ]
    assert used(read_prompts(written(tmp_path, {"sound_caption": ["What is it?"]}))) == {
        "sound_caption": ["What is it?"]
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("[1]", "expected tasks with lists"),
        ("{}", "expected tasks with lists"),
        ("3", "expected tasks with lists"),
        ({"TTS": "Say it."}, "'TTS' must list 1 to"),
        ({"TTS": []}, "'TTS' must list 1 to"),
        ({"TTS": {"a": "b"}}, "'TTS' must list 1 to"),
        ({"TTS": ["Say it.", " "]}, "'TTS', sentence 2: must be text"),
        ({"TTS": ["Say it.", None]}, "'TTS', sentence 2: must be text"),
        ({"TTS": [3]}, "'TTS', sentence 1: must be text"),
        ({"TTS": ["x" * 20_000]}, "'TTS', sentence 1: must be text"),
        ('{"TTS": ["a"], "TTS": ["b"]}', "stands twice"),
        ({"TTS": ["a"], "tts": ["b"]}, "'tts' and 'TTS' are one task|'TTS' and 'tts' are one task"),
        ({"Sing": ["a"]}, "names no task that this program has"),
        ('{"TTS": ' + "[" * 50_000, "not JSON"),
    ],
)
def test_what_is_no_file_of_prompts_is_named(tmp_path, content, message):
    with pytest.raises(UserError, match=rf"release.json: .*({message})") as refused:
        read_prompts(written(tmp_path, content))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


def test_a_model_speaks_in_its_own_words(tmp_path):
    uniaudio = tiny_uniaudio()
    uniaudio.save_pretrained(tmp_path)
    assert not (tmp_path / PROMPTS_FILE).exists() and bank_of(tmp_path).prompts == PromptBank.load().prompts
    save_prompts(PROMPTS, tmp_path)
    model = UniAudio.from_pretrained(tmp_path)

    def words(asked) -> str:
        return asked.sentence.segments[0].content

    assert words(model.request("tts", text="a")) == "Utter this."
    assert words(model.request("music_generation", caption="a")) in PROMPTS["TTM"]
    assert len({words(model.request("music_generation", caption="a")) for _ in range(5)}) == 1
    ours = request("sound_generation", caption="a")
    assert words(model.request("sound_generation", caption="a")) == words(ours), "for a task that it says nothing of"
    assert words(model.request("tts", "Now this.", text="a")) == "Now this."
    with pytest.raises(UserError, match="the prompt is empty"):
        model.request("tts", "  ", text="a")
    model.save_pretrained(tmp_path / "again")
    assert UniAudio.from_pretrained(tmp_path / "again").bank.prompts == model.bank.prompts
