"""Files of tensors: as they were given, and readable for whom other files are."""

import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from codec.tensor_files import save_tensors, share_weights

pytestmark = pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX's")


@pytest.fixture
def usual_mask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_file_has_the_mode_of_other_new_files(tmp_path, usual_mask):
    path = tmp_path / "a.safetensors"
    tensors = {"rows": torch.arange(6.0).view(2, 3).T.requires_grad_(), "half": torch.ones(2, dtype=torch.bfloat16)}
    save_tensors(tensors, path, made_by="a test")
    assert path.stat().st_mode & 0o777 == 0o640
    assert all(torch.equal(tensors[name], found) for name, found in load_file(path).items())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "made_by": "a test"}
    path.chmod(0o600)
    save_tensors(tensors, path)
    assert path.stat().st_mode & 0o777 == 0o600, "what somebody has hidden stays hidden"


def test_weights_of_other_libraries_are_shared_as_their_configuration_is(tmp_path, usual_mask):
    share_weights(tmp_path / "not_written")  # by a process that is not the first
    (tmp_path / "config.json").write_text("{}")
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    share_weights(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o640
