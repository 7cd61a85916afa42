"""Weights from others' files: every known nesting, and no pickle that is more than weights."""

import argparse
import contextlib
import datetime
import gzip
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from codec.io.errors import UserError
from codec.untrusted_weights import read_pickle, read_weight_file, read_weights

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
    metric_logger = {"epoch": 2, "loss": np.float64(1.5), "steps": np.int64(3), "took": datetime.timedelta(seconds=5)}
    torch.save({"model": STATE, "reporter": metric_logger, "args": argparse.Namespace(lr=0.1)}, tmp_path / "weights.pt")
    assert read_pickle(tmp_path / "weights.pt")["reporter"] == metric_logger


def test_tensors_that_are_not_plain_are_named(tmp_path):
    plain = torch.eye(3)
    for odd in (plain.to_sparse(), plain.to("meta"), torch.quantize_per_tensor(plain, 1.0, 0, torch.qint8)):
        torch.save({"layer.weight": odd}, tmp_path / "odd.pt")
        with pytest.raises(UserError, match="odd.pt: (damaged|'layer.weight' is a sparse, quantised or empty)"):
            read_weights(tmp_path / "odd.pt")


def archive(*names: str, compression: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as file:
        for name in names:
            file.writestr(name, b"\x80\x02}q\x00.")
    return made.getvalue()


def tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        file.addfile(tarfile.TarInfo("weights"), io.BytesIO())
    return made.getvalue()


# What people hand in for a checkpoint -> what they are told.
NO_CHECKPOINTS = {
    "empty": (b"", "an empty file"),
    "tar": (tar(), "a tar archive"),
    "tar.gz": (gzip.compress(tar()), "compressed with gzip"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "a Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
    "page without a type": (b"\xef\xbb\xbf<HTML><title>404</title>", "a web page"),
    "answer": (b'<?xml version="1.0"?><Error/>', "an XML answer"),
    "zip of other things": (archive("readme.txt"), "a zip archive, but no torch checkpoint .it holds readme.txt"),
    "program": (archive("x/data.pkl", "x/constants.pkl"), "a program"),
    "compressed": (archive("x/data.pkl", compression=zipfile.ZIP_DEFLATED), "a compressed zip archive"),
    "text": (b"hello\n", "damaged"),
    "gguf": (b"GGUF\x03\x00\x00\x00", "GGUF"),
    "numbers": (bytes(range(200)), "(damaged|refused)"),
}


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize(("content", "message"), NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_told_for_what_it_is(tmp_path, content, message, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: .*{message}") as refused:
        read_weights(tmp_path / name)
    assert "weights_only" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_folder_and_a_safetensors_file_of_another_name(tmp_path):
    with pytest.raises(UserError, match="a folder, where a file of weights is expected"):
        read_weights(tmp_path)
    save_file(STATE, tmp_path / "weights.bin")
    assert same(read_weights(tmp_path / "weights.bin"))
    torch.save(STATE, tmp_path / "weights.safetensors")
    assert same(read_weights(tmp_path / "weights.safetensors"))


def form(kind: str) -> bytes:
    made = io.BytesIO()
    if kind == "safetensors":
        return save(STATE)
    torch.save({"model": STATE}, made, _use_new_zipfile_serialization=kind == "zip")
    return made.getvalue()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_one_sentence_or_does_no_harm(tmp_path, kind, data):
    """Cut anywhere, or one byte turned: the file is refused, or its tensors have the shapes that they had."""
    whole = bytearray(form(kind))
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole = whole[:place]
    else:
        whole[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pt")
    path.write_bytes(whole)
    try:
        read_weights(path)
    except UserError as error:
        assert "x." in str(error) and "weights_only" not in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("turned", [0x01, 0xFF])
def test_damage_to_the_directory_of_an_archive_is_one_sentence_or_does_no_harm(tmp_path, turned):
    """Every byte of it: Python's zipfile raises some errors while it only asks whether a file is an archive."""
    whole = form("zip")
    for place in range(len(whole) - 120, len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= turned
        (tmp_path / "x.pt").write_bytes(damaged)
        with contextlib.suppress(UserError):
            assert read_weights(tmp_path / "x.pt").keys() == STATE.keys()


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_that_are_none_are_named(tmp_path, odd, dtype):
    weights = torch.ones(3, 4, dtype=dtype)
    weights[1, 2] = odd
    torch.save({"a": torch.ones(2), "layer.weight": weights}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match="odd.pt: 'layer.weight' holds NaN or infinite"):
        read_weights(tmp_path / "odd.pt")


def test_types_in_which_no_weights_are_stored_are_named(tmp_path):
    for dtype in (torch.complex64, torch.float8_e4m3fn):
        torch.save({"a": torch.ones(2).to(dtype)}, tmp_path / "odd.pt")
        with pytest.raises(UserError, match="odd.pt: ('a' is of type|damaged|refused)"):
            read_weights(tmp_path / "odd.pt")


def test_how_the_weights_stand_in_the_file_is_known(tmp_path):
    torch.save({"model": {f"module.{key}": value for key, value in STATE.items()}, "step": 3}, tmp_path / "w.pt")
    file = read_weight_file(tmp_path / "w.pt")
    assert (file.nest, file.prefix, file.others) == ("model", "module.", ["step"]) and same(file.state)
