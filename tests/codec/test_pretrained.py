"""Folders that hold something trained: one way to save and load them, one hash."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from codec.io.errors import UserError
from codec.pretrained import CONFIG_FILE, WEIGHTS_FILE, Pretrained, saved_folder, weights_hash
from codec.tensor_files import save_tensors, stored_tensors


@dataclass(frozen=True)
class Sizes:
    dim: int = 3


class Small(Pretrained):
    config_class = Sizes
    described_as = "small module"
    made_by = "train one with `train small`"

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.config = config
        self.fixed = nn.Linear(config.dim, 1)
        self.trained = nn.Linear(config.dim, 2)


class Half(Small):
    saved_part = "trained"


@pytest.mark.parametrize(("kind", "weights"), [(Small, 4), (Half, 2)])
def test_what_is_saved_comes_back(tmp_path, kind, weights):
    module = kind(Sizes(5))
    module.save_pretrained(tmp_path / "folder")
    again = kind.from_pretrained(tmp_path / "folder")
    assert again.config == Sizes(5) and not again.training
    assert torch.equal(again.trained.weight, module.trained.weight)
    assert torch.equal(again.fixed.weight, module.fixed.weight) == (kind is Small)
    assert len(stored_tensors(tmp_path / "folder" / WEIGHTS_FILE)) == weights


def test_newer_tensors_take_the_place_of_the_modules_own(tmp_path):
    module = Half(Sizes())
    module.save_pretrained(tmp_path, {"bias": torch.tensor([7.0, 8.0])})
    again = Half.from_pretrained(tmp_path)
    assert again.trained.bias.tolist() == [7.0, 8.0]
    assert torch.equal(again.trained.weight, module.trained.weight)


def test_errors_name_the_file_what_it_should_hold_and_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"none: no such folder; give the folder of a small module, .*`train small`"):
        Small.from_pretrained(tmp_path / "none")
    with pytest.raises(UserError, match=r"config.json: no such file; .* holds no small module; train one"):
        Small.from_pretrained(tmp_path)
    Small(Sizes()).save_pretrained(tmp_path)
    (tmp_path / CONFIG_FILE).write_text('{"dimm": 3}')
    with pytest.raises(UserError, match=r"config.json: unknown key 'dimm'; did you mean 'dim'"):
        Small.from_pretrained(tmp_path)
    (tmp_path / CONFIG_FILE).write_text('{"dim": 4}')
    with pytest.raises(UserError, match=r"model.safetensors: weights do not fit config.json .* different shape"):
        Small.from_pretrained(tmp_path)
    save_tensors({"trained.weight": torch.ones(2, 3)}, tmp_path / WEIGHTS_FILE)
    (tmp_path / CONFIG_FILE).write_text("{}")
    with pytest.raises(UserError, match=r"3 weights are missing .*; copy it again, or train one with"):
        Small.from_pretrained(tmp_path)


def test_a_folder_is_written_whole_or_left_as_it_was(tmp_path):
    Small(Sizes()).save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError), saved_folder(tmp_path) as scratch:
        (scratch / CONFIG_FILE).write_text("{}")
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_hash_follows_identity_values_shapes_and_types_and_not_the_order():
    weights = {"a": torch.ones(2), "b": torch.zeros(3)}
    expected = weights_hash("x", weights)
    assert len(expected) == 16 and expected == weights_hash("x", dict(reversed(weights.items())))
    others = [
        ("y", weights),
        ("x", weights | {"a": torch.zeros(2)}),
        ("x", weights | {"a": torch.ones(2, 1)}),
        ("x", weights | {"a": torch.ones(2).double()}),
        ("x", {"a": weights["a"]}),
    ]
    assert len({weights_hash(*other) for other in others} | {expected}) == 6
