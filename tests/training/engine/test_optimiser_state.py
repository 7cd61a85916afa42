"""An engine's state on disk: it fits one model, moves between ZeRO stages, and is read under former names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codec.io import aliases
from codec.io.errors import UserError
from tests.factories import trainer
from tests.factories.trainer import TinyModel
from training.engine import optimiser_state
from training.engine.engine import Engine
from training.recipe import EngineRecipe, OptimiserRecipe

RANK = "rank-00000-of-00001.safetensors"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of eight steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    trainer.train(trainer.values(folder))
    return folder


@pytest.fixture
def folder(run, tmp_path) -> Path:
    """A copy of its engine's state."""
    return Path(shutil.copytree(run / "checkpoints" / "step-00000008" / "engines" / "model", tmp_path / "model"))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (TinyModel(13), "shape|elements"),
        (TinyModel(12).requires_grad_(True), "frozen tensors are not this model's"),
        (torch.nn.Linear(2, 2), "tensors are not this model's"),
    ],
    ids=["wider", "unfrozen", "another"],
)
def test_another_models_state_is_refused(folder, model, words):
    with pytest.raises(UserError, match=words):
        Engine(model, OptimiserRecipe(), EngineRecipe(), 8, 7, folder)


def test_a_missing_or_damaged_rank_file_is_refused(folder):
    (folder / RANK).rename(folder / "rank-00000-of-00002.safetensors")
    with pytest.raises(UserError, match="1 of 2 rank files"):
        make_engine(folder)
    (folder / "rank-00000-of-00002.safetensors").rename(folder / RANK)
    (folder / RANK).write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="damaged"):
        make_engine(folder)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_state_moves_to_another_zero_stage(run, folder, stage):
    """Weights, moments and step count arrive whatever the stage that wrote them."""
    engine = make_engine(folder, stage)
    assert engine.steps_done == 8
    expected = load_file(run / "model" / "model.safetensors")
    state = engine.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    again = folder.parent / "again"
    again.mkdir()
    optimiser_state.save(engine.sharded, again, state, engine.steps_done)
    first, second = load_file(folder / RANK), load_file(again / RANK)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tensors_are_read_under_their_former_names(folder, monkeypatch):
    monkeypatch.setattr(aliases, "TENSORS", {"first": "entry", "second": "output"})
    model = TinyModel(12)
    model.entry, model.output = model.first, model.second
    del model.first, model.second
    engine = Engine(model, OptimiserRecipe(), EngineRecipe(), 8, 7, folder)
    state = engine.state_dict()
    assert torch.equal(state["entry.weight"], load_file(folder / "frozen.safetensors")["first.weight"])
    assert torch.equal(state["output.bias"], load_file(folder / RANK)["second.bias/value"])
    assert engine.optimiser.state[model.output.bias]["exp_avg"].abs().sum() > 0 and engine.steps_done == 8


def test_former_names_of_audio_llm_and_discriminator():
    assert aliases.tensor("listener.projection.weight") == "audio_llm.projection.weight"
    assert aliases.tensor("resolutions.0.judge.bias") == "resolutions.0.output.bias"


def make_engine(folder: Path, stage: int = 0) -> Engine:
    return Engine(TinyModel(12), OptimiserRecipe(), EngineRecipe(zero_stage=stage), 8, 7, folder)
