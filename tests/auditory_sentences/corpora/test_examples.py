"""A folder of examples: recordings and one table; what is wrong is said with file and row."""

import json

import pytest

from auditory_sentences.builders.tasks import find_task
from auditory_sentences.corpora.examples import read_examples
from codec.io.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "b.wav", "c.wav"):
        (tmp_path / name).write_bytes(b"")  # that there is one is all that is looked at
    return tmp_path


def lines(folder, *rows, name="examples.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_every_kind_of_table_says_the_same(folder):
    expected = [{"audio": folder / "a.wav", "answer": "one, two"}, {"audio": folder / "b.wav", "answer": "3"}]
    lines(folder, {"audio": "a.wav", "answer": "one, two"}, {"audio": "b.wav", "answer": 3})
    assert read_examples(folder, find_task("asr")) == expected
    assert read_examples(folder / "examples.jsonl", find_task("asr")) == expected
    (folder / "examples.jsonl").unlink()
    for name, text in {
        "examples.csv": 'answer,audio\n"one, two",a.wav\n3,b.wav\n',
        "examples.tsv": "audio\tanswer\na.wav\tone, two\nb.wav\t3\n",
    }.items():
        (folder / name).write_text(text)
        assert read_examples(str(folder), find_task("asr")) == expected
        (folder / name).unlink()


def test_an_audio_answer_is_a_file_and_of_several_a_list(folder):
    lines(folder, {"audio": "a.wav", "answer": ["b.wav", "c.wav"]})
    assert read_examples(folder, find_task("separation")) == [
        {"audio": folder / "a.wav", "answer": [folder / "b.wav", folder / "c.wav"]}
    ]
    with pytest.raises(UserError, match="line 1: 'answer' is a list of 2; an example of 'denoising' has audio, answer"):
        read_examples(folder, find_task("denoising"))


@pytest.mark.parametrize(
    ("task", "row", "said"),
    [
        ("asr", {"audio": "a.wav"}, "line 2: the part 'answer' is missing; an example of 'asr' has audio, answer"),
        ("asr", {"audio": "a.wav", "answer": ""}, "line 2: the part 'answer' is missing"),
        ("asr", {"audio": "a.wav", "answer": "  "}, "line 2: 'answer' is empty"),
        ("asr", {"audio": "a.wav", "answer": True}, "line 2: 'answer' must be text"),
        ("asr", {"audio": "a.wav", "text": "one", "answer": "one"}, "line 2: there is no part 'text'"),
        ("asr", {"audio": "d.wav", "answer": "one"}, "d.wav does not exist; correct the name"),
        ("asr", {"audio": ".", "answer": "one"}, "is no ordinary file"),
        ("asr", {"audio": 3, "answer": "one"}, "line 2: 'audio' is the name of a sound file, not 3"),
        ("asr", {"audio": "https://x.org/a.wav", "answer": "one"}, "is an address"),
        ("asr", {"audio": "a\0.wav", "answer": "one"}, "not a name that a file can have"),
        ("separation", {"audio": "a.wav", "answer": "b.wav"}, "line 2: 'answer' of 'separation' is a list of files"),
        ("tts", {"audio": "a.wav", "answer": "b.wav"}, "an example of 'tts' has text, answer"),
    ],
)
def test_a_row_that_is_no_example_is_named(folder, task, row, said):
    (folder / "examples.jsonl").write_text("\n" + json.dumps(row))
    with pytest.raises(UserError) as stop:
        read_examples(folder, find_task(task))
    assert said in str(stop.value) and "examples.jsonl" in str(stop.value)


def test_a_folder_without_a_table_or_with_two_is_refused(folder):
    task = find_task("asr")
    with pytest.raises(UserError, match="holds no examples.jsonl or examples.csv; .* the columns audio, answer"):
        read_examples(folder, task)
    with pytest.raises(UserError, match="there is no such folder of examples"):
        read_examples(folder / "none", task)
    with pytest.raises(UserError, match="a table ends in"):
        read_examples(folder / "a.wav", task)
    lines(folder)
    with pytest.raises(UserError, match="examples.jsonl: holds no example; write a row for each"):
        read_examples(folder, task)
    (folder / "examples.csv").write_text("audio,answer\na.wav,one\n")
    with pytest.raises(UserError, match="examples.csv and examples.jsonl; keep one"):
        read_examples(folder, task)
