"""Packed weights: a way to be faster, on which nothing depends."""

from types import SimpleNamespace

import pytest
import torch

from codec.layers import onednn
from lm.generation.generate import generate_audio, generate_text
from lm.generation.prepacked_linear import pack
from lm.generation.settings import GenerationSettings
from tests.factories.language_model import shape, text, tiny_model
from tests.lm.generation.test_generate import same_audio


@pytest.fixture
def without_onednn(monkeypatch):
    """A PyTorch whose private operators are gone."""

    def remove():
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
        onednn.is_available.cache_clear()

    yield remove
    monkeypatch.undo()
    onednn.is_available.cache_clear()


@pytest.mark.skipif(not onednn.is_available(), reason="this PyTorch lacks oneDNN's operators")
def test_without_the_private_operators_the_same_is_generated(without_onednn):
    """A batch, whose weights would be packed; one request, whose large matrices would be multiplied by oneDNN."""
    model = tiny_model(cross_modal=shape(512, 1), understanding_layers=1, generation_layers=1, initializer_range=0.05)
    layer, settings = model.cross_modal.layers[0], GenerationSettings(max_rows=12)

    def run():
        texts, clips = [], []
        for prompts, seeds in (([text(20, 1)], [1]), ([text(6, 4), text(1, 7)], [2, 3])):
            texts += generate_text(model, prompts, settings, seeds)
            clips += generate_audio(model, prompts, settings, seeds)
        return texts, clips

    assert pack([layer.self_attn.o_proj], 2) is not None
    texts, clips = run()
    without_onednn()
    assert pack([layer.self_attn.o_proj], 2) is None
    other_texts, other_clips = run()
    assert texts == other_texts and all(map(same_audio, clips, other_clips))
