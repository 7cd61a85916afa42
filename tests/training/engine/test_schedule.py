"""The learning rate's shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.engine.schedule import learning_rate
from training.recipe import OptimiserRecipe


def test_golden_values():
    recipe = OptimiserRecipe(lr=1.0, warmup_steps=4, final_lr=0.1)
    rates = [learning_rate(recipe, step, 12) for step in range(1, 13)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[7] == pytest.approx(0.55)  # half way down
    assert rates[-1] == pytest.approx(0.1)


def test_constant_and_without_warmup():
    recipe = OptimiserRecipe(lr=0.3, warmup_steps=2, schedule="constant")
    assert [learning_rate(recipe, step, 5) for step in range(1, 6)] == [0.15, 0.3, 0.3, 0.3, 0.3]
    assert learning_rate(OptimiserRecipe(lr=0.3, warmup_steps=0), 1, 10**6) == pytest.approx(0.3)


@given(st.integers(0, 50), st.integers(1, 200), st.floats(0, 1), st.sampled_from(["cosine", "constant"]))
def test_up_then_never_up_again(warmup, steps, final, schedule):
    recipe = OptimiserRecipe(lr=2.0, warmup_steps=warmup, final_lr=final, schedule=schedule)
    rates = [learning_rate(recipe, step, steps) for step in range(1, steps + 1)]
    assert all(0 < rate <= 2.0 + 1e-12 or final == 0 for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
