"""Names of the published files' tensors: a table read in both directions."""

import pytest

from codec.release.names import (
    MUSIC,
    music_prefix,
    our_name,
    our_scalar_name,
    published_name,
    published_scalar_names,
    seems,
)


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("zero_cond_embedding1", "structural.no_condition"),
        ("vq_acoustic.layers.0._codebook.embed", "structural.quantiser.acoustic.layers.0._codebook.embed"),
        (
            "pronunciation_decoder.conv_blocks.1.res_units.0.conv1.conv.weight",
            "structural.phone_decoder.blocks.1.residual_units.0.conv.weight",
        ),
        (
            "cfm_wrapper.estimator.transformer_blocks.31.attn1.to_q.weight",
            "flow.estimator.blocks.31.attention.query.weight",
        ),
        ("audio_thinking.cls_token", "descriptive.query"),
    ],
)
def test_names_go_both_ways(published, ours):
    assert our_name(published) == ours
    assert published_name(ours) == published


def test_what_the_codec_does_not_hold_has_no_name():
    assert our_name("structure_semantic_decoder.conv1.conv.weight") is None
    assert our_name("audio_thinking.encoder_transformers.0.rope.inv_freq") is None
    assert our_name("surprise") is None
    assert published_name("scalar.encoder.0.bias") is None


def test_parts_of_a_weight_norm_have_the_names_of_today():
    assert our_name("wavlm_encoder.conv.weight_g") == "experts.phone.encoder.conv.parametrizations.weight.original0"
    assert our_scalar_name("decoder.0.weight_v") == "decoder.0.parametrizations.weight.original1"
    assert published_scalar_names("decoder.0.parametrizations.weight.original1", ()) == ["decoder.0.weight_v"]


def test_the_shared_activation_is_named_once_for_each_stage():
    names = published_scalar_names("down_activation.weight", (2, 3))
    assert names == ["encoder.2.down_conv.activation.weight", "encoder.3.down_conv.activation.weight"]
    assert {our_scalar_name(name) for name in names} == {"down_activation.weight"}


def test_the_music_encoder_is_found_under_its_prefixes():
    key = "conformer.layers.0.ffn1.intermediate_dense.weight"
    assert music_prefix([f"model.{key}"], inside=False) == "model."
    assert music_prefix([f"pretrained_model.model.{key}"], inside=True) == "pretrained_model.model."
    assert music_prefix([f"other.{key}"], inside=False) is None
    assert MUSIC.ours(key) == "layers.0.feed_forward_in.up.weight"
    assert MUSIC.published("layers.0.feed_forward_in.up.weight") == key


def test_a_file_is_told_by_the_names_of_its_tensors():
    assert seems(["module.cfm_wrapper.x"]) == "; by its tensors' names it is the released codec (--codec)"
    assert seems(["x"]) == ""
