"""The codec of released files: every published tensor in its place, and a codec that works."""

import pytest
import torch
import yaml
from transformers import WhisperModel

from codec.io.errors import UserError
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import FlowConfig, ReasoningCodecConfig
from codec.release.importer import Released, codec_from_published
from codec.untrusted_weights import read_weights
from tests.factories.codec import SMALL_SCALAR, noise
from tests.factories.release.codec import SMALL_SIZES as SIZES
from tests.factories.release.codec import Sizes, codec_shapes, music_shapes, save_released
from tests.factories.release.codec_parity import facts

DEFAULTS = ReasoningCodecConfig(
    flow=FlowConfig(head_dim=8, max_frames=120, window_frames=100, overlap_frames=20),
    encode_window_blocks=30,
    encode_context_blocks=3,
    batch_blocks=60,
)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return save_released(tmp_path_factory.mktemp("released"), SIZES)


def imported(folder, **changes) -> ReasoningCodec:
    return read(folder, **changes).codec


def read(folder, **changes) -> Released:
    arguments = {
        "codec_file": folder / "codec.pt",
        "scalar_file": folder / "sqcodec.pth",
        "scalar_config": folder / "sqcodec_config.yaml",
        "music_file": folder / "music_ssl.pt",
        "whisper": str(folder / "whisper"),
        "wavlm": str(folder / "wavlm"),
        "defaults": DEFAULTS,
    }
    return codec_from_published(**(arguments | changes))


@pytest.fixture(scope="module")
def codec(released):
    return imported(released)


def full_shapes(folder, name: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in facts(folder / name)["keys"].items()}


def test_the_tiny_codec_has_the_published_keys_and_shapes(parity_dir):
    theirs = full_shapes(parity_dir, "codec_full_state_shapes.json")
    block = "audio_thinking.encoder_transformers."
    flow = "cfm_wrapper.estimator"
    sizes = Sizes(
        speech=theirs["d_conv_whisper.weight"][0],
        phone=theirs["d_conv_wavlm.weight"][0],
        music=theirs["d_conv_embedding_semantic.weight"][0],
        dim=theirs["cond_feature_emb.weight"][0],
        descriptive_codes=theirs["audio_thinking.reasoning_vq.layers.0._codebook.embed"][1:],
        head_dim=theirs[f"{block}0.self_attn.q_norm.weight"][0],
        rope_dims=2 * theirs[f"{block}0.rope.inv_freq"][0],
        blocks=len({key.removeprefix(block).split(".")[0] for key in theirs if key.startswith(block)}),
        structural_codes=theirs["vq_acoustic.layers.0._codebook.embed"][1:],
        latent=theirs[f"{flow}.proj_out.ffn_1.weight"][0],
        flow_width=theirs[f"{flow}.proj_in.ffn_2.weight"][0],
        flow_layers=len({key.split(".")[3] for key in theirs if key.startswith(f"{flow}.transformer_blocks.")}),
        max_frames=theirs[f"{flow}.pos_embed.pe"][1],
    )
    assert codec_shapes(sizes) == theirs


def test_the_tiny_music_encoder_has_the_published_keys_and_shapes(parity_dir):
    theirs = full_shapes(parity_dir, "music_ssl_full_state_shapes.json")
    hidden, dim = theirs["model.conformer.layers.0.ffn1.intermediate_dense.weight"]
    ours = music_shapes(
        dim,
        heads=dim // (2 * theirs["model.conformer.embed_positions.inv_freq"][0]),
        hidden=hidden,
        layers=len({key.split(".")[3] for key in theirs if key.startswith("model.conformer.layers.")}),
        channels=theirs["model.conv.conv.0.conv1.weight"][0],
        bands=theirs["model.preprocessor_melspec_2048.mel_stft.mel_scale.fb"][1],
        codes=theirs["model.linear.weight"][0],
    )
    assert ours == theirs


def test_sizes_are_read_off_the_shapes(codec):
    config = codec.config
    assert (config.descriptive.heads, config.descriptive.rope_dims, config.descriptive.blocks) == (4, 6, 2)
    assert (config.descriptive.quantiser.codebook_size, config.structural.quantiser.codebook_size) == (16, 32)
    assert (config.flow.layers, config.flow.heads, config.flow.head_dim, config.flow.max_frames) == (2, 2, 8, 120)
    assert config.scalar == SMALL_SCALAR and config.experts[2].sizes.layers == 12
    defaults = ReasoningCodecConfig()  # what no shape says
    assert config.descriptive.quantiser.dead_code_threshold == defaults.descriptive.quantiser.dead_code_threshold
    assert config.structural.film_scale == defaults.structural.film_scale


def test_tensors_are_where_they_belong(codec, released):
    ours, theirs = codec.state_dict(), read_weights(released / "codec.pt")
    for name, key in {
        "structural.film.structure.linear.weight": "time_film_semantic.weight",
        "structural.quantiser.acoustic.layers.5._codebook.embed": "vq_acoustic.layers.5._codebook.embed",
        "descriptive.query": "audio_thinking.cls_token",
        "descriptive.quantiser.project_in.bias": "audio_thinking.reasoning_vq.project_in.bias",
        "flow.estimator.blocks.1.ff_out.bias": "cfm_wrapper.estimator.transformer_blocks.1.ff.net.2.bias",
        "experts.speech_text.encoder.conv1.weight": "whisper_encoder.conv1.weight",
        "experts.phone.encoder.encoder.layers.3.attention.k_proj.weight": (
            "wavlm_encoder.encoder.layers.3.attention.k_proj.weight"
        ),
    }.items():
        assert torch.equal(ours[name], theirs[key]), name
    music = read_weights(released / "music_ssl.pt")
    assert torch.equal(
        ours["experts.music.encoder.layers.7.attention.value.weight"],
        music["model.conformer.layers.7.self_attn.linear_v.weight"],
    )
    assert torch.equal(ours["flow.latent_mean"], torch.zeros(136)) and torch.equal(
        ours["flow.latent_spread"], torch.ones(136)
    )
    scalar = read_weights(released / "sqcodec.pth")
    assert torch.equal(ours["scalar.decoder.0.bias"], scalar["decoder.0.bias"])


def test_the_imported_codec_works_and_is_saved_as_one_of_ours(codec, tmp_path):
    audio = noise(30_000)[None]
    tokens = codec.encode(audio)[0]
    assert len(tokens["structural"].unique()) > 4 and len(tokens["descriptive"].unique()) > 2
    waveform = codec.decode([tokens], steps=2)[0]
    assert waveform.shape == (30_000,) and waveform.isfinite().all() and waveform.std() > 0
    codec.save_pretrained(tmp_path / "codec")
    again = ReasoningCodec.from_pretrained(tmp_path / "codec")
    assert again.fingerprint == codec.fingerprint
    assert again.encode(audio)[0].equal(tokens)


def rewritten(released, tmp_path, change) -> dict:
    """Arguments of `imported` with a changed codec file."""
    state = read_weights(released / "codec.pt")
    change(state)
    torch.save(state, tmp_path / "changed.pt")
    return {"codec_file": tmp_path / "changed.pt"}


def test_what_is_left_out_is_named(released):
    theirs = [*read_weights(released / "codec.pt"), *read_weights(released / "music_ssl.pt")]
    beginnings = (
        "structure_semantic_decoder.",
        "model.cls_token",
        "model.linear.",
        "model.quantizer_",
        "model.conformer.pos",
    )
    expected = sorted(key for key in theirs if key.startswith(beginnings))
    assert len({key.split(".")[0] for key in expected}) == 2
    assert list(read(released).left_out) == expected


def test_old_names_of_weight_norms_and_encoders_inside_are_read(codec, released, tmp_path):
    music = read_weights(released / "music_ssl.pt")

    def change(state: dict) -> None:
        state |= {f"pretrained_model.{key}": value for key, value in music.items()}
        name = "wavlm_encoder.encoder.pos_conv_embed.conv."
        state[f"{name}weight_g"] = state.pop(f"{name}parametrizations.weight.original0")
        state[f"{name}weight_v"] = state.pop(f"{name}parametrizations.weight.original1")

    again = imported(released, **rewritten(released, tmp_path, change), music_file=None)
    assert again.fingerprint == codec.fingerprint


def test_experts_that_the_file_lacks_keep_the_weights_of_their_models(released, tmp_path):
    def change(state: dict) -> None:
        for key in [key for key in state if key.startswith("whisper_encoder.")]:
            del state[key]

    again = imported(released, **rewritten(released, tmp_path, change)).state_dict()
    whisper = WhisperModel.from_pretrained(released / "whisper").get_encoder().state_dict()
    assert torch.equal(again["experts.speech_text.encoder.conv1.weight"], whisper["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.update({"surprise.weight": torch.zeros(2)}),
            "surprise.weight is no tensor of the published codec",
        ),
        (lambda s: s.update({"audio_thinking.surprise": torch.zeros(2)}), "descriptive.surprise"),
        (lambda s: s.update({"whisper_encoder.surprise": torch.zeros(2)}), "experts.speech_text.encoder.surprise"),
        (lambda s: s.pop("time_film_phone.bias"), "structural.film.phone.linear.bias"),
        (lambda s: s.pop("whisper_encoder.conv1.bias"), "experts.speech_text.encoder.conv1.bias"),
        (lambda s: s.pop("cond_feature_emb.weight"), "cond_feature_emb.weight is missing"),
        (lambda s: s.update({"reason_adaptor.weight": torch.zeros(3, 3)}), "structural.descriptive_adaptor.weight"),
        (lambda s: s["cfm_wrapper.estimator.pos_embed.pe"].mul_(2), "differs from the published table"),
        (
            lambda s: s["audio_thinking.encoder_transformers.1.rope.inv_freq"].mul_(2),
            "differs from the published table",
        ),
        (lambda s: s.update({"pretrained_model.surprise": torch.zeros(2)}), "pretrained_model.surprise is no tensor"),
    ],
)
def test_a_file_that_is_not_wholly_the_published_codec_is_refused(released, tmp_path, change, message):
    with pytest.raises(UserError, match=rf"changed\.pt.*{message}"):
        imported(released, **rewritten(released, tmp_path, change))


def test_files_that_do_not_belong_together_are_named(released, tmp_path):
    with pytest.raises(UserError, match="codec.pt: holds no music encoder; name the file"):
        imported(released, music_file=None)
    with pytest.raises(UserError, match="codec.pt: no published music encoder; .* it is the released codec"):
        imported(released, music_file=released / "codec.pt")
    values = yaml.safe_load((released / "sqcodec_config.yaml").read_text())
    values["generator"]["config"]["init_channel"] = 6
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match="sqcodec.pth: does not fit .*other.yaml .*size mismatch"):
        imported(released, scalar_config=tmp_path / "other.yaml")
    values["generator"]["config"]["surprise"] = 1
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match="other.yaml: does not describe .*surprise"):
        imported(released, scalar_config=tmp_path / "other.yaml")
    (tmp_path / "other.yaml").write_text("a: 1")
    with pytest.raises(UserError, match="other.yaml: names no downsample_factors"):
        imported(released, scalar_config=tmp_path / "other.yaml")
    with pytest.raises(UserError, match="nowhere.yaml: cannot be read"):
        imported(released, scalar_config=tmp_path / "nowhere.yaml")
