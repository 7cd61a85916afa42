"""Layers of a training step on a CPU: losses and gradients are the library's."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from lm.lean_layers import LEAN, LeanAttention, make_lean
from tests.factories.language_model import sentences, shape, tiny_model
from tests.lm.test_model import packed


def losses_and_gradients(model, precision=torch.float32):
    ids, mask, loss, positions = packed(sentences())
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        output = model(ids, mask, loss, positions)
    model.zero_grad()
    output.loss.backward()
    return output.loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("changes", ["none", "lora", "checkpointing"])
def test_losses_and_gradients_of_packed_sentences(changes):
    model = tiny_model()
    if changes == "lora":
        adapters = LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], r=2, init_lora_weights=False)
        inject_adapter_in_model(adapters, model)
    if changes == "checkpointing":
        model.train().activation_checkpointing_enable({"use_reentrant": False})
    loss, gradients = losses_and_gradients(model)
    names = set(model.state_dict())
    make_lean(model)
    lean_loss, lean_gradients = losses_and_gradients(model)
    assert set(model.state_dict()) == names, "a saved model is the same"
    assert abs(lean_loss - loss) < 1e-5
    assert lean_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(lean_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_in_16_bits_the_loss_is_as_near_to_float32():
    model = tiny_model()
    exact, _ = losses_and_gradients(model)
    usual, _ = losses_and_gradients(model, torch.bfloat16)
    make_lean(model)
    lean, gradients = losses_and_gradients(model, torch.bfloat16)
    assert abs(lean - exact) < max(2 * abs(usual - exact), 0.01)
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}


def test_other_layers_than_llamas_stay_the_librarys():
    model = tiny_model(cross_modal=shape(32, 2, model_type="qwen3", head_dim=8))
    make_lean(model)
    assert not any(isinstance(part, LeanAttention) for part in model.modules())
    assert model.config._attn_implementation == "eager"


def test_a_cache_or_a_mask_is_refused():
    model = tiny_model()
    make_lean(model)
    rows = torch.zeros(1, 4, 32)
    with pytest.raises(ValueError, match="training alone"):
        model.cross_modal(inputs_embeds=rows, use_cache=True)
    unmade = tiny_model(attn_implementation=LEAN)
    with pytest.raises(ValueError, match="make_lean"):
        unmade.cross_modal(inputs_embeds=torch.zeros(1, 4, 32), use_cache=False)
