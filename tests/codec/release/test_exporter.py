"""An imported codec comes back as the files that it was, to the bit; others are written as published, or refused."""

from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from codec.io.errors import UserError
from codec.reasoning.codec import ReasoningCodec
from codec.release.exporter import write_codec
from codec.release.importer import codec_from_published
from codec.release.record import PublishedFiles
from codec.untrusted_weights import read_pickle, read_weights
from tests.factories.codec import small_codec
from tests.factories.release.codec import SMALL_SIZES, save_released

NAMES = {"codec": "codec.pt", "scalar": "sqcodec.pth", "scalar_config": "sqcodec_config.yaml"}
NAMES |= {"music_encoder": "music_ssl.pt"}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return save_released(tmp_path_factory.mktemp("released"), replace(SMALL_SIZES, flow_width=64, max_frames=500))


@pytest.fixture(scope="module")
def codec(released):
    return imported(released, released).codec


def imported(folder, experts, music: bool = True):
    files = [folder / NAMES[name] for name in ("codec", "scalar", "scalar_config")]
    experts = {name: str(experts / name) for name in ("whisper", "wavlm")}
    return codec_from_published(*files, folder / NAMES["music_encoder"] if music else None, **experts)


def places(folder, music: bool = True) -> dict:
    return {name: folder / file for name, file in NAMES.items() if music or name != "music_encoder"}


def require_same_file(ours, theirs):
    ours, theirs = read_pickle(ours), read_pickle(theirs)
    nest = next((nest for nest in ("model", "codec_model") if nest in theirs), None)
    ours, theirs = (ours[nest], theirs[nest]) if nest else (ours, theirs)
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype and ours[key].shape == value.shape, key
        assert torch.equal(*(x.contiguous().reshape(-1).view(torch.uint8) for x in (ours[key], value))), key


@pytest.mark.parametrize("form", ["apart", "inside", "inside, one model. fewer", "halved"])
def test_what_was_imported_comes_back_to_the_bit(released, tmp_path, form):
    folder = tmp_path / "release"
    folder.mkdir()
    for name in ("sqcodec.pth", "sqcodec_config.yaml"):
        (folder / name).write_bytes((released / name).read_bytes())
    state, music = read_weights(released / "codec.pt"), read_weights(released / "music_ssl.pt")
    if form == "halved":
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    if form.startswith("inside"):
        prefix = "pretrained_model.model." if form == "inside" else "pretrained_model."
        state |= {prefix + key: value for key, value in music.items()}
        norm = "wavlm_encoder.encoder.pos_conv_embed.conv."
        state[f"{norm}weight_g"] = state.pop(f"{norm}parametrizations.weight.original0")
        state[f"{norm}weight_v"] = state.pop(f"{norm}parametrizations.weight.original1")
        torch.save(state, folder / "codec.pt")
    else:
        torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, folder / "codec.pt")
        torch.save({"model": music}, folder / "music_ssl.pt")
    apart = not form.startswith("inside")
    found = imported(folder, released, apart)
    found.codec.save_pretrained(tmp_path / "codec")
    found.files.save(tmp_path / "codec")
    if form == "halved":
        stored = load_file(tmp_path / "codec" / "model.safetensors")
        assert (
            stored["descriptive.query"].dtype == torch.float16
            and stored["scalar.decoder.0.bias"].dtype == torch.float32
        )
    codec, record = ReasoningCodec.from_pretrained(tmp_path / "codec"), PublishedFiles.load(tmp_path / "codec")
    assert codec.fingerprint == found.codec.fingerprint and codec.config.published_encoding
    with pytest.raises(UserError, match="music-encoder"):
        write_codec(codec, record, "x", places(tmp_path / "back", not apart))
    written = write_codec(codec, record, "x", places(tmp_path / "back", apart))
    assert written["codec"] == len(state)
    for name in ("codec.pt", "sqcodec.pth", *(["music_ssl.pt"] if apart else [])):
        require_same_file(tmp_path / "back" / name, folder / name)
    values = [yaml.safe_load((place / "sqcodec_config.yaml").read_text()) for place in (tmp_path / "back", folder)]
    assert values[0] == values[1]


@pytest.mark.parametrize("music", [True, False])
def test_a_codec_without_a_record_is_written_as_published(codec, released, tmp_path, music):
    counts = write_codec(codec, None, "x", places(tmp_path, music))
    assert set(counts) == set(NAMES) - {"scalar_config"} - (set() if music else {"music_encoder"})
    again = imported(tmp_path, released, music)
    assert again.codec.fingerprint == codec.fingerprint and again.left_out == ()


def test_what_the_published_form_cannot_hold_is_refused_with_a_remedy(codec, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="x: cannot be written .* kind 'mel'.*; keep it as a folder"):
        write_codec(small_codec(), None, "x", places(tmp_path))
    with monkeypatch.context() as changed:
        other = replace(codec.config, flow=replace(codec.config.flow, overlap_frames=20))
        changed.setattr(codec, "config", other)
        with pytest.raises(UserError, match="does not state its flow.overlap_frames: it is 20, the published one 60"):
            write_codec(codec, None, "x", places(tmp_path))
    monkeypatch.setattr(codec.flow, "latent_mean", codec.flow.latent_mean + 0.1)
    with pytest.raises(UserError, match="normalised latents"):
        write_codec(codec, None, "x", places(tmp_path))
    assert not list(tmp_path.iterdir())
