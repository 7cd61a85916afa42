"""The engine against plain PyTorch, in one process; with several processes in test_processes.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from codec.io.errors import UserError
from tests.factories.trainer import TinyModel, batch
from training.engine import processes
from training.engine.engine import Engine, seed_everything
from training.engine.schedule import learning_rate
from training.recipe import EngineRecipe, OptimiserRecipe

OPTIMISER = OptimiserRecipe(lr=0.02, warmup_steps=3, clip=0.5)
STEPS = 6


def make(stage: int = 0, micro_batches: int = 4, model: nn.Module | None = None, **more) -> Engine:
    seed_everything(7, -1)
    recipe = EngineRecipe(zero_stage=stage, micro_batches=micro_batches, **more)
    return Engine(model or TinyModel(12), OPTIMISER, recipe, STEPS, seed=7)


def train(engine: Engine, steps: int = STEPS) -> list[float]:
    losses = []
    for step in range(engine.steps_done + 1, engine.steps_done + steps + 1):
        for index in engine.micro_batches(step):
            loss = engine(*batch(index), use_extra=index % 3 == 0)
            engine.backward(loss, [f"clip-{index}"])
            engine.record(loss=loss)
        engine.step()
        losses.append(engine.metrics()["loss"])
    return losses


def plain_pytorch() -> tuple[list[float], nn.Module, list[float]]:
    """The same training without DeepSpeed and without our engine."""
    seed_everything(7, -1)
    model = TinyModel(12)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in learning if p.ndim > 1], "weight_decay": OPTIMISER.weight_decay},
            {"params": [p for p in learning if p.ndim == 1], "weight_decay": 0.0},
        ],
        betas=OPTIMISER.betas,
        eps=OPTIMISER.eps,
    )
    losses, norms = [], []
    for step in range(1, STEPS + 1):
        total = 0.0
        for index in range((step - 1) * 4, step * 4):
            seed_everything(7, index)
            loss = model(*batch(index), use_extra=index % 3 == 0)
            (loss / 4).backward()
            total += loss.item() / 4
        norms.append(float(nn.utils.clip_grad_norm_(learning, OPTIMISER.clip)))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(OPTIMISER, step, STEPS)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(total)
    return losses, model, norms


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_zero_stage_equals_plain_pytorch(stage):
    losses, model, norms = plain_pytorch()
    engine = make(stage)
    assert train(engine) == pytest.approx(losses, abs=1e-6)
    assert engine.metrics()["grad_norm"] == pytest.approx(norms[-1], rel=1e-5)
    state = engine.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(state[name], tensor, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_only_what_requires_a_gradient_changes(stage):
    engine = make(stage)
    before = engine.state_dict()
    train(engine, 2)
    after = engine.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(engine.trainable) | {"seen"}
    assert not {"first.weight", "first.bias"} & changed


def test_bf16_keeps_fp32_master_weights():
    engine = make(1, precision="bf16")
    assert engine.model.second.weight.dtype == torch.bfloat16
    losses = train(engine)
    assert losses == pytest.approx(plain_pytorch()[0], rel=0.1)
    master = engine.deepspeed.optimizer.single_partition_of_fp32_groups[0]
    assert master.dtype == torch.float32 and not torch.equal(master, master.bfloat16().float())


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_the_update(stage, what):
    engine = make(stage)
    train(engine, 1)
    before = engine.state_dict()
    for index in engine.micro_batches(2):
        loss = engine(*batch(index), use_extra=index % 3 == 0)
        if index == 6 and what == "loss":
            loss = loss * math.inf
        if index == 6 and what == "gradient":
            zero = sum(p.flatten()[:1].sum() for p in [engine.model.norm.weight]) * 0 if stage < 3 else loss * 0
            loss = loss + torch.sqrt(zero)  # 0, with a gradient that is not finite
        engine.backward(loss, [f"clip-{index}"])
    with pytest.raises(UserError, match=rf"step 2: the {what} is not finite \(examples: .*clip-6") as error:
        engine.step()
    assert "--resume" in str(error.value)
    after = engine.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in engine.trainable)


def test_bf16_gradients_that_are_not_finite_stop_it_too():
    engine = make(1, micro_batches=1, precision="bf16")
    engine.backward(engine(*batch(0), use_extra=True) * 1e38 * 10)
    with pytest.raises(UserError, match="not finite"):
        engine.step()


def test_a_parameter_out_of_reach_is_an_error_where_zero_would_misuse_it():
    engine = make(3, micro_batches=1)
    engine.model.extra.requires_grad_(True)
    with pytest.raises(RuntimeError, match=r"no gradient reached extra\.bias, extra\.weight"):
        hidden = engine.model.second(torch.randn(2, 12))
        engine.backward(hidden.sum())


def test_recipes_that_cannot_work(monkeypatch):
    with pytest.raises(UserError, match="TinyModel has no activation checkpointing"):
        make(activation_checkpointing=True)
    with pytest.raises(UserError, match="nothing to train"):
        make(model=TinyModel(4).requires_grad_(False))
    monkeypatch.setattr(processes, "world_size", lambda: 3)
    with pytest.raises(UserError, match="3 processes cannot share equally; set it to a multiple of 3"):
        make()


def test_evaluating_gives_every_mode_back():
    engine = make()
    engine.model.norm.eval()
    with engine.evaluating():
        assert not any(module.training for module in engine.model.modules())
        assert not engine(*batch(0), use_extra=True).requires_grad
    assert engine.model.dropout.training and not engine.model.norm.training


def test_micro_batches_are_numbered_and_seeded():
    engine = make(micro_batches=3)
    rng = {index: float(torch.rand(())) for step in (1, 2) for index in engine.micro_batches(step)}
    assert list(rng) == [0, 1, 2, 3, 4, 5]
    assert len(set(rng.values())) == 6
    assert [float(torch.rand(())) for _ in engine.micro_batches(2)] == [rng[3], rng[4], rng[5]]


def test_records_are_means_and_forgotten():
    engine = make(micro_batches=2)
    for number, index in enumerate(engine.micro_batches(1)):
        engine.backward(engine(*batch(index), use_extra=True))
        engine.record(value=number, **({"sometimes": 5.0} if number else {}))
    engine.step()
    metrics = engine.metrics()
    assert (metrics["value"], metrics["sometimes"], metrics["lr"]) == (0.5, 5.0, pytest.approx(0.02 / 3))
    engine.record(other=torch.tensor(2.0))
    assert engine.recorded() == {"other": 2.0} and engine.recorded() == {}


def test_two_engines_take_turns():
    """As a generator and its discriminator do."""
    generator, critic = make(model=nn.Linear(6, 3), micro_batches=1), make(model=nn.Linear(3, 1), micro_batches=1)
    for step in (1, 2):
        for index in critic.micro_batches(step):
            x, y = batch(index)
            with torch.no_grad():
                made = generator(x)
            critic.backward((critic(made) - critic(y)).mean())
        critic.step()
        before = [p.clone() for p in critic.model.parameters()]
        for index in generator.micro_batches(step):
            with critic.frozen():
                generator.backward(-critic(generator(batch(index)[0])).mean())
        generator.step()
        assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, critic.model.parameters(), strict=True))
    assert generator.steps_done == critic.steps_done == 2
