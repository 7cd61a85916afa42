"""Attention backends: the same numbers from each, dense and packed, and in what generation starts from."""

import importlib.util
import shutil

import pytest
import torch

from codec.io.errors import UserError
from lm.generation.cached_model import RowDecoder
from lm.generation.generate import generate_audio, generate_text
from lm.generation.settings import GenerationSettings
from lm.model import UniAudioForConditionalGeneration
from lm.rows import collate
from tests.factories.language_model import LAYOUT, sentences, shape, tiny_model
from tests.lm.generation.test_generate import same_audio
from tests.lm.test_model import packed

# Flex attention on the CPU needs heads of at least 16.
SIZES = {"cross_modal": shape(64, 2), "depth": shape(64, 1)}


def model_with(attention: str) -> UniAudioForConditionalGeneration:
    model = tiny_model(attn_implementation=attention, **SIZES)
    parts = (model.understanding, model.cross_modal, model.generation, model.depth_decoder.transformer)
    assert {part.config._attn_implementation for part in parts} == {attention}
    return model


def inputs(form: str) -> dict[str, torch.Tensor]:
    """Four sentences in a padded batch, packed, or read as one long sentence."""
    if form == "padded":
        batch = collate(sentences(), LAYOUT)
        return {"ids": batch.ids, "mask": batch.mask}
    ids, mask, _, positions = packed(sentences())
    return {"ids": ids, "mask": mask} | ({"position_ids": positions} if form == "packed" else {})


def assert_agrees_with_sdpa(attention: str, form: str) -> None:
    expected, output = (model_with(name)(**inputs(form)) for name in ("sdpa", attention))
    active = inputs(form)["mask"][:, :-1].any(-1)  # what padding predicts is nobody's business
    torch.testing.assert_close(output.text_logits[active], expected.text_logits[active], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.audio_logits, expected.audio_logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", ["padded", "packed", "one sentence"])
@torch.no_grad()
def test_eager_agrees_with_sdpa(form):
    assert_agrees_with_sdpa("eager", form)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="flex attention on the CPU needs g++")
@torch.no_grad()
def test_flex_attention_agrees_with_sdpa():
    """Packed, and as one sentence. One shape only: PyTorch's CPU compiler fails on flex attention once shapes vary."""
    for form in ("packed", "one sentence"):
        assert_agrees_with_sdpa("flex_attention", form)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_decoding_starts_where_the_forward_pass_ends(attention):
    """Decoding has its own cached attention, which agrees with each backend."""
    model, prompts = model_with(attention), sentences()
    starts = RowDecoder(model, prompts, max_rows=4).prefill()
    for rows, start in zip(prompts, starts, strict=True):
        final = model.last_hidden_state(rows.ids[None], rows.mask[None])[0, -1]
        torch.testing.assert_close(final, start, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
@torch.no_grad()
def test_a_model_of_any_backend_says_the_same(attention):
    prompts, settings = sentences(), GenerationSettings(max_rows=12)
    models = model_with(attention), model_with("sdpa")
    ours, theirs = (generate_text(model, prompts, settings, [1, 2, 3, 4]) for model in models)
    assert ours == theirs
    ours, theirs = (generate_audio(model, prompts, settings, [1, 2, 3, 4]) for model in models)
    assert all(map(same_audio, ours, theirs))


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed here")
def test_flash_attention_is_refused_in_one_sentence_where_it_is_missing(tmp_path):
    model, words = tiny_model(), r"flash_attention_2 cannot be used here .*pip install 'uniaudio\[flash\]'.* sdpa"
    model.save_pretrained(tmp_path)
    for ask in (
        lambda: tiny_model(attn_implementation="flash_attention_2"),
        lambda: UniAudioForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="flash_attention_2"),
        lambda: model.set_attn_implementation("flash_attention_2"),
    ):
        with pytest.raises(UserError, match=words) as refused:
            ask()
        assert "\n" not in str(refused.value)
    assert model.config._attn_implementation == "sdpa", "the model is as it was"
