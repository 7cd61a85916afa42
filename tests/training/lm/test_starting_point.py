"""Where a stage starts: parts that belong together, and a model folder that is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from codec.io.errors import UserError
from tests.factories import stages
from training.lm.recipe import LanguageModelRecipe
from training.lm.starting_point import StartingPoint
from training.recipe import parse


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Text model, codec, tokens, and in FOLDER/model what a stage 1 starts with."""
    folder = tmp_path_factory.mktemp("start")
    stages.prepare(folder)
    start = load(folder, 1)
    start.writer(None, "")(folder / "model", {f"model.{n}": t for n, t in start.model.state_dict().items()})
    return folder


def load(folder: Path, stage: int, init: Path | None = None, **more) -> StartingPoint:
    return StartingPoint.load(parse(LanguageModelRecipe, stages.recipe(folder, stage, init, **more), "the test"))


def test_a_stage_starts_from_what_another_wrote(folder):
    first, second = load(folder, 1), load(folder, 2, folder / "model")
    assert first.facts == second.facts
    written = load_file(folder / "model" / "model.safetensors")
    state = second.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in written.items())
    assert second.semantic_targets(0.0) is None and second.semantic_targets(0.5) is not None


def test_parts_that_do_not_belong_together(folder, tmp_path):
    stages.write_store(tmp_path / "tokens", "another")
    with pytest.raises(UserError, match="made with audio tokenizer another, but the model was made for"):
        load(folder, 2, folder / "model", store=str(tmp_path / "tokens"))
    with pytest.raises(UserError, match="loss.streams: has 7 weights, and frames have 8"):
        load(folder, 2, folder / "model", loss={"text": 1.0, "audio": 1.0, "streams": [0.1] * 7})
    with pytest.raises(UserError, match="no model there"):
        load(folder, 2, tmp_path)
    with pytest.raises(UserError, match="nothing"):
        load(folder, 2, folder / "model", store=str(tmp_path / "nothing"))


def test_a_stage_never_starts_from_part_of_a_model(folder, tmp_path):
    """What is missing from the weights is named, not drawn at random."""
    shutil.copytree(folder / "model", tmp_path / "part")
    tensors = load_file(tmp_path / "part" / "model.safetensors")
    del tensors["audio_head"]
    save_file(tensors, tmp_path / "part" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"part/model.safetensors: .* 1 weights are missing \(audio_head"):
        load(folder, 3, tmp_path / "part")
