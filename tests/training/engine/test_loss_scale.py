"""Training in float16: overflows are passed over, small gradients survive, and a run resumes to the bit."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from codec.io.errors import UserError
from tests.factories.trainer import TinyModel, batch
from tests.training.engine.test_engine import OPTIMISER, make, plain_pytorch, train
from training.engine import optimiser_state
from training.engine.engine import Engine
from training.engine.loss_scale import FIRST, GROWS_AFTER, LEAST, MOST, LossScale
from training.recipe import EngineRecipe

STAGES = pytest.mark.parametrize("stage", [0, 1, 2, 3])


@given(st.lists(st.booleans(), max_size=60))
def test_a_scale_is_a_power_of_two_that_overflows_halve(overflows):
    scale, halved = LossScale(), 0
    for overflow in overflows:
        halved += overflow
        assert scale.update(overflow) == (scale.value >= LEAST)
        assert math.log2(scale.value).is_integer() and scale.value == FIRST / 2**halved
    assert scale.skipped == halved
    again = LossScale()
    if scale.value >= LEAST:
        again.load(scale.dump(), "a test")
        assert vars(again) == vars(scale)


def test_good_updates_in_a_row_double_it_up_to_a_limit():
    scale = LossScale()
    for _ in range(GROWS_AFTER - 1):
        scale.update(False)
    assert scale.value == FIRST
    scale.update(False)
    assert scale.value == 2 * FIRST
    scale.update(True)
    for _ in range(GROWS_AFTER - 1):
        scale.update(False)
    scale.update(True)
    assert scale.value == FIRST / 2  # counted from the last overflow
    for _ in range(20 * GROWS_AFTER):
        scale.update(False)
    assert scale.value == MOST


@pytest.mark.parametrize("line", ["", "[]", "[1, 2, 3]", "[65536.0, -1, 0]", "[1e999, 0, 0]", '{"value": 1}'])
def test_another_state_is_refused(line):
    with pytest.raises(UserError, match="a folder"):
        LossScale().load(line, "a folder")


@STAGES
def test_it_trains_as_float32_does_but_for_rounding(stage):
    losses, model, norms = plain_pytorch()
    engine = make(stage, precision="fp16")
    assert train(engine) == pytest.approx(losses, rel=0.02)
    metrics = engine.metrics()
    assert metrics["grad_norm"] == pytest.approx(norms[-1], rel=0.05)
    assert (metrics["loss_scale"], metrics["skipped"]) == (FIRST, 0)
    state = engine.state_dict()
    for name, tensor in model.state_dict().items():
        assert state[name].dtype == torch.float32
        torch.testing.assert_close(state[name], tensor, atol=0.02, rtol=0.05)


@STAGES
def test_an_update_that_overflows_is_passed_over(stage):
    """Weights and moments stay, the scale falls until it fits, and then training goes on."""
    engine = make(stage, precision="fp16")
    train(engine, 1)
    before, moments = engine.state_dict(), adam_steps(engine)
    engine.loss_scale.value = 2.0**40
    passed_over = 0
    while engine.steps_done < 40:
        train(engine, 1)
        if "grad_norm" in engine.metrics():
            break
        passed_over += 1
        after = engine.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in engine.trainable)
        assert adam_steps(engine) == moments
    assert passed_over >= 3
    assert engine.metrics()["skipped"] == passed_over
    assert engine.loss_scale.value == 2.0 ** (40 - passed_over)
    after = engine.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in engine.trainable)
    assert all(value.isfinite().all() for value in after.values())


@STAGES
def test_a_run_resumes_to_the_bit_after_an_overflow(stage, tmp_path):
    engine = make(stage, precision="fp16")
    engine.loss_scale.value = 2.0**32
    while "grad_norm" not in (engine.metrics() if engine.steps_done else {}):
        train(engine, 1)
    train(engine, 1)
    optimiser_state.save(engine.sharded, tmp_path, engine.state_dict(), engine.steps_done)
    recipe = EngineRecipe(zero_stage=stage, micro_batches=4, precision="fp16")
    resumed = Engine(TinyModel(12), OPTIMISER, recipe, engine.total_steps, 7, tmp_path)
    assert vars(resumed.loss_scale) == vars(engine.loss_scale)
    assert train(resumed, 2) == train(engine, 2)
    ours, theirs = resumed.state_dict(), engine.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in engine.trainable)


def test_a_gradient_that_float16_cannot_hold_survives():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            return self.matrix(x).float().sum() * 1e-8

    norms = []
    for precision in ("fp32", "fp16"):
        engine = make(0, 1, Small(), precision=precision)
        engine.backward(engine(torch.ones(2, 4)))
        engine.step()
        norms.append(engine.metrics()["grad_norm"])
    assert norms[0] > 0 and norms[1] == pytest.approx(norms[0], rel=0.01)


@STAGES
def test_what_no_scale_helps_is_an_error(stage):
    engine = make(stage, precision="fp16")
    engine.loss_scale.value = LEAST
    for index in engine.micro_batches(1):
        loss = engine(*batch(index), use_extra=index % 3 == 0)
        engine.backward(loss * 1e30 * 1e8, [f"clip-{index}"])
    with pytest.raises(UserError, match=r"step 1: the (gradient|loss) is not finite"):
        engine.step()


def adam_steps(engine: Engine) -> list[float]:
    return [float(state["step"]) for state in engine.optimiser.state.values()]
