"""A store and its corpora as these change: clips are known by their content, and what is there already stays."""

import os
import shutil
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.corpora.read import read_corpora
from auditory_sentences.token_store import MANIFEST, TokenStore, build_store
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from tests.factories.tokenizer import FakeTokenizer
from tests.factories.tones import write_tone


def again(clips, folder, **options):
    """Build again: the store, and how many clips were encoded for it."""
    tokenizer = FakeTokenizer()
    store = build_store(clips, tokenizer, folder, shard_clips=4, **options)
    store.verify()
    for stored in store:
        assert stored.tokens.equal(FakeTokenizer().encode(load_audio(stored.path)[None])[0])
    return store, sum(tokenizer.batches)


def files(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


def test_nothing_is_done_where_nothing_changed(corpus, built, capsys):
    before = {name: os.stat(built.folder / name).st_mtime_ns for name in os.listdir(built.folder)}
    assert again(corpus, built.folder)[1] == 0
    assert {name: os.stat(built.folder / name).st_mtime_ns for name in os.listdir(built.folder)} == before
    assert "6 clips in the store: nothing has changed" in capsys.readouterr().err


@pytest.mark.parametrize("times", ["new", "kept"])
def test_a_replaced_recording_is_encoded_again(corpus, built, times, capsys):
    """Also where it has the size and the time of the one before."""
    path, old = corpus[1].path, os.stat(corpus[1].path)
    replaced = write_tone(built.folder.parent / "new.wav", 50)
    assert replaced.stat().st_size == old.st_size
    os.replace(replaced, path)
    if times == "kept":
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    first, last = (files(built.folder)[f"shard-0000{i}.arrow"] for i in range(2))
    store, encoded = again(corpus, built.folder)
    assert encoded == 1 and store.clips == tuple(corpus) and store.data_hash != built.data_hash
    assert files(built.folder)["shard-00000.arrow"] != first and files(built.folder)["shard-00001.arrow"] == last
    assert "1 encoded again" in capsys.readouterr().err


def test_a_file_that_was_only_touched_is_the_same(corpus, built):
    os.utime(corpus[2].path)
    store, encoded = again(corpus, built.folder)
    assert encoded == 0 and store.data_hash == built.data_hash


@pytest.mark.parametrize("move", [os.rename, shutil.copytree])
def test_a_moved_corpus_is_the_same(corpus, built, tmp_path, move):
    move(tmp_path / "corpus", tmp_path / "elsewhere")
    moved = [replace(clip, path=str(tmp_path / "elsewhere" / os.path.basename(clip.path))) for clip in corpus]
    store, encoded = again(moved, built.folder)
    assert encoded == 0 and store.clips == tuple(moved) and store.data_hash == built.data_hash
    assert TokenStore(built.folder)[3].path == moved[3].path


def test_a_grown_corpus_appends_and_what_was_there_stays(corpus, built, tmp_path, capsys):
    new = [Clip(f"n{i}", str(write_tone(tmp_path / f"corpus/n{i}.wav", 30 + i)), "sound", "train") for i in range(6)]
    before = files(built.folder)
    store, encoded = again([new[0], *corpus[:3], *new[1:], *corpus[3:]], built.folder)
    assert encoded == 6 and [clip.id for clip in store] == [clip.id for clip in (*corpus, *new)]
    assert {name: content for name, content in files(built.folder).items() if name in before and name != MANIFEST} == {
        name: content for name, content in before.items() if name != MANIFEST
    }
    assert store.data_hash != built.data_hash and "12 clips in the store: 6 new" in capsys.readouterr().err


def test_a_renamed_file_keeps_its_tokens(corpus, built, tmp_path):
    os.rename(corpus[2].path, tmp_path / "corpus/other.wav")
    renamed = [*corpus[:2], replace(corpus[2], id="other", path=str(tmp_path / "corpus/other.wav")), *corpus[3:]]
    store, encoded = again(renamed, built.folder)
    assert encoded == 0 and store.clips == tuple(renamed)


def test_changed_words_change_the_record_alone(corpus, built):
    edited = [*corpus[:5], replace(corpus[5], caption="another", labels={"class": "tone"}, split="test")]
    store, encoded = again(edited, built.folder)
    assert encoded == 0 and store.clips == tuple(edited) and store.data_hash != built.data_hash


def test_another_order_is_no_change(corpus, built):
    store, encoded = again(corpus[::-1], built.folder)
    assert encoded == 0 and store.clips == tuple(corpus) and store.data_hash == built.data_hash


def test_clips_that_are_not_given_are_kept_unless_told(corpus, built):
    before = files(built.folder)
    with pytest.raises(UserError, match="holds 2 clips that are not among the 4 given.*'c1', 'c5'.*--prune"):
        again([corpus[0], *corpus[2:5]], built.folder)
    assert files(built.folder) == before
    store, encoded = again([corpus[0], *corpus[2:5]], built.folder, prune=True)
    assert encoded == 0 and [clip.id for clip in store] == ["c0", "c2", "c3", "c4"]
    store, encoded = again(corpus[:4:2], built.folder, prune=True)
    assert encoded == 0 and [clip.id for clip in store] == ["c0", "c2"]
    assert sorted(os.listdir(built.folder)) == ["shard-00000.arrow", "sources-00000.json", MANIFEST]


def test_another_corpus_of_the_same_ids_is_not_mistaken_for_the_first(corpus, built, tmp_path):
    other = [
        replace(clip, path=str(write_tone(tmp_path / f"two/corpus/{i}.wav", 70 + i))) for i, clip in enumerate(corpus)
    ]
    before = files(built.folder)
    with pytest.raises(UserError, match="6 of these ids now name another recording in another place.*`name`"):
        again(other, built.folder)
    assert files(built.folder) == before
    named = [replace(clip, id=f"two/{clip.id}") for clip in other]
    assert [clip.id for clip in again([*corpus, *named], built.folder)[0]][6:] == [clip.id for clip in named]


def test_tokens_are_kept_where_the_recordings_are_gone(corpus, built, tmp_path, capsys):
    os.rename(tmp_path / "corpus", tmp_path / "unplugged")
    store = build_store(corpus, FakeTokenizer(), built.folder, shard_clips=4)
    assert store.data_hash == built.data_hash and not store.failures
    assert "6 clips are kept as they are, though their recordings cannot be read now" in capsys.readouterr().err
    with pytest.raises(UserError, match="0.wav: no such file.*strict: nothing was changed"):
        build_store(corpus, FakeTokenizer(), built.folder, strict=True)
    os.rename(tmp_path / "unplugged", tmp_path / "corpus")
    assert again(corpus, built.folder)[1] == 0


def test_a_build_that_was_cut_off_goes_on_with_a_grown_corpus(corpus, tmp_path):
    class Stops(FakeTokenizer):
        def encode(self, waveforms, lengths=None):
            if len(self.batches) == 1:
                raise KeyboardInterrupt
            return super().encode(waveforms, lengths)

    with pytest.raises(KeyboardInterrupt):
        build_store(corpus, Stops(), tmp_path / "store", shard_clips=4)
    new = Clip("new", str(write_tone(tmp_path / "corpus/new.wav", 40)), "sound", "train")
    store, encoded = again([new, *corpus], tmp_path / "store")
    assert encoded == 3 and [clip.id for clip in store][:4] == ["c0", "c1", "c2", "c3"]


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "replace", "edit", "rename", "remove", "reverse", "move", "bad"]), st.integers(0, 99)
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=6, deadline=None)
@given(CHANGES)
def test_any_changes_end_in_what_the_corpus_is(tmp_path_factory, changes):
    """After any changes the store holds the corpus' clips with their own tokens, survivors in the order they had."""
    folder = tmp_path_factory.mktemp("any")
    home, made = folder / "corpus0", 0

    def clip_of(pitch):
        return Clip(f"k{made}", str(write_tone(home / f"{made}.wav", pitch)), "sound", "train", caption="said")

    clips = []
    for made in range(5):
        clips.append(clip_of(made + 3))
    before = [clip.id for clip in build_store(clips, FakeTokenizer(), folder / "store", shard_clips=2)]
    for at, (change, value) in enumerate(changes):
        i = value % len(clips)
        if change == "add":
            made += 1
            clips.insert(i, clip_of(20 + at))
        elif change == "replace":
            write_tone(home / clips[i].path.split("/")[-1], 40 + at)
        elif change == "bad":
            open(clips[i].path, "wb").close()
        elif change == "edit":
            clips[i] = replace(clips[i], caption=f"edited {at}")
        elif change == "rename":
            clips[i] = replace(clips[i], id=f"r{at}-{clips[i].id}")
        elif change == "remove" and len(clips) > 1:
            del clips[i]
        elif change == "reverse":
            clips.reverse()
        elif change == "move":
            home = home.rename(folder / f"corpus{at + 1}")
            clips = [replace(clip, path=str(home / clip.path.split("/")[-1])) for clip in clips]
        if all(os.path.getsize(clip.path) == 0 for clip in clips):
            return
        store = build_store(clips, FakeTokenizer(), folder / "store", shard_clips=2, prune=True)
        store.verify()
        whole = {clip.id: clip for clip in clips if os.path.getsize(clip.path)}
        assert {clip.id: clip for clip in store.clips} == whole
        assert {failure.id for failure in store.failures} == {clip.id for clip in clips} - set(whole)
        for stored in store:
            assert stored.tokens.equal(FakeTokenizer().encode(load_audio(stored.path)[None])[0])
        now = [clip.id for clip in store]
        assert [clip_id for clip_id in now if clip_id in before] == [clip_id for clip_id in before if clip_id in now]
        before = now


def test_a_moved_table_is_the_same_corpus(tmp_path):
    """By its description, as from the command line."""
    for i in range(2):
        write_tone(tmp_path / f"old/{i}.wav", 5 + i)
    (tmp_path / "old/t.csv").write_text("file,text\n0.wav,one\n1.wav,two\n")
    (tmp_path / "old/c.yaml").write_text("kind: table\npath: t.csv\n")
    before = build_store(read_corpora([tmp_path / "old/c.yaml"]), FakeTokenizer(), tmp_path / "store")
    (tmp_path / "old").rename(tmp_path / "new")
    store, encoded = again(read_corpora([tmp_path / "new/c.yaml"]), tmp_path / "store")
    assert encoded == 0 and store.data_hash == before.data_hash and store[0].path == str(tmp_path / "new/0.wav")
