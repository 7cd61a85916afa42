"""Folders of finished evaluations, and of others."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.io.errors import UserError
from evaluation.compare.run import read_run
from tests.evaluation.compare.folders import SAID, words_folder, words_task, write_folder

KEYS = ("task", "shots", "id", "given", "predictions", "words", "read", "reference", "measured", "tasks", "scores", "n")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


def test_a_folder_is_what_was_written(tmp_path):
    run = read_run(words_folder(tmp_path / "b", SAID | {"x1": "one"}, seed=3))
    entry = run.entries["asr", 0, ""]
    assert run.seed == 3 and run.suites == ("small",) and not run.codecs
    item = entry.items["x1"]
    assert item.readings["words"].measured == (2.0, 3.0) and item.audio == "audio/x1.flac"
    assert item.given == ("Say.", "<audio>") and set(entry.items) == set(SAID)


def test_codecs_have_entries_of_their_own(tmp_path):
    tasks = [words_task(tmp_path / "b", SAID, codec=name) for name in ("x", "y")]
    run = read_run(write_folder(tmp_path / "b", *tasks))
    assert run.codecs == ("x", "y") and set(run.entries) == {("asr", 0, "x"), ("asr", 0, "y")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b.rename(b.parent / "away"), "no such folder"),
        (lambda b: (b / "results.json").unlink(), "holds no results.json"),
        (lambda b: ((b / "results.json").unlink(), (b / "cache").mkdir()), "not finished; run the same"),
        (lambda b: (b / "samples.jsonl").unlink(), "no samples.jsonl"),
        (lambda b: (b / "samples.jsonl").write_text(""), "has 0 items of the task 'asr', results.json 4"),
        (lambda b: (b / "samples.jsonl").write_text("{}\n"), "line 1: not the answer to an item"),
        (lambda b: (b / "results.json").write_text("{}"), "not the results of an evaluation"),
        (lambda b: (b / "results.json").write_text("[3"), "not JSON"),
    ],
)
def test_a_folder_that_cannot_be_compared_is_one_sentence(tmp_path, change, said):
    b = words_folder(tmp_path / "b", SAID)
    change(b)
    with pytest.raises(UserError, match=said) as error:
        read_run(b)
    assert str(b) in str(error.value) and "\n" not in str(error.value)


def test_a_folder_of_an_earlier_version_is_to_be_evaluated_again(tmp_path):
    b = words_folder(tmp_path / "b", SAID)
    lines = [json.loads(line) for line in (b / "samples.jsonl").read_text().splitlines()]
    for line in lines:
        del line["predictions"]["words"]["measured"]
    (b / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match="a version that kept no value of each item; run the same `uniaudio evaluate`"):
        read_run(b)
    assert read_run(b, items=False).entries["asr", 0, ""].scores["words"]["value"] == 0


def test_one_item_answered_twice(tmp_path):
    b = words_folder(tmp_path / "b", SAID)
    path = b / "samples.jsonl"
    path.write_text(path.read_text() * 2)
    with pytest.raises(UserError, match="line 5: a second answer to the item x1"):
        read_run(b)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from(["results.json", "samples.jsonl"]), st.sampled_from(["", *KEYS]))
def test_no_value_in_its_place_ends_in_a_traceback(tmp_path_factory, value, name, key):
    """The whole file, or the value of a key wherever it stands, is something else."""
    b = words_folder(tmp_path_factory.mktemp("r") / "b", {"x1": "one"})
    plain = json.loads((b / name).read_text())

    def damaged(node):
        if isinstance(node, dict):
            return {k: value if k == key else damaged(v) for k, v in node.items()}
        return [damaged(one) for one in node] if isinstance(node, list) else node

    (b / name).write_text(json.dumps(damaged(plain) if key else value))
    try:
        run = read_run(b)
    except UserError as error:
        assert str(b) in str(error)
    else:
        assert run.entries is not None
