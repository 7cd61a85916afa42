"""Saving, loading and naming a tokenizer."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from codec.errors import UserError
from codec.reasoning_codec import ReasoningCodec
from codec.tokenizer import load_tokenizer
from tests.codec.small_codec import SMALL, noise, small_codec


@pytest.fixture
def saved(tmp_path):
    codec = small_codec()
    codec.save_pretrained(tmp_path / "codec")
    return codec, tmp_path / "codec"


def test_a_saved_tokenizer_comes_back_as_it_was(saved):
    codec, folder = saved
    audio = noise(30_000)[None]
    for back in (load_tokenizer(folder), ReasoningCodec.from_pretrained(str(folder))):
        assert not back.training and back.config == codec.config
        assert back.fingerprint == codec.fingerprint
        tokens = back.encode(audio)[0]
        assert tokens.equal(codec.encode(audio)[0])
        assert torch.equal(back.decode([tokens], steps=2)[0], codec.decode([tokens], steps=2)[0])


def test_the_model_card_says_what_was_saved(saved):
    codec, folder = saved
    card = (folder / "README.md").read_text()
    assert f"`{codec.fingerprint}`" in card
    assert "5 Hz x 8 codebooks of 64 codes (240 bit/s)" in card
    assert "12.5 Hz x 8 codebooks of 64 codes (600 bit/s)" in card
    # What an engine hands in counts, though the codec is in training, and a later card takes an earlier one's place.
    fresh = {"structural.condition_projection.bias": torch.full((32,), 7.0)}
    codec.train().save_pretrained(folder, state_dict=fresh)
    assert f"`{load_tokenizer(folder).fingerprint}`" in (folder / "README.md").read_text() != card
    (folder / "README.md").write_text("# Mine\n")
    codec.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "# Mine\n"


def test_the_fingerprint_follows_weights_and_configuration(saved):
    codec, folder = saved
    assert small_codec().fingerprint == codec.fingerprint
    assert small_codec(replace(SMALL, decode_steps=3, decode_guidance=1.0)).fingerprint == codec.fingerprint
    assert small_codec(seed=1).fingerprint != codec.fingerprint
    weights = load_file(folder / "model.safetensors")
    name = "structural.quantiser.phone.layers.0._codebook.embed"
    weights[name][0, 0, 0] += 1e-3
    save_file(weights, folder / "model.safetensors")
    assert load_tokenizer(folder).fingerprint != codec.fingerprint
    values = json.loads((folder / "config.json").read_text())
    values["encode_context_blocks"] += 1
    (folder / "config.json").write_text(json.dumps(values))
    codec.save_pretrained(folder, state_dict={})
    values = json.loads((folder / "config.json").read_text())
    values["encode_context_blocks"] += 1
    (folder / "config.json").write_text(json.dumps(values))
    assert load_tokenizer(folder).fingerprint != codec.fingerprint


def test_the_fingerprint_is_not_kept_over_training(saved):
    codec, _ = saved
    before = codec.fingerprint
    codec.train()
    with pytest.raises(RuntimeError, match="call eval"):
        _ = codec.fingerprint
    with torch.no_grad():
        codec.structural.condition_projection.weight += 1.0
    assert codec.eval().fingerprint != before


def test_an_engine_may_hand_in_newer_tensors(saved):
    codec, folder = saved
    fresh = {"structural.condition_projection.bias": torch.full((32,), 7.0)}
    codec.save_pretrained(folder, state_dict=fresh)
    back = load_tokenizer(folder)
    assert (back.structural.condition_projection.bias == 7).all()
    assert torch.equal(back.structural.no_condition, codec.structural.no_condition)


def broken_config(folder):
    (folder / "config.json").write_text("{")


def no_config(folder):
    (folder / "config.json").unlink()


def other_type(folder):
    edit(folder, tokenizer_type="mystery")


def no_type(folder):
    (folder / "config.json").write_text("{}")


def unknown_key(folder):
    edit(folder, bloks=3)


def unfit_value(folder):
    edit(folder, encode_window_blocks=1)


def group_is_a_number(folder):
    edit(folder, flow=3)


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def truncated_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def missing_tensor(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["structural.no_condition"]
    save_file(weights, folder / "model.safetensors")


def edit(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (broken_config, "not readable as JSON"),
        (no_config, "not the folder of a saved tokenizer"),
        (no_type, "has no tokenizer_type"),
        (other_type, "'mystery' is none of"),
        (unknown_key, "unknown setting 'bloks'"),
        (unfit_value, "encode_window_blocks"),
        (group_is_a_number, "FlowConfig must be a group of settings"),
        (no_weights, "weights of the tokenizer are missing"),
        (truncated_weights, "damaged"),
        (missing_tensor, "structural.no_condition"),
    ],
)
def test_damage_is_one_sentence_that_names_the_file(saved, damage, message):
    _, folder = saved
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_folder_is_said_so(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_tokenizer(tmp_path / "nothing")


def test_another_type_is_not_loaded_as_this_one(saved):
    _, folder = saved
    edit(folder, tokenizer_type="mystery")
    with pytest.raises(UserError, match="type 'mystery', not 'reasoning_codec'"):
        ReasoningCodec.from_pretrained(folder)
