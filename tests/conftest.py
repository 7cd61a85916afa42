"""What all tests share: where optional reference data lies, and which tests come first."""

import os
from pathlib import Path

import pytest
import torch

from tests import ROOT

_SHARED = Path(os.environ.get("UNIAUDIO_SHARED", ROOT.parent / "shared"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests that ask for `device` run, such as cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trials of tests/hostile first: they fork, which a process that has trained cannot, because of gloo's threads."""
    items.sort(key=lambda item: "tests/hostile/" not in item.nodeid)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device that was asked for with --device; a run on one that is absent fails, as it would show nothing."""
    wanted = torch.device(request.config.getoption("--device"))
    if wanted.type == "cuda" and not torch.cuda.is_available():
        pytest.fail("--device cuda: torch finds no GPU here", pytrace=False)
    return wanted


class ParityFolder:
    """`folder / name` is a file of the published model's fixtures; a test that asks for one that is nowhere skips."""

    def __init__(self, *places: Path) -> None:
        self._places = places

    def __truediv__(self, name: str) -> Path:
        found = next((place / name for place in self._places if (place / name).is_file()), None)
        if found is None:
            pytest.skip(f"the fixture {name} is too large for this repository: set UNIAUDIO_PARITY to its folder")
        return found


@pytest.fixture(scope="session")
def parity_dir() -> ParityFolder:
    """The numerical fixtures of the published model: the small ones lie here (tests/fixtures/parity/README.md).

    Tests take sizes, numbers of clips and steps from the files. UNIAUDIO_PARITY names another folder of that layout.
    """
    given = os.environ.get("UNIAUDIO_PARITY")
    if given and not Path(given).is_dir():
        pytest.fail(f"UNIAUDIO_PARITY: no folder {given}")
    return ParityFolder(Path(given)) if given else ParityFolder(_SHARED / "parity", ROOT / "tests/fixtures/parity")


@pytest.fixture(scope="session")
def real_audio_dir() -> Path:
    """Folder of real recordings; skips where it is absent."""
    folder = _SHARED / "data"
    if not folder.is_dir():
        pytest.skip("real recordings not found: set UNIAUDIO_SHARED to the folder that holds data/")
    return folder
