"""Stores of format 1, as an earlier version wrote them: read, taken over, and finished."""

import os
import shutil

import numpy as np
import pytest
import soundfile

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import MANIFEST, TokenStore
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from tests.auditory_sentences.token_store.test_plan import again
from tests.factories.tokenizer import FakeTokenizer
from tests.factories.tokens import two_streams
from tests.factories.tones import write_tone


@pytest.fixture
def old_store(tmp_path, monkeypatch):
    """What the version before this one wrote, of recordings that lie in the working folder; and their clips."""
    monkeypatch.chdir(tmp_path)
    clips = []
    for i in range(3):
        soundfile.write(f"{i}.wav", 0.3 * np.sin(np.arange(2400 * (i + 1)) * (i + 1) / 20), 24_000)
        clips.append(Clip(f"c{i}", f"{i}.wav", "sound", "train", caption=f"tone {i}", labels={"class": str(i)}))
    clips.insert(2, Clip("gone", "gone.wav", "sound", "train"))
    shutil.copytree(os.path.join(os.path.dirname(__file__), "store_format_1"), "store", copy_function=shutil.copyfile)
    return tmp_path / "store", clips


def test_a_store_of_format_1_is_read(old_store):
    folder, clips = old_store
    store = TokenStore(folder)
    assert store.clips == (*clips[:2], clips[3]) and [failure.id for failure in store.failures] == ["gone"]
    for stored in store:
        assert stored.tokens.equal(FakeTokenizer().encode(load_audio(stored.path)[None])[0])
    with pytest.raises(UserError, match="shard-00000.arrow.*'c0' holds the .* id .*has 0 to 3"):
        store.require_streams(two_streams(4, 4))


def test_a_store_of_format_1_is_taken_over_as_it_is(old_store):
    folder, clips = old_store
    before = TokenStore(folder).data_hash
    store, encoded = again(clips, folder)
    assert encoded == 0 and store.data_hash == before
    assert again(clips, folder)[1] == 0
    write_tone(folder.parent / "1.wav", 9)
    store, encoded = again(clips, folder)
    assert encoded == 1 and [clip.id for clip in store] == ["c0", "c1", "c2"]


def test_recordings_newer_than_a_store_of_format_1_are_encoded_again(old_store):
    folder, clips = old_store
    write_tone(folder.parent / "1.wav", 9)
    store, encoded = again(clips, folder)
    assert encoded == 1 and store.clips == (*clips[:2], clips[3])


def test_an_unfinished_store_of_format_1_goes_on(old_store):
    folder, clips = old_store
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[: -len("\n  }\n ]\n}")] + "},\n null]}")
    with pytest.raises(UserError, match="not finished"):
        TokenStore(folder)
    new = Clip("new", str(write_tone(folder.parent / "new.wav", 9)), "sound", "train")
    assert [clip.id for clip in again([*clips, new], folder)[0]] == ["c0", "c1", "c2", "new"]
