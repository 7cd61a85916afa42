"""The record of released files: what the codec does not hold is kept, and all of it comes back as it was."""

import pytest
import torch

from codec.io.errors import UserError
from codec.release.record import APART_FILE, RECORD_FILE, PublishedFiles, recorded
from codec.untrusted_weights import WeightFile


@pytest.fixture
def files() -> PublishedFiles:
    """Of one file: a weight that the codec holds, one in half precision, and a table that it does not hold."""
    state = {"a": torch.tensor([0.1, 0.2]), "b": torch.tensor([0.5, 3.0]).half(), "table": torch.arange(3)}
    codec = {"ours.a": state["a"], "ours.b": state["b"].float()}
    names = {"a": "ours.a", "b": "ours.b"}
    return recorded(
        codec, {"codec": (WeightFile(state, "model", "module.", []), names.get)}, {"downsample_factors": [2]}
    )


def test_a_file_comes_back_in_its_order_names_and_types(files, tmp_path):
    files.save(tmp_path)
    again = PublishedFiles.load(tmp_path)
    codec = {"ours.a": torch.tensor([0.1, 0.2]), "ours.b": torch.tensor([0.5, 3.0])}
    state = again.state("codec", codec, "folder")
    assert list(state) == ["module.a", "module.b", "module.table"]
    assert [value.dtype for value in state.values()] == [torch.float32, torch.float16, torch.int64]
    assert again.narrow_types() == {"ours.b": torch.float16}
    codec["ours.b"] = torch.tensor([0.1, 3.0])  # trained since: half precision would round it
    assert again.state("codec", codec, "folder")["module.b"].dtype == torch.float32
    with pytest.raises(UserError, match="the codec has no 'ours.b'"):
        again.state("codec", {"ours.a": codec["ours.a"]}, "folder")


def test_a_damaged_record_is_named(files, tmp_path):
    files.save(tmp_path)
    for content in ("", "[]", "{}", '{"files": {"codec": 1}}', '{"files": {}, "scalar_config": 3}'):
        (tmp_path / RECORD_FILE).write_text(content)
        with pytest.raises(UserError, match="published.json: damaged.*delete published"):
            PublishedFiles.load(tmp_path)
    files.save(tmp_path)
    (tmp_path / APART_FILE).write_bytes(b"x")
    with pytest.raises(UserError, match="published.json: damaged"):
        PublishedFiles.load(tmp_path)
    (tmp_path / RECORD_FILE).unlink()
    assert PublishedFiles.load(tmp_path) is None
