"""A model over a fake codec: untrained, trained on a few utterances, and saved."""

from itertools import islice

import pytest
import torch

from auditory_sentences.builders.catalogue import label_values
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.stream.mixing import SentenceStream
from auditory_sentences.stream.packing import Packing
from codec import tokenizer as codec_tokenizer
from lm.losses import LossSettings
from tests.factories.store import random_tokens, tiny_store
from tests.factories.tokenizer import FakeTokenizer
from tests.factories.uniaudio import small_uniaudio


@pytest.fixture(scope="session")
def codec():
    return FakeTokenizer()


@pytest.fixture(scope="session")
def store(codec):
    """A few short utterances, each with its own word, tokens marked as the fake codec's."""

    class Store(type(tiny_store())):
        def __getitem__(self, i):
            clip = super().__getitem__(i)
            tokens = random_tokens(self.num_samples[i], i, codec.fingerprint)
            return type(clip)(**{**vars(clip), "tokens": tokens})

    small = tiny_store(speech=8, seconds=0.4)
    keep = [i for i, clip in enumerate(small.clips) if clip.id.startswith("train-speech-")][:3]
    return Store([small.clips[i] for i in keep], [0.4] * len(keep))


@pytest.fixture(scope="session")
def untrained(store, codec):
    return small_uniaudio(codec)


@pytest.fixture(scope="session")
def bank(store):
    short = {"asr": ["write"], "tts": ["say"], "instruct_tts": ["say it so"]}
    return PromptBank(short, {"*": ["which {label}?"]}, {"*": ["{value}?"]}, label_values(store.clips))


@pytest.fixture(scope="session")
def trained(store, codec, bank):
    """Learns the utterances by heart, both ways round, through the stream, packing and the model's own loss."""
    uniaudio = small_uniaudio(codec)
    context = uniaudio.model.config.cross_modal.max_position_embeddings
    mixture = {"asr": 1, "tts": 1}
    stream = SentenceStream(store, mixture, seed=0, max_rows=context, bank=bank, guidance_dropout=0)
    packing = Packing(stream, uniaudio.layout, uniaudio.text_tokenizer, context)
    optimiser = torch.optim.AdamW(uniaudio.model.parameters(), lr=3e-3, weight_decay=0)
    # Of a clip learned by heart, only the first id of the first frame hangs on the words: it gets most of the weight.
    weights = LossSettings(stream_weights=(2.0, *(0.2,) * 7))
    for batch in islice(packing.read(), 110):
        uniaudio.model(*batch[:3], position_ids=batch.position_ids, loss_settings=weights).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return uniaudio


@pytest.fixture
def saved(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(codec_tokenizer.TOKENIZERS, "fake", (FakeTokenizer.__module__, "FakeTokenizer"))
    trained.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def sharded(saved, trained):
    trained.model.save_pretrained(saved, max_shard_size="20KB")
    assert len(list(saved.glob("model-*.safetensors"))) > 2 and not (saved / "model.safetensors").exists()
    return saved
