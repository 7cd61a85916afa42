"""The language model on sequences whose perplexity is known."""

import numpy as np
import pytest
import torch

from codec.io.errors import UserError
from codec.streams import StreamSpec
from evaluation.token_measures import perplexity as measure
from evaluation.token_measures.perplexity import books_of, model_bits, perplexity, token_nats
from tests.evaluation.token_measures.planted import CODES, RATE, coded, plant


def splits(draw, codebooks=1, clips=24, frames=48, seed=0):
    rng = np.random.default_rng(seed)
    made = [torch.from_numpy(draw(rng, frames, codebooks)) for _ in range(clips)]
    return made[: clips // 2], made[clips // 2 : 3 * clips // 4], made[3 * clips // 4 :]


def per_token(draw, codes, codebooks=1, steps=60, **settings):
    train, dev, test = splits(draw, codebooks, **settings)
    return np.exp(sum(token_nats(train, dev, test, codes, steps=steps)) / sum(clip.numel() for clip in test))


def test_a_cycle_costs_nothing_but_its_first_token():
    def cycle(rng, frames, codebooks):
        return (rng.integers(5) + np.arange(frames))[:, None] % 5

    assert per_token(cycle, 5, frames=24) == pytest.approx(5 ** (1 / 24), abs=0.03)


def test_uniform_ids_cost_the_logarithm_of_their_number():
    assert per_token(lambda rng, t, k: rng.integers(0, 8, (t, k)), 8) == pytest.approx(8, rel=0.04)


def test_a_codebook_that_repeats_the_one_before_costs_nothing():
    """Half of the tokens are uniform, half are known: the square root of the number of codes."""

    def twice(rng, frames, codebooks):
        return np.repeat(rng.integers(0, 4, (frames, 1)), 2, axis=1)

    assert per_token(twice, 4, 2, frames=12, clips=96) == pytest.approx(2, rel=0.1)


def test_the_same_seed_gives_the_same_and_leaves_the_generator_alone():
    train, dev, test = splits(lambda rng, t, k: rng.integers(0, 4, (t, k)))
    torch.manual_seed(5)
    first = token_nats(train, dev, test, 4, steps=3)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1)) and first == token_nats(train, dev, test, 4, steps=3)
    assert first != token_nats(train, dev, test, 4, seed=1, steps=3)


def test_codebooks_are_taken_up_to_fifty_tokens_a_second():
    assert books_of(StreamSpec("a", 50.0, 8, 1024)) == 1
    assert books_of(StreamSpec("a", 12.5, 8, 1024)) == 4
    assert books_of(StreamSpec("a", 5.0, 8, 1024)) == 8
    assert books_of(StreamSpec("a", 75.0, 8, 1024)) == 1


def test_bits_and_perplexity_are_the_same_likelihood(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "STEPS", 30)
    rng = np.random.default_rng(0)
    clips = [plant(tmp_path, f"c{i}", rng.integers(0, 2, 60), split=("train", "dev", "test")[i % 3]) for i in range(18)]
    made = coded(tmp_path, clips)
    bits, each = model_bits(made, "codes"), perplexity(made, "codes")
    assert bits.estimate.value == pytest.approx(RATE * np.log2(each.estimate.value))
    assert each.chance == CODES and bits.chance == pytest.approx(RATE * np.log2(CODES))
    assert each.estimate.value == pytest.approx(2, rel=0.15) and each.estimate.n == 6 and each.estimate.stderr < 0.2
    assert "1 of 1 codebook: 50 tokens a second" in bits.note


def test_a_split_without_clips_is_named(tmp_path):
    with pytest.raises(UserError, match="clips of split 'train'"):
        perplexity(coded(tmp_path, [plant(tmp_path, "a", [1, 2])]), "codes")
