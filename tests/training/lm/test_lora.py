"""LoRA on any group: what learns, what is written, and the fine-tuning of an imported release."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from codec.io.errors import UserError
from lm.model import UniAudioForConditionalGeneration
from tests import ROOT
from tests.factories import stages
from tests.factories.language_model import sentences, tiny_model
from tests.factories.release.lm import config_values, published_state, save_released, text_tokenizer, write_yaml
from tests.factories.release.lm import tiny_config as published_config
from tests.factories.uniaudio import tiny_codec
from training.lm.lora import GroupLoraRecipe, merge_lora, save_adapter
from training.lm.recipe import LanguageModelRecipe
from training.lm.stages import TRAINABLE, freeze_for_stage
from training.recipe import load_recipe, parse, train
from uniaudio.model import UniAudio
from uniaudio.release import import_published

RECIPE = ROOT / "recipes" / "full" / "finetune_lora.yaml"
GROUPS = ("understanding", "cross_modal", "generation", "depth")
PREFIX = {group: group for group in GROUPS} | {"depth": "depth_decoder"}


def logits(model) -> torch.Tensor:
    rows = sentences()[2]
    with torch.no_grad():
        output = model(rows.ids[None], rows.mask[None])
    return torch.cat([output.text_logits.flatten(), output.audio_logits.flatten()])


def adapted_model(lora: GroupLoraRecipe):
    """A model whose differences are not zero."""
    model = tiny_model()
    freeze_for_stage(model, 4, lora)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model


@pytest.mark.parametrize("groups", [*((group,) for group in GROUPS), GROUPS])
@pytest.mark.parametrize("freeze_rest", [False, True])
def test_what_learns(groups, freeze_rest):
    model = tiny_model()
    freeze_for_stage(model, 4, GroupLoraRecipe(rank=2, groups=groups, freeze_rest=freeze_rest))
    for group, members in model.named_groups().items():
        learning = [name for name, parameter in members if parameter.requires_grad]
        differences = [name for name, _ in members if ".lora_" in name]
        if group in groups:
            layers = {name.split("layers.")[1].split(".")[0] for name in differences}
            assert learning == differences and len(differences) == 14 * len(layers) > 0
            assert all(name.startswith(PREFIX[group]) for name in differences)
        else:
            assert not differences and len(learning) == (0 if freeze_rest else len(members))


@pytest.mark.parametrize("groups", [("generation",), ("depth", "understanding"), GROUPS])
def test_peft_reads_the_adapter_merges_and_unmerges_it(tmp_path, groups):
    lora = GroupLoraRecipe(rank=2, alpha=6.0, dropout=0.0, groups=groups)
    model, base = adapted_model(lora), tiny_model()
    expected, untouched = logits(model), logits(base)
    assert (expected - untouched).abs().max() > 1e-2
    save_adapter(model.state_dict(), lora, "somewhere/base", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]

    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    assert loaded.peft_config["default"].base_model_name_or_path == "somewhere/base"
    assert torch.equal(logits(loaded), expected)
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded), untouched)
    loaded.merge_adapter()
    torch.testing.assert_close(logits(loaded), expected, atol=1e-4, rtol=1e-4)
    loaded.unmerge_adapter()
    torch.testing.assert_close(logits(loaded), expected, atol=1e-4, rtol=1e-4)

    merged, ours = loaded.merge_and_unload().state_dict(), merge_lora(model.state_dict(), lora)
    assert merged.keys() == ours.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, merged[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora": {"groups": ["depht"]}}, "did you mean 'depth'"),
        ({"lora": {"groups": []}}, "'lora.groups' must not be empty"),
        ({"lora": {"groups": ["depth", "depth"]}}, "no group twice"),
        ({"lora": {"rank": 0}}, "'lora.rank' must be at least 1"),
        ({"stage": 2, "lora": {}}, "lora.groups: cross_modal would not be trained in stage 2, which trains generation"),
        (
            {"init": "", "text_model": "x", "audio_tokenizer": "y", "lora": {"freeze_rest": True}},
            "lora.freeze_rest keeps the rest of a trained model: give init",
        ),
    ],
)
def test_recipes_that_cannot_work(tmp_path, change, words):
    values = stages.recipe(tmp_path, 3, tmp_path / "x") | change
    with pytest.raises(UserError, match=words):
        parse(LanguageModelRecipe, values, "f")


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A folder with an imported release, `model`, and a token store of its codec, `tokens`."""
    folder, tokenizer, codec = tmp_path_factory.mktemp("released"), text_tokenizer(), tiny_codec()
    state = published_state(published_config(tokenizer), legacy=True, prefix="module.")
    checkpoint = save_released(folder / "llm.checkpoint", state)
    config = write_yaml(folder / "llm_config.yaml", config_values(tokenizer))
    import_published(checkpoint, config, folder / "model", tokenizer, codec)
    stages.write_store(folder / "tokens", codec.fingerprint)
    return folder


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_fine_tuning_a_release_leaves_all_that_is_frozen_bit_for_bit(released, tmp_path, precision):
    sizes = ("steps=3", "save_every=3", "validate_every=0", "context=192", "batch=2", "optimiser.warmup_steps=1")
    places = (f"init={released / 'model'}", f"store={released / 'tokens'}", f"out={tmp_path / 'run'}")
    overrides = (*sizes, *places, "engine.micro_batches=1", f"engine.precision={precision}", "optimiser.lr=0.01")
    lora = load_recipe(RECIPE, overrides).lora
    model = train(RECIPE, overrides)

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    before = {name: tensor.to(dtype) for name, tensor in load_file(released / "model" / "model.safetensors").items()}
    after = load_file(model / "model.safetensors")
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    matrices = {name for name in before if ".self_attn." in name or ".mlp." in name}
    assert changed == matrices and {name.split(".")[0] for name in changed} == set(PREFIX.values())

    # What the merged matrices were made of: the release, untouched.
    (engine,) = (tmp_path / "run" / "checkpoints").glob("*/engines/model")
    frozen = load_file(engine / "frozen.safetensors")
    kept = {name.removeprefix("model.").replace(".base_layer", ""): tensor for name, tensor in frozen.items()}
    assert set(before) <= set(kept)
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.items())

    # The adapter on the release is the merged model.
    base = UniAudioForConditionalGeneration.from_pretrained(released / "model", dtype=dtype)
    loaded = PeftModel.from_pretrained(base, model / "adapter")
    assert loaded.peft_config["default"].base_model_name_or_path == str(released / "model")
    assert len(load_file(model / "adapter" / "adapter_model.safetensors")) == 2 * len(matrices)
    together = loaded.merge_and_unload().state_dict()
    for name, tensor in after.items():
        torch.testing.assert_close(together[name], tensor, atol=1e-6 if dtype is torch.float32 else 1e-2, rtol=1e-2)
    whole = UniAudio.from_pretrained(model)
    assert whole.model.state_dict().keys() == after.keys() and set(lora.groups) <= set(TRAINABLE[4])
