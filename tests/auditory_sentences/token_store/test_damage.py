"""Token stores that are damaged, lost in part, or refused by the system: named, made anew, never lost."""

import hashlib
import json
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import MANIFEST, TokenStore, build_store
from auditory_sentences.token_store.manifest import Damaged
from codec.io.errors import UserError
from tests.factories.tokenizer import FakeTokenizer


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_one_byte_is_never_changed_unseen(finished, tmp_path_factory, data):
    store = shutil.copytree(finished, tmp_path_factory.mktemp("flip") / "store")
    name = data.draw(st.sampled_from(sorted(os.listdir(store))))
    content = bytearray((store / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (store / name).write_bytes(content)
    try:
        opened = TokenStore(store)
        opened.verify()
    except UserError as error:
        assert name in str(error) and "delete" not in str(error)
    else:  # blanks of a JSON file, capitals of a hash that is compared as text
        whole = TokenStore(finished)
        assert opened.clips == whole.clips and all(a.tokens.equal(b.tokens) for a, b in zip(opened, whole, strict=True))


@pytest.mark.parametrize("lost", ["shard-00001.arrow", "sources-00001.json", "both"])
def test_what_is_lost_is_made_anew_in_its_place(clips, finished, store, lost):
    for name in ("shard-00001.arrow", "sources-00001.json") if lost == "both" else (lost,):
        (store / name).unlink()
    with pytest.raises(UserError, match="00001.*missing"):
        TokenStore(store).verify()
    tokenizer = FakeTokenizer()
    again = build_store(clips, tokenizer, store, shard_clips=8)
    assert sum(tokenizer.batches) == (0 if lost.startswith("sources") else 8)
    assert again.data_hash == TokenStore(finished).data_hash and again.clips == tuple(clips)


def test_a_damaged_shard_is_not_replaced_by_less(clips, store):
    shard = store / "shard-00001.arrow"
    damaged = shard.read_bytes()[:-9]
    shard.write_bytes(damaged)
    given = [*clips[:9], Clip("c9", "/nowhere/c9.wav", "music", "train"), *clips[10:]]
    with pytest.raises(UserError, match="damaged, and 1 of its clips cannot be made anew.*restore"):
        build_store(given, FakeTokenizer(), store, shard_clips=8)
    assert shard.read_bytes() == damaged


@pytest.mark.parametrize("rows", [None, {}, [None], [["c8"]], [["c8", 1, "", ""]], [["c8", "x", "", "", ""]]])
def test_a_list_of_recordings_of_another_form_is_named(store, rows):
    path = store / "sources-00001.json"
    values = json.loads(path.read_text()) | {"clips": rows}
    del values["hash"]
    path.write_text(
        json.dumps(values | {"hash": hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()})
    )
    with pytest.raises(Damaged, match="sources-00001.json: lists no recordings"):
        TokenStore(store).verify()


# ---- what the system refuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [MANIFEST, "shard-00001.arrow", "sources-00001.json"])
def test_what_may_not_be_read_is_not_called_damaged(clips, store, name, monkeypatch):
    """Permissions do not bind root, hence not by chmod."""
    whole = (store / name).read_bytes()
    opened = open

    def refuse(path, *arguments, **options):
        if isinstance(path, str | os.PathLike) and os.fspath(path).endswith(name):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    for ask in (lambda: TokenStore(store).verify(), lambda: build_store(clips, FakeTokenizer(), store)):
        with pytest.raises(UserError, match=f"{name}: Permission denied; change its permissions") as refused:
            ask()
        assert not any(word in str(refused.value) for word in ("delete", "again", "damaged"))
    monkeypatch.undo()
    assert (store / name).read_bytes() == whole


@pytest.mark.parametrize("where", ["a file", "below a file", "a name that is too long"])
def test_places_where_no_store_can_be(clips, tmp_path, where):
    (tmp_path / "file").write_text("of somebody")
    folder = tmp_path / {"a file": "file", "below a file": "file/store"}.get(where, "n" * 300)
    for ask in (lambda: build_store(clips, FakeTokenizer(), folder), lambda: TokenStore(folder)):
        with pytest.raises(UserError, match=folder.name):
            ask()
    with pytest.raises(UserError, match="not a name that a folder can have"):
        TokenStore("a\0b")
    assert (tmp_path / "file").read_text() == "of somebody" and os.listdir(tmp_path) == ["file"]
