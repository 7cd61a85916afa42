"""Tasks over the tokens of any codec: what is left of those that were written for ReasoningCodec."""

from dataclasses import replace

import pytest

from codec.io.errors import UserError
from codec.streams import StreamSpec
from evaluation.streams import fit_to_streams, summary
from evaluation.task import TASKS_FOLDER, load_task
from tests.factories.tokens import two_streams

ONE_STREAM = (StreamSpec("codes", 50.0, 8, 1024, extra_frame=False),)
TASKS = sorted(path.stem for path in TASKS_FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", TASKS)
def test_nothing_changes_for_reasoning_codec(name):
    task = load_task(name)
    assert fit_to_streams(task, two_streams(256, 256)) == (task, ())


@pytest.mark.parametrize("name", TASKS)
def test_every_task_fits_a_codec_of_one_stream(name):
    task = load_task(name)
    fitted, changes = fit_to_streams(task, ONE_STREAM)
    text = repr((fitted.generation, fitted.classification))
    assert "descriptive" not in text and "structural" not in text
    assert bool(changes) == (fitted != task)
    assert replace(fitted, generation=task.generation, classification=task.classification) == task


def test_an_answer_may_last_as_long():
    task = load_task("tts")
    fitted, _ = fit_to_streams(task, ONE_STREAM)
    assert (task.generation.max_rows, fitted.generation.max_rows) == (110, 315)  # 6.3 s
    in_seconds = replace(task, generation=replace(task.generation, max_seconds=4.0))
    assert fit_to_streams(in_seconds, ONE_STREAM).task.generation.max_rows == 110
    of_text = load_task("asr")
    assert fit_to_streams(of_text, ONE_STREAM).task == of_text


def test_changes_are_summed_up_over_tasks():
    fitted = [fit_to_streams(load_task(name), ONE_STREAM) for name in ("sound_2_way", "sound_2_way", "accent_2_way")]
    (line,) = summary(fitted)
    assert line == "sound_2_way, accent_2_way: examples as whole audio, since the codec has no descriptive stream"


def test_a_stream_that_no_codec_has_is_misspelt():
    task = load_task("sound_2_way")
    wrong = replace(task, classification=replace(task.classification, examples_as="descriptiv"))
    for specs in (ONE_STREAM, two_streams(256, 256)):
        with pytest.raises(UserError, match=r"sound_2_way.*'descriptiv'.*did you mean 'descriptive'"):
            fit_to_streams(wrong, specs)
    speech = load_task("tts")
    wrong = replace(speech, generation=replace(speech.generation, stream_guidance={"structual": 1.0}))
    with pytest.raises(UserError, match=r"stream_guidance is about a stream 'structual'.*did you mean 'structural'"):
        fit_to_streams(wrong, ONE_STREAM)
