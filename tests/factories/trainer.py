"""A tiny trainer of the real shape, for the tests of engine, run and checkpoint; also a program for launchers."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from codec.io.errors import UserError
from training import recipe
from training.engine import processes
from training.engine.engine import Engine
from training.recipe import Recipe, parse
from training.resume import Resume
from training.run import Run


@dataclass(frozen=True, kw_only=True)
class TinyRecipe(Recipe):
    width: int = 12
    poison: int = -1  # micro-batch whose loss is not a number
    pause: float = 0.0  # seconds that a step takes more, so that a test can interrupt it
    loading: float = 0.0  # seconds before the first step
    fails: str = ""  # what the second process, or the only one, says before its second step
    texts: tuple[str, ...] = ()  # read by nobody, as far as this model goes

    READS = ("texts",)


recipe.TRAINERS["tiny"] = ("tests.factories.trainer", "TinyRecipe")


class TinyModel(nn.Module):
    """Frozen first layer, dropout, one parameter that only some batches use, and a buffer that training moves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width).requires_grad_(False)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.2)
        self.second = nn.Linear(width, 3)
        self.extra = nn.Linear(width, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor, use_extra: bool) -> Tensor:
        """x (B, 6), y (B, 3) -> mean squared error."""
        if self.training:
            self.seen += 1
        hidden = self.dropout(torch.relu(self.norm(self.first(x.to(self.first.weight.dtype)))))
        out = self.second(hidden) + self.extra(hidden) * use_extra
        return (out.float() - y).pow(2).mean()


def batch(index: int) -> tuple[Tensor, Tensor]:
    """Micro-batch `index`: a pure function of its number."""
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(4, 6, generator=generator)
    return x, x[:, :3] * x[:, 3:]


def run(recipe: TinyRecipe, resume: Resume = False) -> Path:
    with Run(recipe, resume) as run:
        model = TinyModel(recipe.width)
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        time.sleep(recipe.loading)
        for step in run.steps():
            if recipe.fails and step == 2 and processes.rank() == processes.world_size() - 1:
                raise UserError(recipe.fails)
            for index in engine.micro_batches(step):
                x, y = batch(index)
                loss = engine(x, y, use_extra=index % 3 == 0)
                engine.backward(loss * float("nan") if index == recipe.poison else loss, names=[f"clip-{index}"])
                engine.record(loss=loss)
                run.metric_logger.count(rows=len(x))
                if recipe.pause:
                    time.sleep(recipe.pause)
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics())
            if run.save_due(step):
                run.save(
                    step, {"model": engine}, lambda folder, state: save_file(state, folder / "model.safetensors"), {}
                )
    return run.model


def train(values: dict, resume: Resume = False) -> Path:
    return run(parse(TinyRecipe, values, "the test"), resume)


def values(out: Path, **more: Any) -> dict:
    """A recipe of eight steps with a checkpoint after every second, as plain values."""
    common = {"out": str(out), "steps": 8, "save_every": 2, "log_every": 1, "seed": 7}
    return common | {"optimiser": {"lr": 0.02, "warmup_steps": 2}, "engine": {"micro_batches": 4}} | more


def weights(run: Path) -> dict[str, bytes]:
    """The newest model of a run, bit for bit."""
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(run / "model" / "model.safetensors").items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=json.loads)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    train(arguments.recipe, arguments.resume)
