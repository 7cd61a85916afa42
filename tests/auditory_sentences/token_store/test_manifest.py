"""store.json: what was edited, cut or is of something else is one sentence."""

import hashlib
import json

import pytest

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import MANIFEST, TokenStore, build_store
from codec.io.errors import UserError
from tests.factories.tokenizer import FakeTokenizer


def edit(store, change):
    """Change the manifest and renew its hash, as somebody would who knows how."""
    values = json.loads((store / MANIFEST).read_text())
    del values["format"], values["hash"]
    change(values)
    text = json.dumps(values, sort_keys=True)
    (store / MANIFEST).write_text(json.dumps({"format": 2, "hash": hashlib.sha256(text.encode()).hexdigest()} | values))


EDITS = {
    "a shard in another folder": (lambda m: m["shards"][1].update(file="../shard-00001.arrow"), "own folder"),
    "an absolute shard": (lambda m: m["shards"][1].update(file="/etc/passwd"), "own folder"),
    "a shard twice": (lambda m: m["shards"].append(m["shards"][0]), "listed twice"),
    "a negative number": (lambda m: m["shards"][0].update(clips=-1), "at least 0"),
    "text for a number": (lambda m: m["shards"][0].update(bytes="many"), "bytes"),
    "true for a number": (lambda m: m["shards"][0].update(samples=True), "samples"),
    "no checksum": (lambda m: m["shards"][0].update(sha256=""), "sha256"),
    "a key too many": (lambda m: m.update(surprise=1), "unknown key 'surprise'"),
    "a key too few": (lambda m: m.pop("fingerprint"), "fingerprint"),
    "no list": (lambda m: m.update(shards={"a": 1}), "must be a list"),
    "null for a shard": (lambda m: m["shards"].append(None), "expected keys"),
    "no codes": (lambda m: m["streams"][0].update(codes=0), "codes"),
    "no frames": (lambda m: m["streams"][1].update(rate=-1.0), "rate"),
    "no stream": (lambda m: m.update(streams=[]), "streams"),
    "one stream twice": (lambda m: m.update(streams=m["streams"][:1] * 2), "streams"),
    "a stream named as a field": (lambda m: m["streams"][0].update(name="text"), "cannot be called"),
    "two ids a frame": (lambda m: m["streams"][0].update(codebooks=3), "for each frame"),
    "other counts": (lambda m: m["shards"][1].update(clips=7), "clips that the store lists"),
    "a failure without an id": (lambda m: m["shards"][0].update(failures=[{"path": "x"}]), "failures"),
    "unfinished": (lambda m: m.update(complete=False), "not finished"),
    "no shard at all": (lambda m: m.update(shards=[]), "holds no clip"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_manifest_is_one_sentence(store, name):
    change, fault = EDITS[name]
    edit(store, change)
    with pytest.raises(UserError, match=fault) as refused:
        TokenStore(store).verify()
    assert str(store) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"format": 99}', '{"format": 1', '{"format": [1]}', "3"])
def test_a_folder_without_a_good_manifest(tmp_path, content):
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
        with pytest.raises(UserError, match=MANIFEST):
            build_store([Clip("a", "a.wav", "sound", "train")], FakeTokenizer(), tmp_path)
        assert (tmp_path / MANIFEST).read_text() == content
    with pytest.raises(UserError, match=str(tmp_path)):
        TokenStore(tmp_path)


def test_where_the_tokenizer_lies_is_written_down(clips, tmp_path, monkeypatch):
    """A folder by its whole path; later builds correct it, or leave it; without it the file is what it was before."""
    bare = build_store(clips, FakeTokenizer(), tmp_path / "bare")
    assert bare.tokenizer == "" and json.loads((tmp_path / "bare" / MANIFEST).read_text())["format"] == 3
    assert "tokenizer" not in json.loads((tmp_path / "bare" / MANIFEST).read_text())
    (tmp_path / "codec").mkdir()
    monkeypatch.chdir(tmp_path)
    for source, said in (("codec", str(tmp_path / "codec")), ("", str(tmp_path / "codec")), ("a/hub", "a/hub")):
        tokenizer = FakeTokenizer()
        store = build_store(clips, tokenizer, tmp_path / "bare", tokenizer_source=source)
        assert (store.tokenizer, tokenizer.batches) == (said, []) and store.data_hash == bare.data_hash
        assert TokenStore(tmp_path / "bare").tokenizer == said
    values = json.loads((tmp_path / "bare" / MANIFEST).read_text())
    assert values["format"] == 4
    values["tokenizer"] = "elsewhere"
    (tmp_path / "bare" / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(UserError, match="damaged or edited"):
        TokenStore(tmp_path / "bare")
