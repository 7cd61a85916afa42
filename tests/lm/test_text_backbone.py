"""Text models from folders: read whole, finite and with all their layers, or one sentence says why not."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from codec.io.errors import UserError
from lm.text_backbone import load_text_model


@pytest.fixture
def text_model(tmp_path):
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "text")
    return tmp_path / "text"


def refused(folder, message=""):
    with pytest.raises(UserError, match=message) as caught:
        load_text_model(folder, "auto")
    said = str(caught.value)
    assert folder.name in said and "\n" not in said and len(said) < 800
    assert not any(advice in said for advice in ("ignore_mismatched", "trust_remote_code", "weights_only", "https:"))


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_whole_one_is_read(text_model):
    model = load_text_model(text_model, torch.float32, LlamaForCausalLM)
    assert model.config.num_hidden_layers == 2 and not model.training
    (text_model / "generation_config.json").unlink()
    assert load_text_model(str(text_model), "auto").dtype == torch.float32


def test_weights_cut_at_any_place_are_refused(text_model):
    path = text_model / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(text_model, "model.safetensors: (damaged|is empty)")
    path.unlink()
    refused(text_model, "no such file; the weights are missing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 1}, "fewer layers than the weights"),
        ({"num_hidden_layers": 3}, "lacks 9 tensors"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": 24}, "no text model can be loaded"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"hidden_act": "magic"}, "no text model can be loaded"),
        ({"hidden_act": 3}, "hidden_act"),
        ({"model_type": "magic"}, "no text model can be loaded"),
        ({"model_type": 3}, "no text model can be loaded"),
        ({"auto_map": {"AutoModelForCausalLM": "code.Mine"}, "model_type": "mine"}, "no text model can be loaded"),
        ({"rope_parameters": {"rope_theta": "many"}}, "rope_theta"),
    ],
    ids=str,
)
def test_configurations_that_do_not_serve_are_one_sentence(text_model, changes, message):
    edit(text_model / "config.json", **changes)
    refused(text_model, message)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_configurations_that_are_none(text_model, content):
    (text_model / "config.json").write_bytes(content)
    refused(text_model, "config.json")


def test_weights_that_are_no_numbers_are_refused(text_model):
    weights = load_file(text_model / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, text_model / "model.safetensors", metadata={"format": "pt"})
    refused(text_model, "model.safetensors: model.norm.weight holds NaN")


def test_an_adapter_does_not_lead_to_another_model(text_model):
    (text_model / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "a/b"}')
    refused(text_model, "adapter_config.json")


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "../x", "a..b/c", "n" * 300, "a\0b", "bad name/x", "-a/b", ""])
def test_what_is_no_folder_and_no_hub_id_is_said_so_without_asking_the_hub(tmp_path, monkeypatch, name):
    import huggingface_hub

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    if name:  # the empty name is the folder itself
        with pytest.raises(UserError, match="give the folder of a text model"):
            load_text_model(name, "auto")
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="runs/modle: no such folder"):
        load_text_model("runs/modle", "auto")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "open only to those"),
        ("RepositoryNotFoundError", "the hub has no model of that id"),
        ("LocalEntryNotFoundError", "nothing is available from the hub"),
        ("OfflineModeIsEnabled", "nothing is available from the hub"),
        ("HFValidationError", "nothing is available from the hub"),
    ],
)
def test_what_the_hub_says_is_one_sentence_without_its_advice(monkeypatch, error, message):
    import huggingface_hub
    from huggingface_hub import errors

    kind = getattr(errors, error)
    raised = kind.__new__(kind)
    raised.args = ("Cannot find it.\nMake sure you are logged in: run `hf auth login`. See https://huggingface.co/x",)

    def download(*_, **__):
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match=f"someone/something: no such folder, and .*{message}") as caught:
        load_text_model("someone/something", "auto")
    assert "login" not in str(caught.value) and "\n" not in str(caught.value)
