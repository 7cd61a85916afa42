"""One tiny model with its data for all tests of the suite."""

from pathlib import Path

import pytest

from tests.factories.evaluation import write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """Folder of a tiny model with random weights; ../corpus and ../tokens lie beside it."""
    return write_model(tmp_path_factory.mktemp("evaluation"))
