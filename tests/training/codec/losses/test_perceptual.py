"""The perceptual loss: nothing is missed of the original, more is missed of more noise, and only speech is heard."""

from dataclasses import dataclass

import pytest
import torch

from codec.experts.config import ExpertConfig
from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.reasoning.config import ScalarConfig
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from tests.factories.codec import SMALL_SCALAR, noise
from training.codec.losses.perceptual import PerceptualLoss

LENGTHS = (9_600, 7_000, 4_800)
SPECTRA = ScalarConfig(
    num_bands=481,
    num_samples=1,
    causal=False,
    downsample_factors=(4,),
    downsample_kernel_sizes=(8,),
    upsample_factors=(4,),
    upsample_kernel_sizes=(8,),
    default_kernel_size=3,
    delay_kernel_size=3,
    init_channel=8,
    res_kernel_size=3,
    front_end="stft",
    fft_size=960,
    hop=240,
    principal_components=True,
)


@dataclass
class Clip:
    kind: str


@dataclass
class Crop:
    clip: Clip
    length: int
    seed: int

    def load(self):
        return noise(self.length, self.seed)


def crops(*kinds):
    return [Crop(Clip(kind), length, seed) for seed, (kind, length) in enumerate(zip(kinds, LENGTHS, strict=False))]


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("expert")
    sizes = MusicEncoderConfig(dim=16, heads=2, feed_forward=32, layers=2, kernel=5, channels=4, mel_bands=16, hop=120)
    MusicEncoder(sizes).save_pretrained(folder)
    return ExpertConfig("phone", "conformer", str(folder), {"phone": (2,)})


def fitted(config=SPECTRA):
    """An autoencoder whose latents keep something of the sound."""
    torch.manual_seed(1)
    scalar = ScalarAutoencoder(config).eval()
    if config.principal_components:
        waveforms = torch.stack([noise(24_000, seed) for seed in range(8)])
        scalar.fit_principal_components([(waveforms, torch.full((8,), 24_000))])
    return scalar.requires_grad_(False)


def latents_of(scalar, batch):
    waveforms = torch.nn.utils.rnn.pad_sequence([crop.load() for crop in batch], batch_first=True)
    return scalar.encode(waveforms, torch.tensor([crop.length for crop in batch])).transpose(1, 2)


@pytest.mark.parametrize("kind", ["conformer", "mel"])
def test_the_further_from_the_original_the_more_is_missed(expert, kind):
    scalar, batch = fitted(), crops("speech", "speech", "speech")
    loss = PerceptualLoss(expert if kind == "conformer" else ExpertConfig("phone"), scalar, torch.device("cpu"))
    latents, heard, all_of_them = latents_of(scalar, batch), loss.hear(batch), torch.ones(3, dtype=torch.bool)
    torch.manual_seed(2)
    error = torch.randn_like(latents)
    missed = [float(loss(latents + amount * error, heard, all_of_them)) for amount in (0.0, 0.1, 0.3, 1.0)]
    assert missed == sorted(missed)
    assert missed[-1] > 2 * missed[0]


def test_the_gradient_points_to_what_is_missed(expert):
    scalar, batch = fitted(), crops("speech", "speech", "speech")
    loss = PerceptualLoss(expert, scalar, torch.device("cpu"))
    latents, heard, counted = latents_of(scalar, batch), loss.hear(batch), torch.tensor([True, False, True])
    torch.manual_seed(3)
    start = (latents + 0.3 * torch.randn_like(latents)).requires_grad_()
    missed = loss(start, heard, counted)
    missed.backward()
    assert (start.grad[1] == 0).all()  # the clip that does not count
    assert (start.grad[2, 5:] == 0).all()  # beyond the end of the shortest
    step = 1e-3 / start.grad.norm()
    with torch.no_grad():
        nearer = loss(start - step * start.grad, heard, counted)
        expected = float(step * start.grad.square().sum())
        assert float(missed - nearer) == pytest.approx(expected, rel=0.1)


def test_only_speech_is_heard_and_a_clip_alone_as_in_its_batch(expert):
    scalar = fitted()
    loss = PerceptualLoss(expert, scalar, torch.device("cpu"))
    assert loss.hear(crops("music", "sound")) is None
    batch = crops("music", "speech", "sound")
    heard, latents = loss.hear(batch), latents_of(scalar, batch) + 0.1
    assert heard.rows.tolist() == [1]
    mixed = loss(latents, heard, torch.ones(3, dtype=torch.bool))
    alone = loss(latents[1:2], loss.hear(batch[1:2]), torch.ones(1, dtype=torch.bool))
    torch.testing.assert_close(mixed, alone, atol=1e-5, rtol=1e-4)
    assert float(loss(latents, heard, torch.zeros(3, dtype=torch.bool))) == 0


def test_an_autoencoder_of_waveforms_is_heard_too(expert):
    scalar, batch = fitted(SMALL_SCALAR), crops("speech", "speech")
    latents = latents_of(scalar, batch).requires_grad_()
    loss = PerceptualLoss(expert, scalar, torch.device("cpu"))
    loss(latents, loss.hear(batch), torch.ones(2, dtype=torch.bool)).backward()
    assert latents.grad.abs().sum() > 0


def test_an_expert_that_no_gradient_passes_is_refused(monkeypatch):
    class Deaf:
        differentiable, dims = False, {"phone": 4}

        def to(self, device):
            return self

    monkeypatch.setattr("training.codec.losses.perceptual.load_expert", lambda config: Deaf())
    with pytest.raises(UserError, match="perceptual_expert: no gradient passes an expert of kind 'mel'"):
        PerceptualLoss(ExpertConfig("phone"), fitted(SMALL_SCALAR), torch.device("cpu"))
