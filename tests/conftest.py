"""What all tests share: where optional reference data lies, and which tests come first."""

import os
from pathlib import Path

import pytest

_SHARED = Path(os.environ.get("UNIAUDIO_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trials of tests/hostile first: they fork, which a process that has trained cannot, because of gloo's threads."""
    items.sort(key=lambda item: "tests/hostile/" not in item.nodeid)


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Folder of the numerical fixtures of the published model (see its README); skips where it is absent.

    Tests take sizes, numbers of clips and steps from the files. UNIAUDIO_PARITY names another folder of that layout.
    """
    given = os.environ.get("UNIAUDIO_PARITY")
    folder = Path(given) if given else _SHARED / "parity"
    if given and not folder.is_dir():
        pytest.fail(f"UNIAUDIO_PARITY: no folder {folder}")
    if not folder.is_dir():
        pytest.skip("numerical fixtures not found: set UNIAUDIO_SHARED to the folder that holds parity/")
    return folder


@pytest.fixture(scope="session")
def real_audio_dir() -> Path:
    """Folder of real recordings; skips where it is absent."""
    folder = _SHARED / "data"
    if not folder.is_dir():
        pytest.skip("real recordings not found: set UNIAUDIO_SHARED to the folder that holds data/")
    return folder
