"""Checkpoints: what is in them, what is refused, what a kill leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from codec.io.errors import UserError
from tests.factories import trainer
from tests.factories.trainer import TinyModel
from training.engine import checkpoint
from training.engine.engine import Engine
from training.recipe import EngineRecipe, OptimiserRecipe

FILES = ("manifest.json", "recipe.yaml", "model/model.safetensors", "engines/model/frozen.safetensors")
SHARD = "engines/model/rank-00000-of-00001.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with checkpoints at steps 4, 6 and 8."""
    run = tmp_path_factory.mktemp("trained") / "run"
    trainer.train(trainer.values(run, keep=3))
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


def last(run: Path) -> Path:
    return run / "checkpoints" / "step-00000008"


def test_it_describes_itself(run):
    found = checkpoint.load(last(run))
    assert found.step == 8
    assert {"torch", "deepspeed", "transformers", "python"} <= found.description["versions"].keys()
    assert found.description["processes"] == 1 and "git_commit" in found.description
    assert "kind: tiny" in found.recipe
    manifest = json.loads((last(run) / "manifest.json").read_text())
    written = {path.relative_to(last(run)).as_posix() for path in last(run).rglob("*") if path.is_file()}
    assert set(manifest["files"]) == written - {"manifest.json"} == {*FILES[1:], SHARD}


def test_nothing_in_it_is_a_pickle(run):
    for path in last(run).rglob("*"):
        if path.is_file():
            assert load_file(path) if path.suffix == ".safetensors" else path.read_text(encoding="utf-8")


def test_the_newest_three_stay_and_the_link_points_to_the_newest(run):
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step-00000004",
        "step-00000006",
        "step-00000008",
    ]
    assert (run / "model").resolve() == last(run) / "model"


@pytest.mark.parametrize("name", [*FILES, SHARD])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_damage_is_refused_by_name(run, name, damage):
    path = last(run) / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0x10
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[: len(content) // 2 if damage == "cut" else 0])
    if (name, damage) == ("manifest.json", "flip"):
        content = path.read_text(errors="replace").replace('"sha256": "', '"sha256": "0', 1)
        path.write_text(content)
    with pytest.raises(UserError) as error:
        checkpoint.load(last(run))
    said = str(error.value)
    assert name in said and ("use another checkpoint" in said or "not a complete checkpoint" in said)
    found, refused = checkpoint.newest(run)
    assert found.step == 6
    assert list(refused) == [last(run)] and str(last(run)) in refused[last(run)]


def test_another_format_is_refused(run):
    path = last(run) / "manifest.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(UserError, match="format 3"):
        checkpoint.load(last(run))


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="not a complete checkpoint"):
        checkpoint.load(tmp_path)
    assert checkpoint.newest(tmp_path) == (None, {})


def test_a_checkpoint_is_never_overwritten(run):
    engine = make_engine(last(run) / "engines" / "model")
    with pytest.raises(UserError, match="step-00000008 exists already"):
        checkpoint.save(run, 8, "", {"model": engine}, write_model, {}, keep=3)


def test_a_model_folder_that_is_in_the_way_of_the_link_is_not_touched(run):
    engine = make_engine(last(run) / "engines" / "model")
    (run / "model").unlink()
    (run / "model").mkdir()
    with pytest.raises(UserError, match="in the way"):
        checkpoint.save(run, 9, "", {"model": engine}, write_model, {}, keep=3)
    assert (run / "model").is_dir()


def test_an_engine_is_found_under_its_former_name(run):
    found = checkpoint.load(last(run))
    assert found.engine("discriminator").name == "critic"
    (last(run) / "engines" / "discriminator").mkdir()
    assert found.engine("discriminator").name == "discriminator"


def test_resolve_model(tmp_path):
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    with pytest.raises(UserError, match="no model there"):
        checkpoint.resolve_model(tmp_path / "run")
    (model / "config.json").write_text("{}")
    assert checkpoint.resolve_model(tmp_path / "run") == checkpoint.resolve_model(model) == model


def make_engine(folder: Path, stage: int = 0) -> Engine:
    return Engine(TinyModel(12), OptimiserRecipe(), EngineRecipe(zero_stage=stage), 8, 7, folder)


def write_model(folder: Path, state: dict) -> None:
    save_file(state, folder / "model.safetensors")
