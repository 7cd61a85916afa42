"""Released codec files in miniature: the published key names with shapes of any size, and random values."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor
from torchaudio.functional import melscale_fbanks
from transformers import (
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from tests.factories.codec import SMALL_SCALAR


@dataclass(frozen=True)
class Sizes:
    """Defaults are the published ones. Names as in codec.config, codec.descriptive and codec.music_encoder."""

    speech: int = 1024  # channels of the experts
    phone: int = 768
    music: int = 1024
    dim: int = 768
    descriptive_codes: tuple[int, int] = (4096, 64)  # codes, their width
    head_dim: int = 128
    rope_dims: int = 64
    blocks: int = 5
    structural_codes: tuple[int, int] = (8192, 32)
    latent: int = 136
    flow_width: int = 1536
    flow_layers: int = 32
    max_frames: int = 3000


SMALL_SIZES = Sizes(
    speech=16,
    phone=24,
    music=32,
    dim=48,
    descriptive_codes=(16, 8),
    head_dim=12,
    rope_dims=6,
    blocks=2,
    structural_codes=(32, 4),
    flow_width=16,
    flow_layers=2,
    max_frames=120,
)


def codec_shapes(s: Sizes) -> dict[str, tuple[int, ...]]:
    """Key -> shape of the published ReasoningCodec without its frozen encoders."""
    shapes: dict[str, tuple[int, ...]] = {"zero_cond_embedding1": (s.dim,)}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = (shape[0],)

    def normalised(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.parametrizations.weight.original0"] = (rows, 1)
        shapes[f"{name}.parametrizations.weight.original1"] = (rows, columns)

    def quantiser(name: str, levels: int, codes: tuple[int, int]) -> None:
        layer(f"{name}.project_in", codes[1], s.dim)
        layer(f"{name}.project_out", s.dim, codes[1])
        for level in range(levels):
            book = f"{name}.layers.{level}._codebook"
            shapes[f"{book}.initted"] = ()
            shapes[f"{book}.cluster_size"] = (1, codes[0])
            shapes[f"{book}.embed_avg"] = shapes[f"{book}.embed"] = (1, *codes)

    def feature_decoder(name: str, width: int, strides: tuple[int, int]) -> None:
        layer(f"{name}.conv1.conv", width, s.dim, 3, bias=False)
        for index, stride in enumerate(strides):
            block = f"{name}.conv_blocks.{index}"
            if stride == 1:
                layer(f"{block}.conv.conv", width, width, 3)
            else:
                layer(f"{block}.conv.deconv", width, width, 2 * stride)
            for unit in range(2):
                layer(f"{block}.res_units.{unit}.conv1.conv", width, width, 3, bias=False)
                layer(f"{block}.res_units.{unit}.conv2", width, width, 1, bias=False)
        layer(f"{name}.conv2.conv", width, width, 3, bias=False)

    layer("d_conv_whisper", s.speech, s.speech, 4)
    layer("d_conv_wavlm", s.phone, s.phone, 4)
    layer("d_conv_embedding_semantic", s.music, s.music, 2)
    layer("d_conv_embedding_acoustic", s.music, s.music, 2)
    feature_decoder("structure_semantic_decoder", s.music, (1, 2))
    feature_decoder("pronunciation_decoder", s.phone, (2, 2))
    quantiser("vq_acoustic", 6, s.structural_codes)
    quantiser("vq_structure_semantic", 1, s.structural_codes)
    quantiser("vq_pronunciation_semantic", 1, s.structural_codes)
    layer("cond_fusion_layer_semantic", s.dim, s.music)
    layer("cond_fusion_layer_acoustic", s.dim, s.music + s.speech)
    layer("cond_fusion_layer_phone", s.dim, s.phone)
    for name in ("phone", "semantic", "acoustic"):
        layer(f"time_film_{name}", 2 * s.dim, s.dim)
    layer("reason_adaptor", s.dim, s.dim)
    layer("cond_feature_emb", s.dim, s.dim)

    flow, width = "cfm_wrapper.estimator", s.flow_width
    shapes[f"{flow}.scale_shift_table"] = (2, width)
    shapes[f"{flow}.pos_embed.pe"] = (1, s.max_frames, width)
    layer(f"{flow}.proj_in.ffn_1", width, 2 * s.latent + s.dim, 3)
    layer(f"{flow}.proj_in.ffn_2", width, width)
    layer(f"{flow}.proj_out.ffn_1", s.latent, width, 3)
    layer(f"{flow}.proj_out.ffn_2", s.latent, s.latent)
    layer(f"{flow}.adaln_single.emb.timestep_embedder.linear_1", width, 512)
    layer(f"{flow}.adaln_single.emb.timestep_embedder.linear_2", width, width)
    layer(f"{flow}.adaln_single.linear", 6 * width, width)
    for index in range(s.flow_layers):
        block = f"{flow}.transformer_blocks.{index}"
        shapes[f"{block}.scale_shift_table"] = (6, width)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            layer(f"{block}.attn1.{part}", width, width)
        layer(f"{block}.ff.net.0.proj", 4 * width, width)
        layer(f"{block}.ff.net.2", width, 4 * width)

    thinking = "audio_thinking"
    shapes[f"{thinking}.cls_token"] = (1, s.dim)
    layer(f"{thinking}.semantic_merge_proj", s.dim, s.speech + s.music)
    layer(f"{thinking}.down_sampling_layer_whisper", s.speech, s.speech, 2)
    quantiser(f"{thinking}.reasoning_vq", 8, s.descriptive_codes)
    for index in range(s.blocks):
        block = f"{thinking}.encoder_transformers.{index}"
        normalised(f"{block}.self_attn.to_qkv", 3 * s.dim, s.dim)
        normalised(f"{block}.self_attn.to_out", s.dim, s.dim)
        layer(f"{block}.self_attn.q_norm", s.head_dim)
        layer(f"{block}.self_attn.k_norm", s.head_dim)
        shapes[f"{block}.self_attn_scale.scale"] = shapes[f"{block}.ff_scale.scale"] = (s.dim,)
        normalised(f"{block}.ff.ff.0.proj", 8 * s.dim, s.dim)
        normalised(f"{block}.ff.ff.2", s.dim, 4 * s.dim)
        shapes[f"{block}.ff.ff.0.proj.bias"], shapes[f"{block}.ff.ff.2.bias"] = (8 * s.dim,), (s.dim,)
        shapes[f"{block}.rope.inv_freq"] = (s.rope_dims // 2,)
    return shapes


def codec_state(s: Sizes, seed: int = 0) -> dict[str, Tensor]:
    """Random values for the weights, the published formulas for the fixed tables."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in codec_shapes(s).items():
        if key.endswith("initted"):
            state[key] = torch.tensor(True)
        elif key.endswith("cluster_size"):
            state[key] = torch.ones(shape)
        elif key.endswith("inv_freq"):
            state[key] = 10000.0 ** -(torch.arange(0, s.rope_dims, 2) / s.rope_dims)
        elif key.endswith("pos_embed.pe"):
            angles = torch.arange(s.max_frames)[:, None] * torch.exp(
                torch.arange(0, s.flow_width, 2) * (-torch.log(torch.tensor(10000.0)) / s.flow_width)
            )
            state[key] = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]
        else:
            spread = 0.3 if key.endswith(("embed", "embed_avg")) else shape[-1] ** -0.5
            state[key] = spread * torch.randn(shape, generator=generator)
    for key in [key for key in state if key.endswith("embed_avg")]:
        state[key] = state[key.replace("embed_avg", "embed")].clone()
    return state


def music_shapes(dim: int, heads: int, hidden: int, layers: int, channels: int, bands: int = 128, codes: int = 4096):
    """Key -> shape of the published music encoder's checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (dim,)}
    mel, conformer = "preprocessor_melspec_2048.mel_stft", "conformer"
    shapes[f"{mel}.spectrogram.window"], shapes[f"{mel}.mel_scale.fb"] = (2048,), (1025, bands)
    shapes["quantizer_melspec_2048.random_projection"] = (4 * bands, 16)
    shapes["quantizer_melspec_2048.codebook"] = (codes, 16)

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = (shape[0],)

    def batch_norm(name: str, width: int) -> None:
        layer(name, width)
        shapes[f"{name}.running_mean"] = shapes[f"{name}.running_var"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    for block, width in enumerate((1, channels)):
        for number, inputs in ((1, width), (2, channels), (3, width)):
            layer(f"conv.conv.{block}.conv{number}", channels, inputs, 3, 3)
            batch_norm(f"conv.conv.{block}.bn{number}", channels)
    layer("conv.linear", dim, channels * bands // 4)
    layer("linear", codes, dim)
    shapes[f"{conformer}.embed_positions.inv_freq"] = (dim // heads // 2,)
    positional = f"{conformer}.pos_conv_embed.conv"
    shapes[f"{positional}.bias"] = (dim,)
    shapes[f"{positional}.parametrizations.weight.original0"] = (1, 1, 128)
    shapes[f"{positional}.parametrizations.weight.original1"] = (dim, dim // 16, 128)
    layer(f"{conformer}.layer_norm", dim)
    for index in range(layers):
        block = f"{conformer}.layers.{index}"
        for name in ("ffn1_layer_norm", "self_attn_layer_norm", "conv_module.layer_norm", "ffn2_layer_norm"):
            layer(f"{block}.{name}", dim)
        layer(f"{block}.final_layer_norm", dim)
        for name in ("ffn1", "ffn2"):
            layer(f"{block}.{name}.intermediate_dense", hidden, dim)
            layer(f"{block}.{name}.output_dense", dim, hidden)
        for part in "qkv":
            layer(f"{block}.self_attn.linear_{part}", dim, dim)
        layer(f"{block}.self_attn.linear_out", dim, dim)
        layer(f"{block}.conv_module.pointwise_conv1", 2 * dim, dim, 1, bias=False)
        layer(f"{block}.conv_module.depthwise_conv", dim, 1, 31, bias=False)
        batch_norm(f"{block}.conv_module.batch_norm", dim)
        layer(f"{block}.conv_module.pointwise_conv2", dim, dim, 1, bias=False)
    return {f"model.{key}": shape for key, shape in shapes.items()}


def music_state(shapes: dict[str, tuple[int, ...]], seed: int = 1) -> dict[str, Tensor]:
    """Random values for the weights of `music_shapes`, the published formulas for the fixed tables."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        if key.endswith("spectrogram.window"):
            state[key] = torch.hann_window(shape[0])
        elif key.endswith("mel_scale.fb"):
            state[key] = melscale_fbanks(shape[0], 0.0, 12000.0, shape[1], 24000)
        elif key.endswith("inv_freq"):
            state[key] = 10000.0 ** -(torch.arange(shape[0]) / shape[0])
        elif key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(3)
        elif key.endswith("running_var"):
            state[key] = torch.ones(shape)
        else:
            state[key] = torch.randn(shape, generator=generator) / max(1, torch.Size(shape[1:]).numel()) ** 0.5
    return state


def save_released(folder: Path, s: Sizes) -> Path:
    """The files of a release, and transformers models of its experts' shapes (whisper, wavlm), in a folder."""
    torch.manual_seed(0)
    whisper = WhisperModel(
        WhisperConfig(
            d_model=s.speech,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_source_positions=100,
            vocab_size=20,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    )
    sizes = {"hidden_size": s.phone, "num_hidden_layers": 9, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    wavlm = WavLMModel(WavLMConfig(**sizes, **convolutions))
    for name, model, extractor in (
        ("whisper", whisper, WhisperFeatureExtractor()),
        ("wavlm", wavlm, Wav2Vec2FeatureExtractor(do_normalize=False)),
    ):
        model.save_pretrained(folder / name)
        extractor.save_pretrained(folder / name)

    state = codec_state(s)
    for prefix, model in (("whisper_encoder.", whisper.get_encoder()), ("wavlm_encoder.", wavlm)):
        state |= {prefix + key: 1.1 * value for key, value in model.state_dict().items()}  # not the folders' weights
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}, "step": 5}, folder / "codec.pt")

    music = music_state(music_shapes(s.music, heads=2, hidden=40, layers=12, channels=4, bands=16, codes=32))
    torch.save({"model": music, "cfg": {"model": {"name": "musicfm"}}}, folder / "music_ssl.pt")

    scalar = ScalarAutoencoder(SMALL_SCALAR)
    torch.save({"codec_model": scalar_state(scalar)}, folder / "sqcodec.pth")
    ours = {"front_end", "fft_size", "hop", "phase_iterations", "principal_components"}
    values = {key: value for key, value in json.loads(json.dumps(asdict(SMALL_SCALAR))).items() if key not in ours}
    (folder / "sqcodec_config.yaml").write_text(yaml.safe_dump({"generator": {"name": "x", "config": values}}))
    return folder


def scalar_state(scalar: ScalarAutoencoder) -> dict[str, torch.Tensor]:
    """As published: weight norms under their old names, the shared activation once for every stage."""
    state = {}
    for key, value in scalar.state_dict().items():
        key = key.replace("parametrizations.weight.original0", "weight_g")
        state[key.replace("parametrizations.weight.original1", "weight_v")] = value
    shared = state.pop("down_activation.weight")
    stages = {key.split(".")[1] for key in state if ".down_conv." in key}
    return state | {f"encoder.{stage}.down_conv.activation.weight": shared for stage in stages}
