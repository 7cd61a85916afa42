"""Published music encoders: names, sizes, tables."""

import pytest
import torch

from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.release.music import PRETRAINING, music_encoder_from_published
from codec.release.names import MUSIC
from tests.factories.release.codec import music_shapes, music_state
from tests.factories.release.codec_parity import facts, load_fixture, published_state


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def published(parity_dir):
    state = published_state(parity_dir / "music_ssl.json")
    sizes = facts(parity_dir / "music_ssl.json")["config"]
    names = ("hop", "sample_rate", "mel_mean", "mel_std")  # which no shape says
    defaults = MusicEncoderConfig(**{name: sizes[name] for name in names})
    encoder = music_encoder_from_published(state, "music_ssl", defaults=defaults)
    return encoder, load_fixture(parity_dir / "music_ssl.safetensors")


def test_published_sizes_are_read_off_the_weights(published, parity_dir):
    encoder, _ = published
    meta = facts(parity_dir / "music_ssl.json")["config"]
    config = encoder.config
    assert (config.dim, config.heads, config.feed_forward) == (meta["encoder_dim"], meta["heads"], meta["ff"])
    assert (config.layers, config.channels) == (meta["depth"], meta["conv_dim"])
    assert (config.kernel, config.mel_bands) == (meta["conv_depthwise_kernel_size"], meta["n_mels"])
    assert (config.fft_size, config.hop, config.sample_rate) == (meta["n_fft"], meta["hop"], meta["sample_rate"])
    assert (config.rotary_base, config.mel_mean, config.mel_std) == (
        meta["rotary_base"],
        meta["mel_mean"],
        meta["mel_std"],
    )


def test_every_key_of_the_full_size_has_a_place(parity_dir):
    """No memory is spent on its 329 million parameters: shapes alone."""
    shapes = facts(parity_dir / "music_ssl_full_state_shapes.json")["keys"]
    feed_forward, dim = shapes["model.conformer.layers.0.ffn1.intermediate_dense.weight"]
    config = MusicEncoderConfig(
        dim=dim,
        heads=dim // (2 * shapes["model.conformer.embed_positions.inv_freq"][0]),
        feed_forward=feed_forward,
        layers=len({key.split(".")[3] for key in shapes if key.startswith("model.conformer.layers.")}),
        kernel=shapes["model.conformer.layers.0.conv_module.depthwise_conv.weight"][2],
        channels=shapes["model.conv.conv.0.conv1.weight"][0],
        mel_bands=shapes["model.preprocessor_melspec_2048.mel_stft.mel_scale.fb"][1],
    )
    tables = ("window", "fb", "inv_freq")
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in MusicEncoder(config).state_dict().items()}
    named = {}
    for key, shape in shapes.items():
        key = key.removeprefix("model.")
        name = MUSIC.ours(key)
        assert (name is None) == (key.startswith(PRETRAINING) or key.endswith(tables)), key
        if name is not None:
            named[name] = tuple(shape)
    assert named == expected


def tiny_published() -> dict[str, torch.Tensor]:
    return music_state(music_shapes(dim=32, heads=2, hidden=40, layers=4, channels=4, bands=20, codes=8))


def test_what_no_shape_says_can_be_given():
    state = tiny_published()
    state["model.conformer.embed_positions.inv_freq"] = 500.0 ** -(torch.arange(8) / 8)
    encoder = music_encoder_from_published(state, "x", defaults=MusicEncoderConfig(hop=120, mel_mean=1.0, mel_std=2.0))
    assert (encoder.config.hop, encoder.config.mel_mean, encoder.config.mel_std) == (120, 1.0, 2.0)
    assert (encoder.config.layers, encoder.config.mel_bands, encoder.config.rotary_base) == (4, 20, 500.0)
    assert encoder(noise(1, 9600))[-1].shape == (1, 20, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.conformer.layers.3.ffn1.output_dense.bias"), "layers.3.feed_forward_in.down.bias"),
        (lambda s: s.update({"model.surprise": torch.zeros(2)}), "model.surprise is no tensor"),
        (
            lambda s: s["model.preprocessor_melspec_2048.mel_stft.mel_scale.fb"].mul_(2),
            "differs from the published table",
        ),
        (
            lambda s: s["model.preprocessor_melspec_2048.mel_stft.spectrogram.window"].mul_(2),
            "differs from the published table",
        ),
        (lambda s: s.pop("model.preprocessor_melspec_2048.mel_stft.mel_scale.fb"), "mel_scale.fb is missing"),
        (lambda s: s.pop("model.conformer.embed_positions.inv_freq"), "inv_freq is missing"),
        (lambda s: s["model.conformer.embed_positions.inv_freq"].add_(0.1), "differs from the published table"),
        (lambda s: s.clear(), "no key begins with 'model.'"),
    ],
)
def test_files_that_are_not_the_published_encoder_are_refused(change, message):
    state = tiny_published()
    change(state)
    with pytest.raises(UserError, match=f"music_ssl.pt.*{message}"):
        music_encoder_from_published(state, "music_ssl.pt")
