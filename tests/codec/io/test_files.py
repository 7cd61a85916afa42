"""What is written for people: whole or not at all, never over what is there, never outside of the folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.io import files
from codec.io.errors import UserError
from codec.io.files import file_name_of, inside, new_file, new_folder, remove_leftovers, replace_file, require_free

AS_ROOT = os.geteuid() == 0


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_result_appears_whole_with_its_folders_and_the_usual_mode(tmp_path):
    path = tmp_path / "a" / "b" / "out.wav"
    before = os.umask(0o027)
    try:
        with new_file(path) as temporary:
            temporary.write_bytes(b"sound")
            assert temporary.parent == path.parent and temporary.suffix == ".wav" and not path.exists()
    finally:
        os.umask(before)
    assert path.read_bytes() == b"sound" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert left_in(path.parent) == {"out.wav"}


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), UserError("x: no"), OSError(28, "full")])
def test_work_that_fails_leaves_nothing_not_even_folders(tmp_path, error):
    with pytest.raises((type(error), UserError)):
        with new_file(tmp_path / "a" / "b" / "out.wav") as temporary:
            temporary.write_bytes(b"half")
            raise error
    assert left_in(tmp_path) == set()
    with pytest.raises((type(error), UserError)), new_folder(tmp_path / "c" / "run") as scratch:
        (scratch / "file").write_bytes(b"half")
        raise error
    assert left_in(tmp_path) == set()


def test_what_is_there_stays_unless_forced(tmp_path):
    path = tmp_path / "out.wav"
    path.write_bytes(b"dear to somebody")
    path.chmod(0o440)
    with pytest.raises(UserError, match="exists already .*--force"), new_file(path):
        raise AssertionError("the work must not begin")
    assert path.read_bytes() == b"dear to somebody"
    with new_file(path, force=True) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o440


def test_two_writers_of_one_name_do_not_replace_each_other(tmp_path, monkeypatch):
    path = tmp_path / "out.wav"
    with pytest.raises(UserError, match="exists already|has come to exist"), new_file(path) as temporary:
        temporary.write_bytes(b"second")
        path.write_bytes(b"first")
    with pytest.raises(UserError, match="has come to exist meanwhile"), new_file(path.with_name("b")) as temporary:
        temporary.write_bytes(b"second")  # between the last look and the renaming
        monkeypatch.setattr(files, "require_free", lambda *args, **more: path.with_name("b").write_bytes(b"first"))
    assert path.read_bytes() == path.with_name("b").read_bytes() == b"first"
    assert left_in(tmp_path) == {"out.wav", "b"}


def test_a_disk_without_hard_links_is_written_too(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with new_file(tmp_path / "out.wav") as temporary:
        temporary.write_bytes(b"sound")
    assert left_in(tmp_path) == {"out.wav"}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("how", ["itself", "another spelling", "link", "hard link", "link to a folder"])
def test_an_input_is_never_written_over(tmp_path, how, force):
    given_file, out = tmp_path / "in.wav", tmp_path / "out.wav"
    given_file.write_bytes(b"recording")
    if how == "itself":
        out = given_file
    elif how == "another spelling":
        (tmp_path / "d").mkdir()
        out = tmp_path / "d" / ".." / "in.wav"
    elif how == "link":
        out.symlink_to(given_file)
    elif how == "hard link":
        out.hardlink_to(given_file)
    else:
        (tmp_path / "d").symlink_to(tmp_path)
        out = tmp_path / "d" / "in.wav"
    with pytest.raises(UserError, match="is what is read"):
        require_free(out, force=force, inputs=["nothing.wav", given_file])
    assert given_file.read_bytes() == b"recording"


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (None, ".", "is a folder"),
        (None, "", "is a folder"),
        (lambda p: p.mkdir(), "out", "is a folder"),
        (lambda p: p.symlink_to(p.parent), "out", "is a folder"),
        (lambda p: os.mkfifo(p), "out", "no ordinary file"),
        (lambda p: p.symlink_to("/dev/zero"), "out", "no ordinary file"),
        (lambda p: p.symlink_to("nowhere"), "out", "exists already"),
        (lambda p: p.symlink_to(p.name), "out", "exists already|links lead in a circle"),
        (lambda p: p.parent.joinpath("file").write_text(""), "file/out", "is not a folder|part of it is a file"),
        (None, "n" * 300, "shorter name"),
        (None, "a\0b", "not a name that a file can have"),
    ],
)
def test_places_that_take_no_file_are_named_before_the_work(tmp_path, make, name, message):
    path = tmp_path / name
    if make:
        make(path if "/" not in name else path.parent.parent / "out")
    with pytest.raises(UserError, match=message):
        require_free(path)
    assert not [left for left in left_in(tmp_path) if left.startswith(".tmp-")]


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_said_so(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="permissions"):
        require_free(tmp_path / "a" / "out.wav")
    tmp_path.chmod(0o700)


def test_the_longest_names_can_be_written(tmp_path):
    for name in ("n" * 255, "n" * 200 + "." + "s" * 54, "\u97f3" * 85, ".wav", "a b\tc\n.wav", "-o"):
        with new_file(tmp_path / name) as temporary:
            temporary.write_bytes(b"sound")
        assert (tmp_path / name).read_bytes() == b"sound"
        (tmp_path / name).unlink()
    assert left_in(tmp_path) == set()


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "out").symlink_to("theirs")
    with new_file(tmp_path / "out", force=True) as temporary:
        temporary.write_bytes(b"ours")
    assert (tmp_path / "theirs").read_bytes() == b"theirs" and not (tmp_path / "out").is_symlink()


def test_files_of_the_program_keep_their_mode_even_one_that_forbids_reading(tmp_path):
    path = tmp_path / "manifest.json"
    for mode in (0o600, 0o000):
        path.touch()
        path.chmod(mode)
        with replace_file(path) as temporary:
            temporary.write_text("{}")
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_folder_that_is_there_is_never_written_over(tmp_path):
    for name in ("empty", "link"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / name).exists() or (tmp_path / name).symlink_to("nowhere")
        with pytest.raises(UserError, match="exists already"), new_folder(tmp_path / name):
            raise AssertionError("the work must not begin")
    with new_folder(tmp_path / "deep" / "run") as scratch:
        (scratch / "part").mkdir()
        (scratch / "part" / "file").write_text("x")
    assert (tmp_path / "deep" / "run" / "part" / "file").read_text() == "x"
    assert left_in(tmp_path / "deep") == {"run"}


def test_only_leftovers_are_cleaned(tmp_path):
    for name in (".tmp-12-abc", "out.tmp-12", ".hidden"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".tmp-13").mkdir()
    (tmp_path / ".tmp-13" / "half").write_text("x")
    (tmp_path / "theirs").mkdir()
    (tmp_path / ".tmp-link").symlink_to("theirs")
    remove_leftovers(tmp_path)
    assert left_in(tmp_path) == {"out.tmp-12", ".hidden", "theirs"}


ODD = ["", ".", "..", "a/b", "../../x", "/etc/passwd", "A", "a", "a.", "con", "NUL.txt", "a\0b", "\ud800", "x" * 300]
IDS = st.text(max_size=150) | st.sampled_from(ODD) | st.from_regex(r"[a-z0-9_.-]{1,110}", fullmatch=True)


@given(IDS)
def test_a_name_for_any_id_is_a_plain_file_name(identity):
    name = file_name_of(identity)
    assert 0 < len(name.encode()) <= 120 and name.isascii() and name == name.lower()
    assert not set(name) & set('/\\:*?"<>|\0\n ') and name[0] not in ".-" and not name.endswith((".", " "))
    assert name.split(".")[0] not in {"con", "prn", "aux", "nul", "com1", "lpt9"}
    assert name == file_name_of(identity) and Path(name).name == name


@given(IDS, IDS)
def test_other_ids_have_other_names_on_any_disk(one, other):
    assert (file_name_of(one).casefold() == file_name_of(other).casefold()) == (one == other)
    # Nor is the name made for one id the plain name of another.
    made = file_name_of(one)
    assert made == one or file_name_of(made) != made


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "link", "out"]), max_size=6))
def test_no_name_leads_out_of_its_folder(tmp_path_factory, parts):
    folder = tmp_path_factory.getbasetemp() / "home"
    folder.mkdir(exist_ok=True)
    for name, target in (("link", "."), ("out", "..")):
        if not os.path.lexists(folder / name):
            (folder / name).symlink_to(target)
    name = "/".join(parts)
    try:
        path = inside(folder, name)
    except UserError as error:
        assert "plain name" in str(error)
    else:
        assert path.resolve().is_relative_to(folder.resolve()) and path.resolve() != folder.resolve()


@pytest.mark.parametrize("name", ["/etc/passwd", "a\0b", "loop", "..", "", "."])
def test_names_within_a_folder_that_are_none(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="use a plain name"):
        inside(tmp_path, name)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_only_files_are_replaced_even_by_the_program_itself(tmp_path, kind):
    path = tmp_path / "thing"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(UserError, match="no ordinary file"), replace_file(path):
        raise AssertionError("the work must not begin")
    assert path.is_fifo() or path.is_dir()
