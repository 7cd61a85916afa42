"""What is shipped has a name that holds in any folder; a path that exists comes first."""

import pytest

from codec.io import hub, shipped
from codec.io.errors import UserError
from codec.io.hub import local_folder
from codec.io.shipped import STARTER_CODEC, STARTER_MODEL, located, names_shipped, shipped_names
from tests import ROOT

CODEC = ROOT / "assets/starter/model/audio_tokenizer"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["starter/stage1", "starter/stage1.yaml", "recipes/starter/stage1.yaml"])
def test_a_recipe_is_found_by_name(name):
    assert shipped.shipped("recipes", name) == ROOT / "recipes/starter/stage1.yaml"


@pytest.mark.parametrize("name", [STARTER_CODEC, "recipes/starter/codec"])
def test_weights_are_found_by_name_and_under_their_former_place(name):
    assert local_folder(name, "codec") == located(name) == CODEC
    assert located(f"{name}/audio_llm.safetensors") == CODEC / "audio_llm.safetensors"
    assert (local_folder("recipes/starter/text_model", "text model") / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a\0b", "starter/../starter/codec", "/starter/codec"])
def test_what_is_no_name_is_not_found(name):
    assert shipped.shipped("assets", name) is None
    assert shipped.shipped("recipes", name) is None


def test_a_folder_of_ones_own_comes_first(tmp_path):
    (tmp_path / "starter/codec").mkdir(parents=True)
    assert str(local_folder(STARTER_CODEC, "codec")) == str(located(STARTER_CODEC)) == STARTER_CODEC


def test_every_shipped_recipe_and_weight_is_listed():
    recipes = {path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in ROOT.glob("recipes/*/*.yaml")}
    assert set(shipped_names("recipes")) == recipes and {"starter/stage1", "full/grpo"} <= recipes
    assert {STARTER_CODEC, "starter/text_model"} <= set(shipped_names("assets"))


def test_a_name_that_is_mistyped_is_never_asked_of_the_hub(monkeypatch):
    with pytest.raises(UserError, match="ships no codec of that name.*did you mean 'starter/codec'.*with --codec"):
        local_folder("starter/codek", "codec", option="--codec")
    assert "did you mean 'starter/stage1'" in names_shipped("recipes", "starter/stag1.yaml")


def test_weights_that_are_not_there_yet_are_said_to_be_missing(tmp_path, monkeypatch):
    (tmp_path / "assets/starter/model/audio_tokenizer").mkdir(parents=True)
    monkeypatch.setattr(shipped, "_root", lambda kind: tmp_path / kind)
    with pytest.raises(
        UserError, match=r"starter/model: no such folder, and this version ships no model.*shipped: none"
    ):
        hub.local_folder(STARTER_MODEL, "model")
