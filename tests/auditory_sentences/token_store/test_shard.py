"""Shards: Arrow files whose damage is named, and mended by another build."""

import hashlib
import json
import os

import pyarrow as pa
import pytest

from auditory_sentences.token_store import MANIFEST, TokenStore, build_store
from auditory_sentences.token_store.manifest import Damaged
from codec.io.errors import UserError
from tests.auditory_sentences.token_store.test_manifest import edit
from tests.factories.tokenizer import FakeTokenizer
from tests.factories.tokens import two_streams


def test_datasets_opens_a_shard(clips, tmp_path):
    from datasets import Dataset

    build_store(clips, FakeTokenizer(), tmp_path)
    data = Dataset.from_file(str(tmp_path / "shard-00000.arrow"))
    assert data["id"][:3] == ["c0", "c1", "c2"] and data[0]["licence"] == "CC0-1.0"


def rewritten(shard, column, values):
    """The shard's file with one column changed; returns what the manifest is to say of it."""
    with shard.open("rb") as file:
        table = pa.ipc.open_stream(file).read_all()
    place = table.column_names.index(column)
    made = pa.array(values(table[column].to_pylist()), table.schema.field(place).type)
    table = table.set_column(place, table.schema.field(place), made)
    with shard.open("wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return {"bytes": shard.stat().st_size, "sha256": hashlib.sha256(shard.read_bytes()).hexdigest()}


def with_ids(store, column, values):
    """Change a column of the second shard, and everything that knows the shard's checksum."""
    said = rewritten(store / "shard-00001.arrow", column, values)
    edit(store, lambda manifest: manifest["shards"][1].update(said))


def accept(store):
    """Let the file of where the clips lie be of the second shard as it is now."""
    source = store / "sources-00001.json"
    said = json.loads(source.read_text())
    said["shard"] = json.loads((store / MANIFEST).read_text())["shards"][1]["sha256"]
    del said["hash"]
    said["hash"] = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    source.write_text(json.dumps(said))


def test_a_shard_from_before_there_were_instructions_is_read(clips, finished, store):
    shard = store / "shard-00001.arrow"
    with shard.open("rb") as file:
        table = pa.ipc.open_stream(file).read_all().drop_columns(["instruction"])
    with shard.open("wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    said = {"bytes": shard.stat().st_size, "sha256": hashlib.sha256(shard.read_bytes()).hexdigest()}
    edit(store, lambda manifest: manifest["shards"][1].update(said))
    accept(store)
    opened = TokenStore(store)
    assert all(clip.instruction == "" for clip in opened.clips)
    for i in range(len(opened)):
        assert opened[i].id == TokenStore(finished)[i].id
        assert opened[i].tokens.equal(TokenStore(finished)[i].tokens)


def test_a_damaged_shard_is_named_and_made_anew(clips, finished, store, capsys):
    shard = store / "shard-00001.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    opened = TokenStore(store)
    assert opened[0].id == "c0"  # another shard is whole
    for ask in (
        lambda: opened[8],
        lambda: opened.clips,
        opened.verify,
        lambda: opened.require_streams(two_streams(256, 256)),
    ):
        with pytest.raises(Damaged, match="shard-00001.arrow: damaged"):
            ask()
    shard.write_bytes(data[:-50])
    with pytest.raises(UserError, match="shard-00001"):
        TokenStore(store)
    tokenizer = FakeTokenizer()
    again = build_store(clips, tokenizer, store, shard_clips=8)
    again.verify()
    assert sum(tokenizer.batches) == 8 and again.data_hash == TokenStore(finished).data_hash
    assert "it is made anew" in capsys.readouterr().err


def first_id(value):
    return lambda lists: [lists[0], [value, *lists[1][1:]], *lists[2:]]


CONTENTS = {
    "an id beyond the codes": ("descriptive", first_id(256), "'c9' holds the descriptive id 256.*has 0 to 255"),
    "a negative id": ("structural", first_id(-1), "'c9' holds the structural id -1"),
    "a missing id": ("structural", lambda lists: [lists[0], lists[1][:-1], *lists[2:]], "'c9' of .* structural ids"),
    "a null": ("structural", first_id(None), "values of the column 'structural' are missing"),
    "no samples": ("num_samples", lambda n: [n[0] + n[1], 0, *n[2:]], "'c8' of .* samples|'c9' of 0 samples"),
    "a kind that is none": ("kind", lambda kinds: ["noise", *kinds[1:]], "kind 'noise'"),
    "labels that are no JSON": ("labels", lambda labels: ["{", *labels[1:]], "labels or parts"),
    "labels that are a list": ("labels", lambda labels: ["[]", *labels[1:]], "labels or parts"),
    "another id": ("id", lambda ids: ["other", *ids[1:]], "missing|other clips|not of the shard"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_shard_that_holds_what_no_tokenizer_makes_is_named(clips, finished, store, name):
    column, values, fault = CONTENTS[name]
    with_ids(store, column, values)
    accept(store)
    with pytest.raises(UserError, match=fault) as refused:
        TokenStore(store).verify()
    assert "00001" in str(refused.value)


def test_ids_beyond_the_codes_are_made_anew_when_built(clips, finished, store):
    with_ids(store, *CONTENTS["an id beyond the codes"][:2])
    again = build_store(clips, FakeTokenizer(), store, shard_clips=8)
    assert again.data_hash == TokenStore(finished).data_hash


def test_codes_of_another_size_are_refused(store):
    with pytest.raises(UserError, match="the tokenizer has 0 to 15"):
        TokenStore(store).require_streams(two_streams(16, 16))
    with pytest.raises(UserError, match="the tokenizer has 0 to 15"):
        TokenStore(store, two_streams(256, 16))[0]


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(store):
    (store / "shard-00001.arrow").unlink()
    os.mkfifo(store / "shard-00001.arrow")
    with pytest.raises(UserError, match="shard-00001"):
        TokenStore(store).verify()
