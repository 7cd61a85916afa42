"""Names of the published ReasoningCodec's tensors in our modules.

`our_name` maps one published state-dict key to ours (relative to ReasoningCodec), for importer and numerical tests.
"""

from __future__ import annotations

import re

_PREFIXES = {
    "zero_cond_embedding1": "structural.no_condition",
    "d_conv_whisper.": "structural.downsample.speech_text.",
    "d_conv_wavlm.": "structural.downsample.phone.",
    "d_conv_embedding_semantic.": "structural.downsample.music_semantic.",
    "d_conv_embedding_acoustic.": "structural.downsample.music_acoustic.",
    "cond_fusion_layer_phone.": "structural.fusion.phone.",
    "cond_fusion_layer_semantic.": "structural.fusion.structure.",
    "cond_fusion_layer_acoustic.": "structural.fusion.acoustic.",
    "time_film_phone.": "structural.film.phone.linear.",
    "time_film_semantic.": "structural.film.structure.linear.",
    "time_film_acoustic.": "structural.film.acoustic.linear.",
    "reason_adaptor.": "structural.descriptive_adaptor.",
    "cond_feature_emb.": "structural.condition_projection.",
    "vq_pronunciation_semantic.": "structural.quantiser.phone.",
    "vq_structure_semantic.": "structural.quantiser.structure.",
    "vq_acoustic.": "structural.quantiser.acoustic.",
    "pronunciation_decoder.": "structural.phone_decoder.",
    "cfm_wrapper.estimator.": "flow.estimator.",
}

_PHONE_DECODER = [
    (r"^conv1\.conv\.", "conv_in."),
    (r"^conv2\.conv\.", "conv_out."),
    (r"^conv_blocks\.(\d+)\.conv\.deconv\.", r"blocks.\1.upsample."),
    (r"^conv_blocks\.(\d+)\.res_units\.(\d+)\.conv1\.conv\.", r"blocks.\1.residual_units.\2.conv."),
    (r"^conv_blocks\.(\d+)\.res_units\.(\d+)\.conv2\.", r"blocks.\1.residual_units.\2.pointwise."),
]

_ESTIMATOR = [
    (r"^scale_shift_table$", "output_offset"),
    (r"^proj_in\.ffn_1\.", "input.conv."),
    (r"^proj_in\.ffn_2\.", "input.linear."),
    (r"^proj_out\.ffn_1\.", "output.conv."),
    (r"^proj_out\.ffn_2\.", "output.linear."),
    (r"^adaln_single\.emb\.timestep_embedder\.(linear_[12])\.", r"time.\1."),
    (r"^adaln_single\.linear\.", "time.modulation."),
    (r"^transformer_blocks\.(\d+)\.scale_shift_table$", r"blocks.\1.modulation_offset"),
    (r"^transformer_blocks\.(\d+)\.attn1\.to_q\.", r"blocks.\1.attention.query."),
    (r"^transformer_blocks\.(\d+)\.attn1\.to_k\.", r"blocks.\1.attention.key."),
    (r"^transformer_blocks\.(\d+)\.attn1\.to_v\.", r"blocks.\1.attention.value."),
    (r"^transformer_blocks\.(\d+)\.attn1\.to_out\.0\.", r"blocks.\1.attention.out."),
    (r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj\.", r"blocks.\1.ff_in."),
    (r"^transformer_blocks\.(\d+)\.ff\.net\.2\.", r"blocks.\1.ff_out."),
]

# Published tensors that ours computes (`pos_embed.pe`) or that no published loss or decoding ever reads.
NOT_LOADED = ("cfm_wrapper.estimator.pos_embed.pe", "structure_semantic_decoder.")


def our_name(published: str) -> str | None:
    """Our name of a published tensor of the structural branch or the flow decoder, or None where there is none.

    None is either deliberate (the key starts with one of NOT_LOADED) or the key belongs to another module.
    """
    if published.startswith(NOT_LOADED):
        return None
    for prefix, ours in _PREFIXES.items():
        if not published.startswith(prefix):
            continue
        rest = published.removeprefix(prefix)
        rules = {"structural.phone_decoder.": _PHONE_DECODER, "flow.estimator.": _ESTIMATOR}.get(ours, [])
        for pattern, replacement in rules:
            if re.match(pattern, rest):
                return ours + re.sub(pattern, replacement, rest)
        return ours + rest
    return None
