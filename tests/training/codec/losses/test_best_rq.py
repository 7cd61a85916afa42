"""Masked prediction: spans, codes that are not trained, and a loss on what is masked alone."""

import pytest
import torch

from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from training.codec.losses.best_rq import (
    MaskedPrediction,
    MaskedPredictionConfig,
    RandomProjectionQuantiser,
    draw_spans,
    stacked,
)

SIZES = MusicEncoderConfig(dim=16, heads=2, feed_forward=24, layers=2, kernel=5, channels=4, mel_bands=18, fft_size=512)


def model(**changes) -> MaskedPrediction:
    torch.manual_seed(0)
    return MaskedPrediction(MusicEncoder(SIZES), MaskedPredictionConfig(codes=32, code_dim=8, **changes))


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_spans_are_whole_and_hide_their_share():
    torch.manual_seed(0)
    mask = draw_spans(200, 103, span=10, mask_share=0.6)
    assert mask.shape == (200, 103) and mask.float().mean() == pytest.approx(0.6, abs=0.03)
    for row in mask:
        edges = (row[1:] != row[:-1]).nonzero()[:, 0]
        assert not (edges.diff() % 10).any()  # spans begin a multiple of ten frames after each other
    assert {int((row[1:] != row[:-1]).nonzero()[0, 0]) % 10 for row in mask if 0 < row.sum() < 103} == set(range(10))


def test_something_is_always_masked():
    torch.manual_seed(0)
    assert all(draw_spans(1, 3, span=4, mask_share=0.01).any() for _ in range(20))


def test_codes_are_the_nearest_of_normalised_vectors():
    torch.manual_seed(0)
    quantiser = RandomProjectionQuantiser(12, codes=20, code_dim=4)
    assert not list(quantiser.parameters())
    vectors = noise(5, 7, 12)
    quantiser.measure(4 * noise(50, 12) + torch.arange(12.0))
    assert quantiser.mean.tolist() == pytest.approx(list(range(12)), abs=0.3)
    standardised = (vectors - quantiser.mean) / quantiser.deviation
    projected = torch.nn.functional.normalize(standardised @ quantiser.projection, dim=-1)
    expected = (projected[..., None, :] - quantiser.codebook).square().sum(-1).argmin(-1)
    assert torch.equal(quantiser(vectors), expected)


def test_what_all_vectors_share_does_not_decide_the_code():
    torch.manual_seed(0)
    quantiser, vectors = RandomProjectionQuantiser(12, codes=20, code_dim=4), noise(500, 12) + 3
    assert len(quantiser(vectors).unique()) < 5
    quantiser.measure(vectors)
    assert len(quantiser(vectors).unique()) > 15
    silent = torch.zeros(5, 12)
    quantiser.measure(silent)
    assert len(quantiser(silent).unique()) == 1


def test_the_targets_are_of_the_hidden_frames_before_they_were_masked():
    prediction, waveforms = model(), noise(2, 24000)
    torch.manual_seed(5)
    out = prediction(waveforms)
    torch.manual_seed(5)
    masked = draw_spans(2, 25, 10, 0.6)
    mel = prediction.encoder.mel(waveforms)
    frames = torch.stack([mel[:, :, 4 * t : 4 * t + 4].transpose(1, 2).flatten(1) for t in range(25)], dim=1)
    assert torch.equal(stacked(mel), frames)
    assert torch.equal(out.targets, prediction.quantiser(frames)[masked])
    assert 2 < out.loss.item() < 6  # nats: uniform guessing among 32 codes has 3.5


@torch.no_grad()
def test_the_encoder_is_not_given_what_is_masked():
    prediction = model().eval()
    seen = []
    prediction.encoder.front_end.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    waveforms, other = noise(1, 24000), noise(1, 24000).flip(1)
    for waveform in (waveforms, other):
        torch.manual_seed(5)
        prediction(waveform)
    torch.manual_seed(5)
    masked = draw_spans(1, 25, 10, 0.6)[0].repeat_interleave(4)
    assert 0 < masked.sum() < 100
    assert torch.equal(seen[0][:, :, masked], seen[1][:, :, masked])
    assert torch.equal(seen[0][:, :, ~masked], prediction.encoder.mel(waveforms)[:, :, ~masked])
    assert seen[0][:, :, masked].std() == pytest.approx(0.1, rel=0.1)


def test_quantiser_and_codebook_get_no_gradient_and_all_else_does():
    prediction = model()
    prediction(noise(2, 24000)).loss.backward()
    assert all(parameter.grad is not None for parameter in prediction.parameters())
    assert {name.split(".")[0] for name, _ in prediction.named_parameters()} == {"encoder", "head"}


@pytest.mark.parametrize(
    "values", [{"codes": 1}, {"mask_share": 0.0}, {"mask_share": 1.0}, {"span": 0}, {"noise": -1.0}]
)
def test_tasks_that_cannot_be(values):
    with pytest.raises(UserError, match=next(iter(values))):
        MaskedPredictionConfig(**values)
