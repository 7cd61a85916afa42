"""Whose results are in a folder, and when they are replaced."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.io.errors import UserError
from evaluation.results_folder import ResultsFolder, identity_of, identity_of_parts

SETTINGS = {"limit": 40, "untrained_limit": 16, "seed": 0, "shots": [0]}
PARTS = {
    "model": {"fingerprint": "m"}, "codec": {"fingerprint": "c", "decoding": "d"},
    "data": {"fingerprint": "c", "clips": 3, "hash": "h"},
}  # fmt: skip
TASKS = [("asr", 0, "f0"), ("asr", 1, "f0")]


KEYS = ("suites", "settings", "tasks", "model", "codec", "data", "fingerprint", "task", "shots")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


def results(**other):
    tasks = [{"task": task, "shots": shots, "fingerprint": found} for task, shots, found in TASKS]
    return {"format": 1, "suites": [{"suite": "s"}], "settings": SETTINGS, "tasks": tasks} | PARTS | other


def asked(suites=("s",), tasks=TASKS, settings=SETTINGS, parts=PARTS):
    return identity_of(suites, tasks, settings) | identity_of_parts(parts)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results()))
    return tmp_path


def test_the_same_evaluation_may_run_again(folder):
    ResultsFolder(folder).require_same(asked())
    ResultsFolder(folder).require_same(asked(tasks=TASKS[::-1], settings=SETTINGS | {"shots": None}))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"suites": ("t",)}, "suites"),
        ({"suites": ("s", "t")}, "suites"),
        ({"tasks": TASKS[:1]}, "tasks"),
        ({"tasks": [("asr", 0, "f1"), TASKS[1]]}, "tasks"),
        ({"settings": SETTINGS | {"limit": 39}}, "limit"),
        ({"settings": SETTINGS | {"limit": None}}, "limit"),
        ({"settings": SETTINGS | {"seed": 1}}, "seed"),
        ({"settings": SETTINGS | {"untrained_limit": 0}}, "untrained_limit"),
        ({"parts": PARTS | {"model": {"fingerprint": "n"}}}, "model"),
        ({"parts": {k: v for k, v in PARTS.items() if k != "model"}}, "model"),
        ({"parts": PARTS | {"codec": {"fingerprint": "b", "decoding": "d"}}}, "codec"),
        ({"parts": PARTS | {"codec": {"fingerprint": "c", "decoding": "e"}}}, "codec"),
        ({"parts": PARTS | {"data": PARTS["data"] | {"hash": "i"}}}, "data"),
    ],
)
def test_another_one_is_refused_and_says_how_they_differ(folder, other, named):
    with pytest.raises(UserError, match=rf"holds the results of another evaluation \({named}: .* --out, or --force"):
        ResultsFolder(folder).require_same(asked(**other))
    ResultsFolder(folder, force=True).require_same(asked(**other))


def test_results_of_earlier_versions_say_less_and_are_known(tmp_path):
    data, codec = {"fingerprint": "c", "clips": 3}, {"fingerprint": "c"}
    (tmp_path / "results.json").write_text(json.dumps(results(data=data, codec=codec)))
    ResultsFolder(tmp_path).require_same(asked())


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[1, 2]", b"{}", b'{"accuracy": 0.5}', b"\xff\xfe", b'{"tasks": 3}', b'{"tasks": [{}]}',
        json.dumps(results())[:-30].encode(), json.dumps(results(codec=None)).encode(), b"[" * 100_000,
        json.dumps(results(suites="s", settings=[])).encode(),
    ],
)  # fmt: skip
def test_a_file_of_somebody_else_is_never_replaced(tmp_path, content, force):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(UserError, match="results.json"):
        ResultsFolder(tmp_path, force)
    assert (tmp_path / "results.json").read_bytes() == content


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_no_value_in_its_place_ends_in_a_traceback(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("r")
    (folder / "results.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match="results.json"):
        ResultsFolder(folder)


@pytest.mark.parametrize("name", ["samples.jsonl", "results.md", "report.html", "audio"])
def test_a_folder_of_other_things_is_not_written_into(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"holds {name}, but no results.json"):
        ResultsFolder(tmp_path)
    (tmp_path / "cache").mkdir()  # an evaluation that was killed
    ResultsFolder(tmp_path)


def test_only_the_sounds_of_replaced_results_go(folder):
    (folder / "audio" / "asr-0").mkdir(parents=True)
    (folder / "x.flac").write_bytes(b"mine")
    for name in ("old", "kept", "unnamed"):
        (folder / "audio" / "asr-0" / f"{name}.flac").write_bytes(b"sound")
    named = ["audio/asr-0/old.flac", "audio/asr-0/kept.flac", "audio/../x.flac", "x.flac", "/etc/x.flac", 3, None]
    (folder / "samples.jsonl").write_text("".join(json.dumps({"audio": name}) + "\n" for name in named))
    ResultsFolder(folder, force=True).drop_old_sounds(["audio/asr-0/kept.flac"])
    assert sorted(path.name for path in folder.rglob("*.flac")) == ["kept.flac", "unnamed.flac", "x.flac"]


def test_what_a_kill_left_half_written_goes(folder):
    (folder / "audio" / "asr-0").mkdir(parents=True)
    left = [folder / ".tmp-1-ab.json", folder / "audio" / "asr-0" / ".tmp-2-cd.flac"]
    for path in left:
        path.touch()
    ResultsFolder(folder).clean()
    assert not any(map(os.path.exists, left)) and (folder / "results.json").exists()
