"""The music encoder: published numbers, lengths, and its life as a folder."""

import json

import pytest
import torch
from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel

from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.release.music import music_encoder_from_published
from codec.release.names import MUSIC
from tests.factories.release.codec_parity import facts, load_fixture, published_state

SMALL = MusicEncoderConfig(dim=16, heads=2, feed_forward=24, layers=3, kernel=5, channels=4, mel_bands=18, fft_size=512)


def small_encoder(config: MusicEncoderConfig = SMALL, seed: int = 0) -> MusicEncoder:
    torch.manual_seed(seed)
    return MusicEncoder(config).eval()


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


def numbered_states(taps: dict[str, torch.Tensor]) -> dict[str, int]:
    """Name of a hidden state in the fixture -> its number in ours."""
    numbers = {name: name.removeprefix("hidden_") for name in taps if name.startswith("hidden_")}
    return {name: int(number) if number.isdigit() else -1 for name, number in numbers.items()}


@torch.no_grad()
def test_reproduces_the_published_spectra(published):
    encoder, taps = published
    mel = encoder.mel(taps["wav"])
    torch.testing.assert_close(mel, taps["mel_normalised"], atol=2e-4, rtol=0)
    shown = taps["mel_db_unnormalised"].shape[2]
    decibels = mel[:, :, :shown] * encoder.config.mel_std + encoder.config.mel_mean
    torch.testing.assert_close(decibels, taps["mel_db_unnormalised"], atol=4e-3, rtol=0)


@torch.no_grad()
def test_reproduces_the_published_states_from_the_spectra(published):
    encoder, taps = published
    seen = {}

    def tap(module: torch.nn.Module, name: str) -> None:
        module.register_forward_hook(lambda *call: seen.setdefault(name, call[2]))

    (front,) = (name for name in taps if name.startswith("tap.conv_block0_out"))
    tap(encoder.front_end.blocks[0], front)
    tap(encoder.front_end, "tap.conformer_in")
    tap(encoder.layers[0].attention, "tap.layer0_attn_out")
    tap(encoder.layers[0].convolution, "tap.layer0_conv_module_out")
    tap(encoder.layers[0], "tap.layer0_out")
    states = encoder.states(taps["mel_normalised"])
    assert len(states) == encoder.config.layers + 1
    seen[front] = seen[front][..., : taps[front].shape[-1]]
    hidden = numbered_states(taps)
    assert len(hidden) >= 2
    seen |= {name: states[number] for name, number in hidden.items()}
    assert {name for name in taps if name.startswith(("tap.", "hidden"))} == seen.keys()
    for name, value in seen.items():
        torch.testing.assert_close(value, taps[name], atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@torch.no_grad()
def test_reproduces_the_published_states_from_the_waveform(published):
    encoder, taps = published
    states = encoder(taps["wav"])
    for name, state in numbered_states(taps).items():
        torch.testing.assert_close(states[state], taps[name], atol=1e-3, rtol=0)


@torch.no_grad()
def test_the_conformer_is_that_of_transformers():
    """The published layers are those of the library: checked at sizes of which there are no published numbers."""
    torch.manual_seed(0)
    settings = Wav2Vec2ConformerConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        conv_depthwise_kernel_size=7,
        position_embeddings_type="rotary",
        rotary_embedding_base=300,
        hidden_act="swish",
        num_conv_pos_embeddings=16,
    )
    theirs = Wav2Vec2ConformerModel(settings).encoder.eval()
    for name, tensor in theirs.state_dict().items():  # else norms and biases would be ones and zeros
        if tensor.is_floating_point() and "inv_freq" not in name:
            tensor.copy_(torch.rand_like(tensor) * 0.4 + 0.8 if tensor.ndim == 1 else tensor * 5)
    ours = small_encoder(MusicEncoderConfig(48, 3, 40, layers=2, kernel=7, channels=4, mel_bands=16, rotary_base=300.0))
    state = {MUSIC.ours(f"conformer.{key}"): value for key, value in theirs.state_dict().items()}
    missing, unexpected = ours.load_state_dict({key: value for key, value in state.items() if key}, strict=False)
    assert not unexpected and all(key.startswith("front_end.") for key in missing)
    ours.front_end = torch.nn.Identity()
    x = 10 * noise(2, 33, 48)
    expected = theirs(x).last_hidden_state
    torch.testing.assert_close(ours.states(x)[-1], expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("num_samples", [960, 1919, 1920, 24001])
def test_any_length_has_its_whole_frames(num_samples):
    encoder, waveform = small_encoder(), noise(2, num_samples)
    frames = num_samples // 960
    assert encoder.mel(waveform).shape == (2, 18, 4 * frames)
    states = encoder(waveform)
    assert [state.shape for state in states] == [(2, frames, 16)] * 4
    assert all(state.isfinite().all() for state in states)
    for ours, heard in zip(states, encoder(waveform[:, : 960 * frames]), strict=True):
        assert torch.equal(ours, heard)
    with pytest.raises(ValueError, match="less than a frame"):
        encoder(waveform[:, :959])


@torch.no_grad()
def test_what_lies_beyond_the_deepest_state_is_not_computed():
    encoder, waveform = small_encoder(), noise(1, 9600)
    whole, part = encoder(waveform), encoder(waveform, deepest=2)
    assert len(part) == 3 and all(torch.equal(a, b) for a, b in zip(part, whole[:3], strict=True))
    encoder.layers[2].register_forward_hook(lambda *call: pytest.fail("layer 2 ran"))
    encoder(waveform, deepest=2)


@torch.no_grad()
def test_a_saved_encoder_comes_back(tmp_path):
    encoder, waveform = small_encoder(), noise(1, 9600)
    encoder.save_pretrained(tmp_path / "encoder")
    again = MusicEncoder.from_pretrained(tmp_path / "encoder")
    assert again.config == SMALL and not again.training
    assert torch.equal(again(waveform)[-1], encoder(waveform)[-1])


def test_damaged_folders_are_named(tmp_path):
    with pytest.raises(
        UserError, match="nowhere: no such folder; give the folder of a music encoder, .* or train one with"
    ):
        MusicEncoder.from_pretrained(tmp_path / "nowhere")
    small_encoder().save_pretrained(tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="cut/model.safetensors: damaged"):
        MusicEncoder.from_pretrained(tmp_path / "cut")
    small_encoder().save_pretrained(tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layers": 4}))
    with pytest.raises(UserError, match=r"other/model.safetensors: weights do not fit .*layers\.3"):
        MusicEncoder.from_pretrained(tmp_path / "other")


@pytest.mark.parametrize(
    ("values", "message"),
    [({"layers": 0}, "layers"), ({"heads": 3}, "heads of even width"), ({"kernel": 4}, "must be odd")],
)
def test_sizes_that_cannot_be(values, message):
    with pytest.raises(UserError, match=message):
        MusicEncoderConfig(**values)
