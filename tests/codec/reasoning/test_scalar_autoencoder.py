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
from codec.reasoning.scalar_layers import LATENT_DEVIATION, PrincipalComponents
from codec.reasoning.spectrogram import LogMagnitudeSpectrogram
from codec.release.scalar import scalar_state_from_published
from tests.factories.codec_parity import load_fixture, published_state

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


def test_published_activations_that_differ_are_refused():
    state = {f"encoder.{stage}.down_conv.activation.weight": torch.tensor([0.1 * stage]) for stage in (2, 3)}
    with pytest.raises(UserError, match="x.pth: encoder.3.*repeat this value, but here it differs"):
        scalar_state_from_published(state, "x.pth")


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


def test_spectrogram_of_a_sine():
    spectrogram = LogMagnitudeSpectrogram(960, 240, 16)
    time = torch.arange(24000) / 24000
    frames = spectrogram.analyse(torch.sin(2 * torch.pi * 1000 * time)[None])
    assert frames.shape == (1, 481, 100)
    amplitude = spectrogram.magnitudes(frames) * (2 / spectrogram.window.sum())
    assert amplitude[0, :, 50].argmax() == 40  # 1000 Hz / 25 Hz
    assert amplitude[0, 40, 50] == pytest.approx(1.0, abs=1e-3)


def test_spectrogram_inverts_its_own_transform():
    spectrogram = LogMagnitudeSpectrogram(960, 240, 0)
    clip = noise(2, 4800)
    weight = spectrogram.overlap(torch.ones(2, 20))
    torch.testing.assert_close(spectrogram.invert(spectrogram.transform(clip), weight), clip, atol=1e-5, rtol=0)


@torch.no_grad()
def test_phase_search_makes_the_magnitudes_consistent():
    time = torch.arange(24000) / 24000
    clip = sum(torch.sin(2 * torch.pi * f * time * (1 + 0.05 * time)) for f in (220, 440, 660, 1320))[None] / 8

    def error(iterations: int) -> float:
        spectrogram = LogMagnitudeSpectrogram(960, 240, iterations)
        found = spectrogram.transform(spectrogram.synthesise(spectrogram.analyse(clip))).abs()
        wanted = spectrogram.transform(clip).abs()
        return float((found - wanted).norm() / wanted.norm())

    assert error(32) < 0.15 and error(32) < 0.5 * error(0)


def test_silence_stays_silent():
    spectrogram = LogMagnitudeSpectrogram(960, 240, 4)
    waveform = spectrogram.synthesise(spectrogram.analyse(torch.zeros(1, 4800)))
    assert waveform.abs().max() < 1e-4


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
def test_principal_components_are_the_best_linear_code():
    """Signals that live in as many directions as there are coefficients come back exactly."""
    principal = PrincipalComponents(bands=6, latents=3, factor=2)
    basis = torch.linalg.qr(noise(12, 3))[0].T
    codes = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([3.0, 2.0, 1.0])
    vectors = (codes @ basis + noise(1, 12, seed=2)).view(4000, 6, 2)
    assert not principal.down(vectors).any() and not principal.up(torch.ones(1, 3, 5)).any()  # nothing yet
    principal.fit(vectors)
    signal = vectors[:50].movedim(0, 1).reshape(1, 6, 100)  # 50 stretches of 2 frames, one after the other
    coefficients = principal.down(signal)
    assert coefficients.shape == (1, 3, 50)
    torch.testing.assert_close(principal.up(coefficients), signal, atol=1e-5, rtol=0)
    every = principal.down(vectors)[..., 0]  # (N, 3)
    torch.testing.assert_close(every.std(0), torch.full((3,), LATENT_DEVIATION), atol=1e-3, rtol=0)


@torch.no_grad()
def test_noise_on_the_coefficients_costs_less_than_on_equalised_components():
    deviation = torch.tensor([5.0, 2.0, 1.0, 0.5])
    vectors = (noise(20000, 4) / 0.3 * deviation)[:, :, None]
    principal = PrincipalComponents(bands=4, latents=4, factor=1)
    principal.fit(vectors)
    cost = principal.decoder.square().sum()  # of unit noise on every coefficient
    equalised = deviation.square().sum() / LATENT_DEVIATION**2
    assert cost == pytest.approx(float(deviation.sum() ** 2 / 4 / LATENT_DEVIATION**2), rel=0.15)
    assert cost < 0.75 * equalised


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
def test_principal_components_alone_bring_back_what_they_were_fitted_to():
    time = torch.arange(24000) / 24000
    clip = 0.3 * torch.sin(2 * torch.pi * 400 * time * (1 + time))[None]
    model = build("stft with principal components")
    before = model.decode_signal(model.encode(clip))
    model.fit_principal_components([(clip, torch.tensor([24000]))])
    after = model.decode_signal(model.encode(clip))
    wanted = model.signal(clip)
    assert (after - wanted).abs().mean() < 0.3 * (before - wanted).abs().mean()
