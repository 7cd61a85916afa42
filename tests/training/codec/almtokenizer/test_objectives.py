"""Masked autoencoding and the prediction of the next query."""

from __future__ import annotations

import pytest
import torch

from tests.factories.one_stream.almtokenizer import SMALL, small_almtokenizer
from training.codec.almtokenizer.objectives import (
    ALMObjectives,
    MaskedAutoencoder,
    MaskedRecipe,
    NextQuery,
    NextQueryRecipe,
)


@pytest.fixture
def masked():
    torch.manual_seed(0)
    return MaskedAutoencoder(MaskedRecipe(share=0.3, span=4), samples=320, dim=32)


def test_the_share_is_hidden_in_spans_and_nothing_beyond_a_clip(masked):
    mask = torch.ones(400, 100, dtype=torch.bool)
    mask[:, 60:] = False
    hidden = masked.choose(mask)
    assert not hidden[:, 60:].any() and float(hidden[:, :60].float().mean()) == pytest.approx(0.3, abs=0.02)
    borders = (hidden[:, 1:60] != hidden[:, :59]).float().mean()  # two a run; runs of 4 / (1 - 0.3) on average
    assert float(borders) == pytest.approx(2 * 0.3 * 0.7 / 4, abs=0.01)


def test_hidden_patches_are_one_vector_and_the_others_as_they_were(masked):
    patches, hidden = torch.randn(2, 10, 32), torch.zeros(2, 10, dtype=torch.bool)
    hidden[0, 3:7] = True
    made = masked.hide(patches, hidden)
    assert torch.equal(made[~hidden], patches[~hidden]) and (made[hidden] == masked.hidden_patch).all()


def test_spectra_are_centred_on_their_patches(masked):
    wave = torch.zeros(1, 320 * 12)
    wave[0, 320 * 5 + 160] = 1.0
    spectra = masked.spectra(wave)
    assert spectra.shape == (1, 12, 80) and int(spectra.sum(2).argmax()) == 5
    time = torch.arange(320 * 12) / 24_000
    loud = masked.spectra(torch.sin(2 * torch.pi * 1000 * time)[None])[0, 6]
    assert float(masked.filters.argmax(0)[loud.argmax()]) * 24_000 / 1024 == pytest.approx(1000, rel=0.1)


def test_the_loss_looks_at_hidden_patches_alone(masked):
    states, wave, hidden = torch.randn(1, 12, 32), torch.randn(1, 3840), torch.zeros(1, 12, dtype=torch.bool)
    hidden[0, 4:8] = True
    before = masked.loss(states, wave, hidden)
    states[0, :4] += 1
    states[0, 8:] -= 1
    assert torch.equal(masked.loss(states, wave, hidden), before)
    states[0, 4] += 1
    assert not torch.equal(masked.loss(states, wave, hidden), before)
    assert masked.loss(states, wave, torch.zeros_like(hidden)) == 0


@pytest.fixture
def next_query():
    torch.manual_seed(0)
    return NextQuery(NextQueryRecipe(layers=2, dim=16, heads=2), dim=8)


def test_a_query_is_predicted_from_those_before_it_alone(next_query):
    queries = torch.randn(1, 9, 8)
    made = next_query.predictions(queries)
    changed = queries.clone()
    changed[0, 5:] += 1
    again = next_query.predictions(changed)
    torch.testing.assert_close(again[0, :6], made[0, :6])
    assert (again[0, 6:] - made[0, 6:]).abs().amax(1).min() > 1e-4


def test_the_loss_is_the_share_of_variance_that_is_not_predicted(next_query):
    queries, mask = torch.randn(3, 20, 8), torch.arange(20)[None] < torch.tensor([20, 15, 3])[:, None]
    mean = queries[mask].mean(0)
    next_query.predictions = lambda given: mean.expand_as(given)
    assert float(next_query.loss(queries, mask)) == pytest.approx(1.0, rel=1e-5)
    next_query.predictions = lambda given: mean + 0.9 * (given - mean)
    assert float(next_query.loss(queries, mask)) == pytest.approx(0.01, rel=1e-3)
    next_query.predictions = lambda given: given
    queries[~mask] = 1e6  # nobody's
    assert float(next_query.loss(queries, mask)) == 0


def test_queries_cannot_shrink_to_lower_it(next_query):
    """Gradients reach context and target, and moving all queries towards their mean changes nothing."""
    queries = torch.randn(2, 12, 8, requires_grad=True)
    mask = torch.ones(2, 12, dtype=torch.bool)
    loss = next_query.loss(queries, mask)
    loss.backward()
    assert queries.grad[:, -1].abs().sum() > 0  # the last is a target only
    assert next_query.loss(torch.ones(2, 1, 8), mask[:, :1]).isfinite()


def test_it_learns_what_repeats():
    torch.manual_seed(0)
    model = NextQuery(NextQueryRecipe(layers=1, dim=16, heads=2), dim=4)
    queries = torch.randn(4, 1, 3, 4).expand(4, 6, 3, 4).flatten(1, 2)  # four clips of period 3
    mask = torch.ones(4, 18, dtype=torch.bool)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = model.loss(queries, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.5


def test_nothing_is_hidden_outside_training():
    objectives = ALMObjectives(small_almtokenizer(), quantise=False, masked=MaskedAutoencoder(MaskedRecipe(), 320, 32))
    wave, lengths = 0.3 * torch.randn(2, 320 * 18), torch.tensor([320 * 18, 900])
    objectives.train()
    assert objectives(wave, lengths, 6).losses.keys() == {"masked"}
    objectives.eval()
    made = objectives(wave, lengths, 6)
    assert made.losses == {} and made.ids is None
    tokenizer = objectives.tokenizer
    alone = tokenizer.unpatchify(
        tokenizer.states_of(tokenizer.unquantised(tokenizer.queries_of(tokenizer.patchify(wave[:1]))))
    )
    torch.testing.assert_close(made.waveforms[:1], alone)
    with pytest.raises(Exception, match="choose 2 to 10"):
        objectives(wave, lengths, SMALL.most_window + 1)
