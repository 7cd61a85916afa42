"""A small starter corpus."""

import pytest

from auditory_sentences.starter.corpus import synthesise
from auditory_sentences.starter.jobs import SMALL


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("starter") / "small", seed=3, size=SMALL, processes=1)
