"""Weights from others' files: every known nesting, and no pickle that is more than weights."""

import argparse
import datetime
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from codec.errors import UserError
from codec.weight_files import read_pickle, read_weights

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
    with pytest.raises(
        UserError, match="weights.pt: refused.*mkdir.*nothing of it was run.*save its model alone"
    ) as no:
        read_weights(tmp_path / "weights.pt")
    assert "weights_only" not in str(no.value), "no advice to read it carelessly"
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


def test_what_trainers_leave_beside_the_weights_is_read(tmp_path):
    journal = {"epoch": 2, "loss": np.float64(1.5), "steps": np.int64(3), "took": datetime.timedelta(seconds=5)}
    torch.save({"model": STATE, "reporter": journal, "args": argparse.Namespace(lr=0.1)}, tmp_path / "weights.pt")
    assert read_pickle(tmp_path / "weights.pt")["reporter"] == journal


def test_tensors_that_are_not_plain_are_named(tmp_path):
    plain = torch.eye(3)
    for odd in (plain.to_sparse(), plain.to("meta"), torch.quantize_per_tensor(plain, 1.0, 0, torch.qint8)):
        torch.save({"layer.weight": odd}, tmp_path / "odd.pt")
        with pytest.raises(UserError, match="odd.pt: (damaged|'layer.weight' is a sparse, quantised or empty)"):
            read_weights(tmp_path / "odd.pt")
