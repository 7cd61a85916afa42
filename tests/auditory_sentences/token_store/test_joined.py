"""Several stores read as one."""

import pytest

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import JoinedStores, TokenStore, build_store, open_stores
from codec.io.errors import UserError
from tests.factories.tokenizer import FakeTokenizer
from tests.factories.tokens import two_streams
from tests.factories.tones import write_tone


def test_several_stores_are_read_as_one(corpus, built, tmp_path):
    other = [Clip(f"o{i}", str(write_tone(tmp_path / f"other/{i}.wav", 80 + i)), "music", "test") for i in range(3)]
    second = build_store(other, FakeTokenizer(), tmp_path / "second", shard_clips=2)
    joined = open_stores([built.folder, second.folder])
    assert isinstance(joined, JoinedStores) and joined.clips == (*corpus, *other) and len(joined) == 9
    assert joined[7].tokens.equal(second[1].tokens) and joined[-9].id == "c0" and joined.index_of("o2") == 8
    assert joined.num_samples == built.num_samples + second.num_samples and joined.select(kind="music") == [6, 7, 8]
    assert joined.seconds == pytest.approx(built.seconds + second.seconds)
    assert joined.data_hash not in (built.data_hash, second.data_hash)
    assert open_stores([second.folder, built.folder]).data_hash != joined.data_hash
    assert isinstance(open_stores([built.folder]), TokenStore)
    assert open_stores(str(built.folder)).data_hash == built.data_hash
    with pytest.raises(IndexError):
        joined[9]
    with pytest.raises(UserError, match="has 0 to 3"):
        joined.require_streams(two_streams(4, 4))


def test_stores_that_do_not_belong_together_are_refused_naming_both(corpus, built, tmp_path):
    build_store(corpus[:1], FakeTokenizer(), tmp_path / "same")
    with pytest.raises(UserError, match="store and .*same both hold a clip 'c0'"):
        open_stores([built.folder, tmp_path / "same"])
    build_store(corpus[:1], FakeTokenizer(shift=1), tmp_path / "shifted")
    with pytest.raises(UserError, match=f"store .*{built.fingerprint}.*shifted with"):
        open_stores([built.folder, tmp_path / "shifted"])
    with pytest.raises(UserError, match="no token store is given"):
        open_stores([])
    with pytest.raises(UserError, match="nowhere: holds no token store"):
        open_stores([built.folder, tmp_path / "nowhere"])
