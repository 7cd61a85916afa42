"""Scalar autoencoder: published numbers, exact lengths, batches, gradients, files."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.io.errors import UserError
from codec.io.strict import parse
from codec.reasoning.config import ScalarConfig
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.release.scalar import scalar_state_from_published
from tests.factories.release.codec_parity import load_fixture, published_state

STFT = ScalarConfig(
    num_bands=481,
    causal=False,
    num_samples=1,
    downsample_factors=(2, 2),
    downsample_kernel_sizes=(4, 4),
    upsample_factors=(2, 2),
    upsample_kernel_sizes=(4, 4),
    default_kernel_size=3,
    delay_kernel_size=3,
    init_channel=16,
    res_kernel_size=3,
    front_end="stft",
    phase_iterations=4,
)
WAVEFORM = ScalarConfig(init_channel=8)
CONFIGS = {
    "stft": STFT,
    "stft with principal components": replace(STFT, principal_components=True),
    "waveform": WAVEFORM,
    "waveform not causal": replace(WAVEFORM, causal=False),
}


def build(name: str) -> ScalarAutoencoder:
    torch.manual_seed(3)
    return ScalarAutoencoder(CONFIGS[name]).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def published(parity_dir):
    path = parity_dir / "scalar.json"
    model = ScalarAutoencoder(parse(ScalarConfig, json.loads(path.read_text())["config"], str(path))).eval()
    state = published_state(path)
    stages = len(model.config.downsample_factors)
    assert sum(key.endswith("down_conv.activation.weight") for key in state) == stages
    model.load_state_dict(
        scalar_state_from_published(state, "scalar.json")
    )  # strict: every published key has its place
    return model, load_fixture(parity_dir / "scalar.safetensors")


@torch.no_grad()
def test_published_latents(published):
    model, expected = published
    latents = model.encode(expected["wav"][:, 0])
    torch.testing.assert_close(latents, expected["latent"], atol=1e-4, rtol=0)
    near_boundary = ((9 * expected["latent"]).frac().abs() - 0.5).abs() < 1e-3
    wrong = (model.quantise(latents) - expected["latent_quantised"]).abs() > 1e-6
    assert near_boundary.float().mean() < 0.005 and not (wrong & ~near_boundary).any()


@torch.no_grad()
@pytest.mark.parametrize(
    "given_name, decoded", [("latent", "decoded"), ("random_latent", "decoded_from_random_latent")]
)
def test_published_waveform(published, given_name, decoded):
    model, expected = published
    torch.testing.assert_close(model.decode(expected[given_name]), expected[decoded][:, 0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_published_taps(published):
    model, expected = published
    taps = {}
    for side in ("encoder", "decoder"):
        for number, stage in enumerate(getattr(model, side)):
            stage.register_forward_hook(lambda _, __, out, key=f"tap.{side}.{number}_out": taps.update({key: out}))
    model.decode(model.encode(expected["wav"][:, 0]))
    stored = {key.removesuffix(".first_samples"): value for key, value in expected.items() if key.startswith("tap.")}
    repeat, factors = model.config.num_samples, model.config.downsample_factors
    assert len(stored) >= 2 * len(factors)
    if repeat > 1:  # outside of the stage
        taps["tap.encoder.1_out"] = torch.nn.functional.avg_pool1d(taps["tap.encoder.1_out"], repeat)
    first = 2 if repeat > 1 else 1
    for key, value in stored.items():
        found = taps[key]
        if key in {f"tap.encoder.{first + stage}_out" for stage in range(len(factors))}:
            found = model.down_activation(found)  # shared, hence outside of the stages
        torch.testing.assert_close(found[..., : value.shape[-1]], value, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=8, deadline=None)
@given(samples=st.integers(1, 5000))
def test_any_length(name, samples):
    model = build(name)
    latents = model.encode(noise(1, samples))
    frames = -(-samples // 960)
    assert latents.shape == (1, 136, frames) and model.config.latent_frames(samples) == frames
    assert latents.abs().max() <= 1
    waveform = model.decode(latents, torch.tensor([samples]))
    assert waveform.shape == (1, frames * 960) and waveform.isfinite().all()
    assert waveform[0, :samples].any() and not waveform[0, samples:].any()


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_a_clip_in_a_batch_is_a_clip_alone(name):
    model = build(name)
    lengths = torch.tensor([4800, 7001, 1])
    clips = noise(3, 7001)  # what lies beyond a clip's length is anything
    latents = model.encode(clips, lengths)
    waveforms = model.decode(latents, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model.encode(clips[row : row + 1, :length])
        frames = alone.shape[-1]
        torch.testing.assert_close(latents[row, :, :frames], alone[0], atol=1e-5, rtol=0)
        assert not latents[row, :, frames:].any()
        decoded = model.decode(latents[row : row + 1, :, :frames], lengths[row : row + 1])
        torch.testing.assert_close(waveforms[row, :length], decoded[0, :length], atol=1e-4, rtol=0)
        assert not waveforms[row, length:].any()


@torch.no_grad()
def test_causal_latents_do_not_see_the_future():
    model = build("waveform")
    clip = noise(1, 4800)
    changed = clip.clone()
    changed[:, 2880:] = 0
    assert torch.equal(model.encode(clip)[..., :3], model.encode(changed)[..., :3])
    assert not torch.equal(model.encode(clip)[..., 3:], model.encode(changed)[..., 3:])


def test_quantise_has_19_levels_and_a_straight_gradient():
    model = build("stft")
    latents = torch.linspace(-1, 1, 1001, requires_grad=True)
    rounded = model.quantise(latents)
    assert len(torch.unique(rounded.detach() * 9)) == 19
    assert (rounded - latents).abs().max() <= 1 / 18 + 1e-6
    rounded.sum().backward()
    assert torch.equal(latents.grad, torch.ones(1001))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_waveform_teaches_every_parameter(name):
    model = build(name).train()
    clip = noise(2, 2880)
    (model.decode(model.encode(clip)) - clip).square().mean().backward()
    untaught = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert untaught == []


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_saved_and_loaded(name, tmp_path):
    model = build(name)
    model.save_pretrained(tmp_path)
    loaded = ScalarAutoencoder.from_pretrained(tmp_path)
    assert loaded.config == model.config and not loaded.training
    clip = noise(1, 3000)
    assert torch.equal(loaded.encode(clip), model.encode(clip))


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match="config.json"):
        ScalarAutoencoder.from_pretrained(tmp_path)
    build("stft").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=str(tmp_path)):
        ScalarAutoencoder.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match="model.safetensors"):
        ScalarAutoencoder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"front_end": "mel"}, "front_end"),
        ({"principal_components": True}, "principal_components"),
        ({"front_end": "stft"}, "num_bands must be 481"),
        ({"upsample_factors": (5, 4, 4, 3, 3)}, "products"),
        ({"downsample_kernel_sizes": (4,)}, "differ in length"),
        ({"upsample_kernel_sizes": (4, 8, 8, 6, 4)}, "kernel 4 is shorter than its factor 5"),
        ({"front_end": "stft", "num_bands": 481, "hop": 320}, "fft_size 960"),
        ({"latent_hiden_dim": 8}, "latent_hiden_dim"),
    ],
)
def test_a_config_that_cannot_be_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        parse(ScalarConfig, values, "config.json")


@torch.no_grad()
def test_principal_components_are_those_of_the_clips_and_not_of_their_padding():
    clips, lengths = noise(2, 9600), torch.tensor([9600, 4800])
    together, apart = (build("stft with principal components") for _ in range(2))
    together.fit_principal_components([(clips, lengths)])
    clips[1, 4800:] = 5.0
    apart.fit_principal_components([(clips[:1], lengths[:1]), (clips[1:, :4800], lengths[1:])])
    torch.testing.assert_close(together.principal.mean, apart.principal.mean)
    torch.testing.assert_close(together.principal.decoder.norm(), apart.principal.decoder.norm(), atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="no principal components"):
        build("stft").fit_principal_components([(clips, lengths)])


@torch.no_grad()
def test_mel_weighted_components_keep_more_of_the_low_bands():
    clips, lengths = noise(8, 9600), torch.full((8,), 9600)
    wanted = build("stft").signal(clips)
    low = {}
    for weighted in (False, True):
        model = build("stft with principal components")
        model.fit_principal_components([(clips, lengths)], mel_weighted=weighted)
        error = (model.principal.up(model.principal.down(wanted)) - wanted).square().mean((0, 2))
        low[weighted] = error[:100].mean() / error.mean()
    assert low[True] < low[False] - 0.03


@torch.no_grad()
def test_principal_components_alone_bring_back_what_they_were_fitted_to():
    time = torch.arange(24000) / 24000
    clip = 0.3 * torch.sin(2 * torch.pi * 400 * time * (1 + time))[None]
    model = build("stft with principal components")
    before = model.decode_signal(model.encode(clip))
    model.fit_principal_components([(clip, torch.tensor([24000]))])
    after = model.decode_signal(model.encode(clip))
    wanted = model.signal(clip)
    assert (after - wanted).abs().mean() < 0.3 * (before - wanted).abs().mean()
