"""What the published files call their tensors, what we call them, and what a file is, going by such names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codec.release.renaming import Renaming

# Of the ReasoningCodec's file -> relative to ReasoningCodec. Its music encoder stands under MUSIC_PREFIX.
_CODEC = Renaming(
    [
        ("zero_cond_embedding1", "structural.no_condition"),
        ("d_conv_whisper.", "structural.downsample.speech_text."),
        ("d_conv_wavlm.", "structural.downsample.phone."),
        ("d_conv_embedding_semantic.", "structural.downsample.music_semantic."),
        ("d_conv_embedding_acoustic.", "structural.downsample.music_acoustic."),
        ("cond_fusion_layer_phone.", "structural.fusion.phone."),
        ("cond_fusion_layer_semantic.", "structural.fusion.structure."),
        ("cond_fusion_layer_acoustic.", "structural.fusion.acoustic."),
        ("time_film_phone.", "structural.film.phone.linear."),
        ("time_film_semantic.", "structural.film.structure.linear."),
        ("time_film_acoustic.", "structural.film.acoustic.linear."),
        ("reason_adaptor.", "structural.descriptive_adaptor."),
        ("cond_feature_emb.", "structural.condition_projection."),
        ("vq_pronunciation_semantic.", "structural.quantiser.phone."),
        ("vq_structure_semantic.", "structural.quantiser.structure."),
        ("vq_acoustic.", "structural.quantiser.acoustic."),
        ("pronunciation_decoder.conv1.conv.", "structural.phone_decoder.conv_in."),
        ("pronunciation_decoder.conv2.conv.", "structural.phone_decoder.conv_out."),
        ("pronunciation_decoder.conv_blocks.{}.conv.deconv.", "structural.phone_decoder.blocks.{}.upsample."),
        (
            "pronunciation_decoder.conv_blocks.{}.res_units.{}.conv1.conv.",
            "structural.phone_decoder.blocks.{}.residual_units.{}.conv.",
        ),
        (
            "pronunciation_decoder.conv_blocks.{}.res_units.{}.conv2.",
            "structural.phone_decoder.blocks.{}.residual_units.{}.pointwise.",
        ),
        ("cfm_wrapper.estimator.scale_shift_table", "flow.estimator.output_offset"),
        ("cfm_wrapper.estimator.proj_in.ffn_1.", "flow.estimator.input.conv."),
        ("cfm_wrapper.estimator.proj_in.ffn_2.", "flow.estimator.input.linear."),
        ("cfm_wrapper.estimator.proj_out.ffn_1.", "flow.estimator.output.conv."),
        ("cfm_wrapper.estimator.proj_out.ffn_2.", "flow.estimator.output.linear."),
        ("cfm_wrapper.estimator.adaln_single.emb.timestep_embedder.linear_1.", "flow.estimator.time.linear_1."),
        ("cfm_wrapper.estimator.adaln_single.emb.timestep_embedder.linear_2.", "flow.estimator.time.linear_2."),
        ("cfm_wrapper.estimator.adaln_single.linear.", "flow.estimator.time.modulation."),
        *(
            (f"cfm_wrapper.estimator.transformer_blocks.{{}}.{published}", f"flow.estimator.blocks.{{}}.{ours}")
            for published, ours in (
                ("scale_shift_table", "modulation_offset"),
                ("attn1.to_q.", "attention.query."),
                ("attn1.to_k.", "attention.key."),
                ("attn1.to_v.", "attention.value."),
                ("attn1.to_out.0.", "attention.out."),
                ("ff.net.0.proj.", "ff_in."),
                ("ff.net.2.", "ff_out."),
            )
        ),
        ("audio_thinking.cls_token", "descriptive.query"),
        ("audio_thinking.semantic_merge_proj.", "descriptive.merge."),
        ("audio_thinking.down_sampling_layer_whisper.", "descriptive.downsample."),
        ("audio_thinking.reasoning_vq.", "descriptive.quantiser."),
        *(
            (f"audio_thinking.encoder_transformers.{{}}.{published}", f"descriptive.blocks.{{}}.{ours}")
            for published, ours in (
                ("self_attn.to_qkv.", "attention.qkv."),
                ("self_attn.to_out.", "attention.out."),
                ("self_attn.q_norm.", "attention.query_norm."),
                ("self_attn.k_norm.", "attention.key_norm."),
                ("self_attn_scale.scale", "attention_scale"),
                ("ff.ff.0.proj.", "feed_forward.up."),
                ("ff.ff.2.", "feed_forward.down."),
                ("ff_scale.scale", "feed_forward_scale"),
            )
        ),
        ("whisper_encoder.", "experts.speech_text.encoder."),
        ("wavlm_encoder.", "experts.phone.encoder."),
    ]
)

# Of the music encoder's own checkpoint, without what stands before every key -> relative to MusicEncoder.
MUSIC = Renaming(
    [
        ("conv.linear.", "front_end.linear."),
        ("conv.conv.{}.conv1.", "front_end.blocks.{}.conv_in."),
        ("conv.conv.{}.bn1.", "front_end.blocks.{}.norm_in."),
        ("conv.conv.{}.conv2.", "front_end.blocks.{}.conv_out."),
        ("conv.conv.{}.bn2.", "front_end.blocks.{}.norm_out."),
        ("conv.conv.{}.conv3.", "front_end.blocks.{}.shortcut."),
        ("conv.conv.{}.bn3.", "front_end.blocks.{}.shortcut_norm."),
        ("conformer.layer_norm.", "norm."),
        *(
            (f"conformer.layers.{{}}.{published}", f"layers.{{}}.{ours}")
            for published, ours in (
                ("ffn1_layer_norm.", "feed_forward_in.norm."),
                ("ffn1.intermediate_dense.", "feed_forward_in.up."),
                ("ffn1.output_dense.", "feed_forward_in.down."),
                ("self_attn_layer_norm.", "attention.norm."),
                ("self_attn.linear_q.", "attention.query."),
                ("self_attn.linear_k.", "attention.key."),
                ("self_attn.linear_v.", "attention.value."),
                ("self_attn.linear_out.", "attention.out."),
                ("conv_module.layer_norm.", "convolution.norm."),
                ("conv_module.pointwise_conv1.", "convolution.pointwise_in."),
                ("conv_module.depthwise_conv.", "convolution.depthwise."),
                ("conv_module.batch_norm.", "convolution.batch_norm."),
                ("conv_module.pointwise_conv2.", "convolution.pointwise_out."),
                ("ffn2_layer_norm.", "feed_forward_out.norm."),
                ("ffn2.intermediate_dense.", "feed_forward_out.up."),
                ("ffn2.output_dense.", "feed_forward_out.down."),
                ("final_layer_norm.", "norm."),
            )
        ),
    ]
)
MUSIC_PREFIX = "model."  # of every key in the music encoder's own checkpoint
MUSIC_INSIDE = "pretrained_model.model."  # what the codec's file puts before such a key
_MUSIC_KEY = "conformer.layers.0.ffn1.intermediate_dense.weight"  # one that every music encoder has

UNREAD = "structure_semantic_decoder."  # by every published loss, and by encoding and decoding
POSITIONS = "cfm_wrapper.estimator.pos_embed.pe"  # a table that ours computes
NOT_LOADED = (POSITIONS, UNREAD)

_WEIGHT_NORMS = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
_SCALAR_ACTIVATION = ".down_conv.activation.weight"  # one parameter, named once for every stage of the encoder


def our_name(published: str) -> str | None:
    """Our name, relative to ReasoningCodec, of a tensor of the published codec's file; None where there is none.

    None is either deliberate (the key starts with one of NOT_LOADED, or is a table of rotary frequencies), the music
    encoder's, or no tensor of the codec.
    """
    if published.startswith(NOT_LOADED) or published.endswith(".rope.inv_freq"):
        return None
    name = _CODEC.ours(published)
    return None if name is None else _newest_norm(name)


def published_name(ours: str) -> str | None:
    """The inverse of `our_name`; None for the scalar autoencoder's and the music encoder's tensors."""
    return _CODEC.published(ours)


def our_scalar_name(published: str) -> str:
    """Our name, relative to ScalarAutoencoder, of a tensor of the published scalar autoencoder."""
    if published.startswith("encoder.") and published.endswith(_SCALAR_ACTIVATION):
        return "down_activation.weight"
    return _newest_norm(published)


def published_scalar_names(ours: str, stages: Iterable[int]) -> list[str]:
    """The inverse of `our_scalar_name`: one name, but of the shared activation one for each of the encoder's stages."""
    if ours == "down_activation.weight":
        return [f"encoder.{stage}{_SCALAR_ACTIVATION}" for stage in stages]
    for old, new in _WEIGHT_NORMS.items():
        ours = ours.removesuffix(new) + old if ours.endswith(f".{new}") else ours
    return [ours]


def music_prefix(names: Iterable[str], inside: bool) -> str | None:
    """What stands before every key of a music encoder among some names; None where there is none.

    Args:
        inside: In the codec's file, whose prefix may hold one `model.` fewer than the encoder's own checkpoint would
            add.
    """
    found = next((name for name in names if name.endswith(_MUSIC_KEY) and name.startswith("pretr") == inside), None)
    prefix = None if found is None else found.removesuffix(_MUSIC_KEY)
    allowed = (MUSIC_INSIDE, MUSIC_INSIDE + MUSIC_PREFIX) if inside else ("", MUSIC_PREFIX, MUSIC_INSIDE)
    return prefix if prefix in allowed else None


def seems(names: Iterable[str]) -> str:
    """What a file is that holds tensors of such names, as the end of a sentence: "; it seems to be ..."; or ""."""
    names = [name.removeprefix("module.") for name in names]
    for what, beginnings in _KINDS.items():
        if any(name.startswith(beginnings) for name in names):
            return f"; by its tensors' names it is {what}"
    return ""


_KINDS: Mapping[str, tuple[str, ...]] = {
    "the released language model (--lm)": ("backbone.", "audio_understanding_expert.", "audio_generation_expert."),
    "the released codec (--codec)": ("cfm_wrapper.", "audio_thinking.", "vq_acoustic.", "d_conv_"),
    "a scalar autoencoder (--scalar)": ("encoder.0.weight_g", "encoder.0.parametrizations.", "decoder.0.weight_g"),
    "a music encoder (--music-encoder)": ("model.conformer.", "conformer.", "pretrained_model.model."),
    "a language model of this project, whose folder other verbs take as it is": ("cross_modal.", "depth_decoder."),
    "a codec of this project, whose folder --codec takes beside --lm": ("structural.", "flow.estimator."),
    "a Whisper, whose folder --whisper takes": ("encoder.embed_positions.", "model.encoder.embed_positions."),
    "a WavLM or its like, whose folder --wavlm takes": ("feature_extractor.", "wavlm.", "hubert.", "wav2vec2."),
    "a text model": ("model.embed_tokens.", "model.layers."),
}


def _newest_norm(name: str) -> str:
    """The name with a weight norm's parts as torch calls them today."""
    for old, new in _WEIGHT_NORMS.items():
        if name.endswith(f".{old}"):
            return name.removesuffix(old) + new
    return name
