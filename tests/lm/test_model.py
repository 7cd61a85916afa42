"""The language model: packing, masks, backends, saving, freezing groups, text backbones."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from codec.io.errors import UserError
from lm.config import UniAudioConfig
from lm.generation.generate import generate_text
from lm.generation.settings import GenerationSettings
from lm.model import UniAudioForConditionalGeneration
from lm.rows import collate, concatenate, text_rows
from lm.text_backbone import from_text_backbone
from tests.factories.language_model import LAYOUT, TEXT_IDS, audio, sentences, shape, text, tiny_config, tiny_model


def packed(parts):
    """One sequence of all rows with positions that restart: ids, mask, loss, position_ids, each with batch 1."""
    rows = concatenate(parts)
    positions = torch.cat([torch.arange(len(part)) for part in parts])
    return rows.ids[None], rows.mask[None], rows.loss[None], positions[None]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_equals_alone(attention):
    """Packing several sentences into one sequence changes no logit, no loss and no gradient."""
    model = tiny_model(attn_implementation=attention)
    parts = sentences()
    ids, mask, loss, positions = packed(parts)
    with torch.no_grad():
        together = model(ids, mask, position_ids=positions)
        alone = [model(part.ids[None], part.mask[None]) for part in parts]
    ends = torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
    inner = [t for t in range(ids.shape[1] - 1) if t + 1 not in ends]  # a sentence's last row predicts nothing
    expected = torch.cat([one.text_logits for one in alone], dim=1)
    torch.testing.assert_close(together.text_logits[:, inner], expected, atol=1e-5, rtol=1e-5)
    expected = torch.cat([one.audio_logits for one in alone])
    torch.testing.assert_close(together.audio_logits, expected, atol=1e-5, rtol=1e-5)

    batch = collate(parts, LAYOUT)
    gradients = []
    for inputs in ((ids, mask, loss, positions), (batch.ids, batch.mask, batch.loss)):
        output = model(*inputs)
        model.zero_grad()
        output.loss.backward()
        gradients.append((output.loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}))
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    for name, gradient in gradients[0][1].items():
        torch.testing.assert_close(gradient, gradients[1][1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_text_only_model_gets_zero_audio_loss_and_the_other_way_round():
    model = tiny_model()
    for rows, silent in ((text(7, 1, is_target=True), "audio_loss"), (audio(2, 3, 1, is_target=True), "text_loss")):
        output = model(rows.ids[None], rows.mask[None], rows.loss[None])
        assert getattr(output, silent).item() == 0
        assert output.loss.item() > 0 and torch.isfinite(output.loss)
        model.zero_grad()
        output.loss.backward()
        # Every part of the model takes part in every backward pass, so that processes stay in step.
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_nothing(reentrant):
    """Same losses and gradients, packed too, although every layer runs a second time on the way back."""
    ids, mask, loss, positions = packed(sentences())
    results = []
    for checkpointing in (False, True):
        model, runs = tiny_model().train(), []
        groups = (model.understanding, model.cross_modal, model.generation, model.depth_decoder.transformer)
        layers = [layer for group in groups for layer in group.layers]
        for layer in layers:
            layer.mlp.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        output = model(ids, mask, loss, positions)
        output.loss.backward()
        assert len(runs) == len(layers) * (2 if checkpointing else 1)
        results.append((output, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (plain, expected), (checkpointed, gradients) = results
    assert torch.equal(plain.loss, checkpointed.loss)
    assert torch.equal(plain.per_stream_loss, checkpointed.per_stream_loss)
    assert all(torch.equal(expected[name], gradients[name]) for name in expected)


def test_groups_cover_every_parameter_once():
    model = tiny_model()
    groups = model.named_groups()
    listed = [name for members in groups.values() for name, _ in members]
    assert sorted(listed) == sorted(name for name, _ in model.named_parameters())
    assert {"lm_head.weight", "cross_modal.embed_tokens.weight"} <= {name for name, _ in groups["cross_modal"]}
    assert "depth_decoder.projection.weight" in {name for name, _ in groups["depth"]}
    assert [name for name, _ in groups["audio_embeddings"]] == ["audio_embeddings.weight"]
    assert [name for name, _ in groups["audio_head"]] == ["audio_head"]


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_save_and_load(tmp_path, tied):
    model = tiny_model(tie_word_embeddings=tied)
    assert (model.lm_head.weight is model.cross_modal.embed_tokens.weight) == tied
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert isinstance(AutoConfig.from_pretrained(tmp_path), UniAudioConfig)
    batch = collate(sentences(), LAYOUT)
    expected = model(batch.ids, batch.mask)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, UniAudioForConditionalGeneration)
    assert loaded.config.layout == LAYOUT
    output = loaded(batch.ids, batch.mask)
    assert torch.equal(output.text_logits, expected.text_logits)
    assert torch.equal(output.audio_logits, expected.audio_logits)
    half = UniAudioForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


@torch.no_grad()
def test_device_map(tmp_path):
    """Sharded weights placed by the library: the same logits, and nothing left on the meta device."""
    model = tiny_model()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    loaded = UniAudioForConditionalGeneration.from_pretrained(tmp_path, device_map="cpu").eval()
    assert {value.device.type for value in [*loaded.parameters(), *loaded.buffers()]} == {"cpu"}
    batch = collate(sentences(), LAYOUT)
    expected, output = model(batch.ids, batch.mask), loaded(batch.ids, batch.mask)
    assert torch.equal(output.text_logits, expected.text_logits)
    assert torch.equal(output.audio_logits, expected.audio_logits)


def test_a_device_map_that_spreads_the_model_is_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    places = {name: "cpu" for name, _ in tiny_model().named_children()} | {"audio_head": "cpu", "generation": "disk"}
    with pytest.raises(UserError, match="spreads the model over cpu and disk"):
        UniAudioForConditionalGeneration.from_pretrained(
            tmp_path, device_map=places, offload_folder=tmp_path / "offload"
        )
    model, report = UniAudioForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not model.training


def test_push_to_hub(tmp_path, monkeypatch):
    """What is uploaded is the model: every file the library asks the hub to store is enough to load it again."""
    from huggingface_hub.errors import EntryNotFoundError
    from transformers.utils import hub

    class Hub:
        def create_repo(self, repo_id, **options):
            return SimpleNamespace(repo_id=repo_id)

        def create_commit(self, repo_id, operations, **options):
            for operation in operations:
                shutil.copy(operation.path_or_fileobj, tmp_path / operation.path_in_repo)

    def no_card(*arguments, **options):
        raise EntryNotFoundError("a new repository has no card")

    monkeypatch.setattr(hub, "hf_api", Hub)
    monkeypatch.setattr(hub.ModelCard, "load", no_card)
    model = tiny_model()
    model.push_to_hub("owner/tiny", max_shard_size="20KB")
    assert (tmp_path / "README.md").exists() and len(list(tmp_path.glob("model-*.safetensors"))) > 1
    loaded = UniAudioForConditionalGeneration.from_pretrained(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())


def test_new_parameters_are_initialised():
    model = tiny_model(initializer_range=0.05)
    assert model.audio_head.std().item() == pytest.approx(0.05, rel=0.05)
    assert model.codebook_offsets.tolist() == [c * LAYOUT.audio_size for c in range(8)]


def test_a_configuration_without_vocabulary_is_an_error():
    with pytest.raises(ValueError, match="vocabulary"):
        UniAudioForConditionalGeneration(tiny_config(vocabulary=None))


def text_model(family: str, tied: bool, **more):
    torch.manual_seed(3)
    values = shape(32, 2, tie_word_embeddings=tied, initializer_range=0.2) | more
    if family == "qwen3":
        values["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6}
        return Qwen3ForCausalLM(Qwen3Config(**values, head_dim=16)).eval()
    return LlamaForCausalLM(LlamaConfig(**values)).eval()


@pytest.mark.parametrize("extra", [0, 7])
@pytest.mark.parametrize("family, tied", [("llama", True), ("llama", False), ("qwen3", True)])
@torch.no_grad()
def test_text_backbone_speaks_as_before(tmp_path, family, tied, extra):
    """Text logits of a text-only prompt equal the text model's, with a larger vocabulary too."""
    original = text_model(family, tied)
    original.save_pretrained(tmp_path, max_shard_size="20KB")
    layout = replace(LAYOUT, text_size=TEXT_IDS + extra)
    model = from_text_backbone(tmp_path, layout, depth=shape(16, 1), understanding_layers=1, generation_layers=1).eval()
    rows = text_rows(list(range(9, 30)), LAYOUT, is_target=False)
    expected = original(rows.ids[None, :-1, -1]).logits
    ours = model(rows.ids[None], rows.mask[None]).text_logits
    assert ours.shape[-1] == TEXT_IDS + extra
    assert (ours[..., :TEXT_IDS] - expected).abs().max() < 1e-4
    assert model.lm_head.weight is not model.cross_modal.embed_tokens.weight
    assert type(model.understanding) is type(model.cross_modal)

    model.save_pretrained(tmp_path / "ours")
    again = UniAudioForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    assert torch.equal(again(rows.ids[None], rows.mask[None]).text_logits, ours)
    mixed = collate(sentences(), layout)
    assert torch.isfinite(model(mixed.ids, mixed.mask, mixed.loss).loss)


def test_text_backbones_that_cannot_work_are_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        from_text_backbone(tmp_path / "nowhere", LAYOUT, depth=shape(16, 1))
    text_model("llama", False).save_pretrained(tmp_path / "llama")
    with pytest.raises(ValueError, match="fewer"):
        from_text_backbone(tmp_path / "llama", replace(LAYOUT, text_size=TEXT_IDS - 1), depth=shape(16, 1))
    other = AutoConfig.for_model("gpt2", n_embd=16, n_layer=1, n_head=2, vocab_size=TEXT_IDS)
    AutoModelForCausalLM.from_config(other).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UserError, match="gpt2"):
        from_text_backbone(tmp_path / "gpt2", LAYOUT, depth=shape(16, 1))
    text_model("llama", False).get_decoder().save_pretrained(tmp_path / "headless")
    with pytest.raises(UserError, match=r"headless: .* lacks 1 tensors, such as lm_head.weight"):
        from_text_backbone(tmp_path / "headless", LAYOUT, depth=shape(16, 1))


@pytest.mark.parametrize(
    ("family", "more", "words"),
    [
        ("qwen3", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}, "a sliding window"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "type 'dynamic'"),
    ],
)
def test_attention_that_generation_would_not_reproduce_is_refused(tmp_path, family, more, words):
    """In a text backbone, and in a model that holds such layers all the same."""
    text_model(family, tied=False, **more).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"layers .*{words} are not supported"):
        from_text_backbone(tmp_path, LAYOUT, depth=shape(16, 1))
    model = tiny_model(cross_modal=AutoConfig.from_pretrained(tmp_path))
    with pytest.raises(ValueError, match=words):
        generate_text(model, [text(3, 1)], GenerationSettings(max_rows=2), [0])
