"""Stores to open, damage and bring up to date."""

import shutil

import pytest

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import build_store
from tests.factories.tokenizer import FakeTokenizer
from tests.factories.tones import write_tone


@pytest.fixture(scope="session")
def finished(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "store"
    build_store(clips, FakeTokenizer(), folder, shard_clips=8)
    return folder


@pytest.fixture
def store(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "store")


@pytest.fixture
def corpus(tmp_path):
    """Six tones in a folder, and their clips."""
    paths = [write_tone(tmp_path / f"corpus/{i}.wav", 3 + i) for i in range(6)]
    return [Clip(f"c{i}", str(path), "sound", "train", caption=f"tone {i}") for i, path in enumerate(paths)]


@pytest.fixture
def built(corpus, tmp_path):
    return build_store(corpus, FakeTokenizer(), tmp_path / "store", shard_clips=4)
