import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.io.errors import UserError
from evaluation.cache import Cache, CannotGoOn, bytes_key, key_of

KEY = key_of(a=1)


def place(folder, key=KEY):
    return folder / key[:2] / key


def test_put_and_get(tmp_path):
    cache = Cache(tmp_path / "cache")
    key = key_of(a=1, b="x")
    assert cache.get_json(key) is None
    cache.put_json(key, {"text": "é", "ids": [1, 2]})
    assert Cache(tmp_path / "cache").get_json(key) == {"text": "é", "ids": [1, 2]}
    assert (cache.hits, cache.misses, cache.damaged) == (0, 1, 0)


def test_what_a_kill_leaves_is_no_entry_and_goes(tmp_path):
    cache = Cache(tmp_path)
    cache.put(key_of(a=2), b"whole")
    place(tmp_path).parent.mkdir(exist_ok=True)
    left = [place(tmp_path).with_name(f"{KEY}.123.tmp"), place(tmp_path).with_name(".tmp-123-abcd1234")]
    for path in left:
        path.write_bytes(b"{")
    assert cache.get(KEY) is None
    cache.clean()
    assert not any(path.exists() for path in left) and cache.get(key_of(a=2)) == b"whole"


def test_other_folders_are_read_and_never_written(tmp_path):
    old = Cache(tmp_path / "old")
    old.put(KEY, b"old")
    new = Cache(tmp_path / "new", [tmp_path / "old"])
    assert new.get(KEY) == b"old"
    new.put(key_of(a=2), b"new")
    assert old.get(key_of(a=2)) is None
    with pytest.raises(UserError, match="no such folder of cached outputs"):
        Cache(tmp_path / "new", [tmp_path / "absent"])


def test_keys_are_stable_and_tell_things_apart():
    assert key_of(b=[1, 2], a="x") == key_of(a="x", b=[1, 2])
    assert key_of(a="x") == "79b5877ce299ab9924715b0da3453ee5"  # on any machine, in any process
    zeros = np.zeros(4, np.float32)
    assert bytes_key(zeros) != bytes_key(zeros.reshape(2, 2)) != bytes_key(zeros.view(np.int32))


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_flipped_byte_or_a_cut_is_noticed_and_made_good(tmp_path_factory, content, data):
    folder = tmp_path_factory.mktemp("cache")
    cache, path = Cache(folder), place(folder)
    cache.put(KEY, content)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:at])
    else:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])

    def read(found):  # no content begins as a damaged head does
        if found != content:
            raise ValueError
        return found

    assert cache.get(KEY, read) is None and cache.damaged == 1
    cache.put(KEY, content)
    assert cache.get(KEY, read) == content


def test_an_entry_under_another_key_is_none(tmp_path):
    cache, other = Cache(tmp_path), key_of(a=2)
    cache.put(KEY, b"x")
    place(tmp_path, other).parent.mkdir(exist_ok=True)
    place(tmp_path).rename(place(tmp_path, other))
    assert cache.get(other) is None and cache.damaged == 1


def test_a_damaged_entry_elsewhere_is_made_again_here(tmp_path):
    Cache(tmp_path / "old").put(KEY, b"x")
    place(tmp_path / "old").write_bytes(place(tmp_path / "old").read_bytes()[:-1])
    cache = Cache(tmp_path / "new", [tmp_path / "old"])
    assert cache.get(KEY) is None
    cache.put(KEY, b"x")
    assert cache.get(KEY) == b"x"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"NaN,"])
def test_what_is_no_json_is_made_again(tmp_path, content):
    cache = Cache(tmp_path)
    cache.put(KEY, content)
    assert cache.get_json(KEY) is None and cache.damaged == 1


def test_what_the_system_refuses_names_the_file_and_stops(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    place(tmp_path).mkdir(parents=True)  # in the way
    assert cache.get(KEY) is None
    with pytest.raises(CannotGoOn, match=KEY):
        cache.put(KEY, b"x")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(CannotGoOn, match="No space left on device; make room"):
        cache.put(key_of(a=3), b"x")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
