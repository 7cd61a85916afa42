"""Settings: their ranges, what a model's folder says of a task, and that they need no PyTorch."""

import subprocess
import sys

import pytest
from transformers import GenerationConfig

from codec.io.errors import UserError
from lm.generation.settings import GenerationSettings, merged_settings, settings_for
from tests import ROOT


@pytest.mark.parametrize(
    "values, named",
    [
        ({"max_rows": 0}, "max_rows"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"guidance": -2.0}, "guidance"),
        ({"stream_temperature": {"structural": -1.0}}, "stream_temperature"),
        ({"stream_guidance": {"structural": float("inf")}}, "stream_guidance"),
    ],
)
def test_impossible_settings_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        GenerationSettings(**values)


def test_a_task_takes_its_own_before_those_of_all():
    sampling = {"all": {"temperature": 0.5, "top_k": 30}, "tts": {"temperature": 0.2, "stream_guidance": {"a": 1.5}}}
    speech, music = (settings_for(GenerationConfig(sampling=sampling), task) for task in ("tts", "music_generation"))
    assert (speech.temperature, speech.top_k, speech.guidance_of("a"), speech.guidance_of("b")) == (0.2, 30, 1.5, 1.0)
    assert (music.temperature, music.temperature_of("a"), music.stream_guidance) == (0.5, 0.5, {})
    assert settings_for(None, "tts") == GenerationSettings()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"temperatures": 1}, "r.yaml: unknown key 'temperatures'; did you mean 'temperature'"),
        ({"max_rows": 10**6}, "'max_rows' must be at least 1 and at most 100000"),
        ({"guidance": 0.5}, "'guidance' must be at least 1"),
        ({"stream_temperature": {"a": -1}}, "stream_temperature"),
        ({"max_seconds": 0}, "max_seconds"),
    ],
)
def test_what_a_file_gets_wrong_is_one_sentence(values, message):
    with pytest.raises(UserError, match=message):
        merged_settings({"all": values}, "tts", "r.yaml")


@pytest.mark.parametrize("sampling", [3, ["tts"], {"tts": 0.2}])
def test_settings_that_do_not_stand_under_tasks_are_refused(sampling):
    with pytest.raises(UserError, match="must hold settings under the names of tasks"):
        settings_for(GenerationConfig(sampling=sampling), "tts")


def test_they_need_no_pytorch():
    code = "import sys, lm.generation.settings; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "False\n"
