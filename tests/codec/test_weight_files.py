"""Weights from others' files: every known nesting, and no pickle that is more than weights."""

import argparse
import datetime
import os

import pytest
import torch
from safetensors.torch import save_file

from codec.errors import UserError
from codec.weight_files import read_weights

STATE = {"layer.weight": torch.arange(6.0).view(2, 3), "layer.steps": torch.tensor(7)}


def same(found: dict) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model": STATE, "optimizer": {"state": {0: torch.zeros(2)}}, "reporter": {"t": datetime.timedelta(1)}},
        {"codec_model": STATE, "iter": 5},
        {"state_dict": STATE},
        {"model": {f"module.{key}": value for key, value in STATE.items()}},
        {"args": argparse.Namespace(lr=0.1), "cfg": {"task": {"name": "x"}}, "model": STATE},
    ],
)
def test_state_dicts_are_found_in_every_known_nesting(content, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    assert same(read_weights(tmp_path / "weights.pt"))


def test_safetensors_and_old_files_are_read(tmp_path):
    save_file(STATE, tmp_path / "weights.safetensors")
    assert same(read_weights(str(tmp_path / "weights.safetensors")))
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(read_weights(tmp_path / "old.pth"))


class Bomb:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_something_is_refused_before_it_does(tmp_path, zipped):
    content = {"model": STATE, "extra": Bomb(tmp_path / "exploded")}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="weights.pt: holds more than weights.*mkdir.*save its state dict alone"):
        read_weights(tmp_path / "weights.pt")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}q\x00", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_file_of_weights_is_one_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_weights(tmp_path / name)


def test_cut_files_are_named(tmp_path):
    torch.save({"model": STATE}, tmp_path / "weights.pt")
    data = (tmp_path / "weights.pt").read_bytes()
    (tmp_path / "weights.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="weights.pt: damaged"):
        read_weights(tmp_path / "weights.pt")


def test_files_without_weights_are_named(tmp_path):
    with pytest.raises(UserError, match="nothing.pt: no such file"):
        read_weights(tmp_path / "nothing.pt")
    for content in ({"model": {"a": 1}}, [1, 2], {}, torch.zeros(3)):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(UserError, match="other.pt: holds no state dict"):
            read_weights(tmp_path / "other.pt")
