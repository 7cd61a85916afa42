"""A tiny model and prompts, for tests of generation."""

import pytest

from lm.rows import concatenate
from tests.factories.language_model import audio, text, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def prompts():
    """Unequal lengths; text last, audio last, one row."""
    return [
        concatenate([text(4, 1), audio(2, 5, 2), text(3, 3)]),
        text(6, 4),
        concatenate([text(2, 5), audio(1, 3, 6)]),
        text(1, 7),
    ]
