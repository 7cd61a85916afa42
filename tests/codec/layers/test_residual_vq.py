"""The residual quantiser: encoding as the library does it, and codebooks whose dead codes come back."""

import pytest
import torch
from vector_quantize_pytorch import ResidualVQ

from codec.layers.config import QuantiserConfig
from codec.layers.residual_vq import residual_quantiser


@pytest.mark.parametrize("levels", [1, 6])
@torch.no_grad()
def test_encoding_chooses_what_the_library_chooses(levels):
    torch.manual_seed(0)
    quantiser = residual_quantiser(16, levels, QuantiserConfig(64, 8, kmeans_init=False)).eval()
    for level, layer in enumerate(quantiser.layers):
        layer._codebook.embed.normal_(std=0.5 * 0.8**level)
    x = torch.randn(3, 40, 16)
    mask = torch.arange(40) < torch.tensor([[40], [7], [1]])
    for given in (None, mask):
        quantised, ids, losses = quantiser(x, mask=given)
        expected = ResidualVQ.forward(quantiser, x, mask=given)
        assert torch.equal(ids, expected[1])
        torch.testing.assert_close(quantised, expected[0], atol=1e-5, rtol=1e-5)
        assert losses.shape == (levels,) and (losses == 0).all()
    assert (ids[1, 7:] == -1).all() and (quantised[1, 7:] == 0).all()


def test_straight_through_vectors_learn_and_codebooks_stay():
    torch.manual_seed(0)
    quantiser = residual_quantiser(16, 4, QuantiserConfig(64, 8, kmeans_init=False)).eval()
    for level, layer in enumerate(quantiser.layers):
        layer._codebook.embed.normal_(std=0.5 * 0.5**level)
    x, mask = torch.randn(2, 9, 16, requires_grad=True), torch.arange(9) < torch.tensor([[9], [4]])
    plain, ids, _ = quantiser(x, mask=mask)
    before = {name: buffer.clone() for name, buffer in quantiser.named_buffers()}

    quantiser.straight_through = True
    quantised, same_ids, losses = quantiser(x, mask=mask)
    assert torch.equal(ids, same_ids)
    torch.testing.assert_close(quantised, plain)
    direction = torch.randn(2, 9, 16)
    (gradient,) = torch.autograd.grad((quantised * direction).sum(), x, retain_graph=True)
    unquantised = quantiser.project_out(quantiser.project_in(x)) * mask[..., None]
    torch.testing.assert_close(gradient, torch.autograd.grad((unquantised * direction).sum(), x)[0])
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    assert (gradient[mask] != 0).any() and (gradient[~mask] == 0).all()
    assert all(torch.equal(buffer, before[name]) for name, buffer in quantiser.named_buffers())
    torch.testing.assert_close(losses, quantiser.train()(x, mask=mask)[2])  # as the library counts commitment


def test_dead_codes_come_back_and_stay():
    torch.manual_seed(0)
    config = QuantiserConfig(codebook_size=32, codebook_dim=4, dead_code_threshold=0.2, kmeans_init=False)
    quantiser = residual_quantiser(16, 1, config).train()
    codebook = quantiser.layers[0]._codebook
    with torch.no_grad():
        codebook.embed[:, 4:] += 1000.0  # 28 codes that nothing will ever choose
        codebook.embed_avg.copy_(codebook.embed)
    data = torch.randn(8, 50, 16)
    seen = []
    for _ in range(60):
        seen.append(quantiser(data)[1].unique().numel())
    assert seen[0] <= 4
    assert seen[-1] >= 28  # nearly all are in use
    assert codebook.embed.abs().max() < 100.0

    # A revived code is where a vector of the batch was, and the next update of the averages leaves it there.
    with torch.no_grad():
        codebook.cluster_size[0, 7] = 0.0
        codebook.embed[0, 7] = codebook.embed_avg[0, 7] = 1000.0
    vectors = quantiser.project_in(data).detach().flatten(0, 1)
    quantiser(data)
    revived = codebook.embed[0, 7].clone()
    assert (vectors - revived).norm(dim=-1).min() < 1e-5
    average = codebook.embed_avg[0, 7] / codebook.cluster_size[0, 7]
    torch.testing.assert_close(average, revived, atol=1e-5, rtol=1e-4)
    codebook.expire_codes_ = lambda *args, **kwargs: None  # only the averages act now
    quantiser(data[:0].new_full((1, 1, 16), 100.0))  # a far vector: the revived code gets no new member
    assert (codebook.embed[0, 7] - revived).norm() < 0.05 * revived.norm() + 1e-3
