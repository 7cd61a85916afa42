import numpy as np
import pytest

from codec.errors import UserError
from evaluation.cache import Cache, bytes_key, key_of


def test_put_and_get(tmp_path):
    cache = Cache(tmp_path / "cache")
    key = key_of(a=1, b="x")
    assert cache.get_json(key) is None
    cache.put_json(key, {"text": "é", "ids": [1, 2]})
    assert Cache(tmp_path / "cache").get_json(key) == {"text": "é", "ids": [1, 2]}
    assert (cache.hits, cache.misses) == (0, 1)


def test_a_half_written_entry_is_none(tmp_path):
    cache = Cache(tmp_path)
    key = key_of(a=1)
    (tmp_path / key[:2]).mkdir()
    (tmp_path / key[:2] / f"{key}.123.tmp").write_bytes(b"{")  # what a kill leaves
    assert cache.get(key) is None


def test_other_folders_are_read_and_never_written(tmp_path):
    old = Cache(tmp_path / "old")
    old.put(key_of(a=1), b"old")
    new = Cache(tmp_path / "new", [tmp_path / "old"])
    assert new.get(key_of(a=1)) == b"old"
    new.put(key_of(a=2), b"new")
    assert old.get(key_of(a=2)) is None
    with pytest.raises(UserError, match="no such folder of cached outputs"):
        Cache(tmp_path / "new", [tmp_path / "absent"])


def test_keys_are_stable_and_tell_things_apart():
    assert key_of(b=[1, 2], a="x") == key_of(a="x", b=[1, 2])
    assert key_of(a="x") == "79b5877ce299ab9924715b0da3453ee5"  # on any machine, in any process
    zeros = np.zeros(4, np.float32)
    assert bytes_key(zeros) != bytes_key(zeros.reshape(2, 2)) != bytes_key(zeros.view(np.int32))
