"""Model folders that are damaged, edited or of something else: refused in one sentence, naming the file."""

import json
import os

import pytest
import torch

from codec.io.errors import UserError
from uniaudio.model import UniAudio


@pytest.mark.parametrize("damage", [None, b"", b"not safetensors at all"])
def test_weights_that_cannot_be_read(saved, damage):
    path = saved / "model.safetensors"
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(UserError, match=str(saved)):
        UniAudio.from_pretrained(saved)


def test_missing_weights_are_not_made_up(saved):
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "model.safetensors")
    del weights["audio_head"]
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="model.safetensors: weights do not fit .* 1 weights are missing .audio_head"):
        UniAudio.from_pretrained(saved)


def refused(folder, message=""):
    with pytest.raises(UserError, match=message) as caught:
        UniAudio.from_pretrained(folder)
    said = str(caught.value)
    assert str(folder) in said and "\n" not in said and len(said) < 1000
    assert not any(advice in said for advice in ("ignore_mismatched", "trust_remote_code", "weights_only"))


def edit(path, *keys, value):
    tree = json.loads(path.read_text())
    at = tree
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 50_000, b'{"a": 1, "a": 2}'])
def test_json_that_is_none_is_refused(saved, name, content):
    (saved / name).write_bytes(content)
    refused(saved, name)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["understanding_layers"], "one", "understanding_layers"),
        (["understanding_layers"], 10**9, "understanding_layers"),
        (["understanding_layers"], 0, "have no place in it"),  # the library would leave the layer out
        (["generation_layers"], 2, "weights are missing"),
        (["generation_layers"], None, "generation_layers"),
        (["mask_other_modalities"], "yes", "mask_other_modalities"),
        (["model_type"], "llama", "model_type"),
        (["vocabulary"], [1], "vocabulary"),
        (["vocabulary", "text_size"], "many", "text_size"),
        (["vocabulary", "descriptive_card"], 1000, "a different shape"),
        (["cross_modal"], 3, "cross_modal"),
        (["cross_modal", "hidden_size"], 10**9, "hidden_size"),
        (["cross_modal", "hidden_size"], 48, "a different shape"),
        (["cross_modal", "num_hidden_layers"], 10**9, "num_hidden_layers"),
        (["cross_modal", "num_key_value_heads"], 3, "num_key_value_heads"),
        (["cross_modal", "num_attention_heads"], 0, "num_attention_heads"),
        (["cross_modal", "max_position_embeddings"], -1, "max_position_embeddings"),
        (["cross_modal", "rms_norm_eps"], "small", "rms_norm_eps"),
        (["cross_modal", "hidden_act"], "magic", "config.json"),
        (["cross_modal", "rope_parameters"], {"rope_type": "magic", "rope_theta": 1.0}, "config.json"),
        (["cross_modal", "rope_parameters"], {"rope_type": "default", "rope_theta": -1.0}, "rope_theta"),
        (["cross_modal", "model_type"], "no_such_model", "config.json"),
        (["depth", "hidden_size"], 24, "shape"),
        (["depth"], None, "depth"),
        (["dtype"], "float99", "model"),
    ],
    ids=str,
)
def test_values_of_a_configuration_that_do_not_serve_are_refused(saved, keys, value, message):
    edit(saved / "config.json", *keys, value=value)
    refused(saved, message)


def rewrite(path, change):
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w["audio_head"].view(-1)[5:6].fill_(torch.nan), "model.safetensors: audio_head holds NaN"),
        (lambda w: w["lm_head.weight"].view(-1)[-1:].fill_(torch.inf), "lm_head.weight holds infinite"),
        (lambda w: w.update(more=torch.ones(1)), "1 have no place in it .more"),
        (lambda w: w.update(audio_head=w["audio_head"][:-1].clone()), "audio_head is float"),
        (lambda w: w.update(audio_head=w["audio_head"].to(torch.int8)), "audio_head is integer"),
    ],
)
def test_weights_that_do_not_serve_are_named(saved, change, message):
    rewrite(saved / "model.safetensors", change)
    refused(saved, message)


def test_weights_cut_at_any_place_are_refused(saved):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    for length in (7, 8, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(saved, "model.safetensors: damaged")


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nowhere"])
def test_weights_that_are_no_file_are_refused_at_once(saved, kind):
    path = saved / "model.safetensors"
    path.unlink()
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link to nowhere": lambda: path.symlink_to("no")}[kind]()
    refused(saved, "model.safetensors")


@pytest.mark.parametrize("damage", ["missing", "cut", "outside", "index", "map", "moved", "nan"])
def test_shards_that_do_not_fit_their_index_are_named(sharded, damage):
    index, shard = sharded / "model.safetensors.index.json", sorted(sharded.glob("model-*.safetensors"))[1]
    name = next(k for k, file in json.loads(index.read_text())["weight_map"].items() if file == shard.name)
    if damage == "missing":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "index":
        index.write_text("{")
    elif damage == "map":
        edit(index, "weight_map", value=[1])
    elif damage == "outside":
        edit(index, "weight_map", name, value="../../elsewhere.safetensors")
    elif damage == "moved":
        other = sorted(sharded.glob("model-*.safetensors"))[0]
        edit(index, "weight_map", name, value=other.name)
    else:
        rewrite(shard, lambda weights: weights[name].view(-1)[:1].fill_(torch.nan))
    refused(sharded, "index.json" if damage in ("index", "map", "outside") else "model-0000|index")


def test_an_adapter_beside_the_model_is_not_followed_to_another_model(saved):
    (saved / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "someone/else"}')
    refused(saved, "adapter_config.json: an adapter beside the model")
