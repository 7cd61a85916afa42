"""What every number of an evaluation was measured with: this source tree, libraries, and the judges' versions."""

from __future__ import annotations

from typing import Any

from codec.io import provenance
from evaluation.judges.recogniser import RECOGNISER_VERSION
from evaluation.judges.signal_features import FEATURES_VERSION
from lm.words import NORMALISER_VERSION

_PACKAGES = (
    "uniaudio",
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "jiwer",
    "pocketsphinx",
    "pystoi",
    "pesq",
    "soundfile",
)
_JUDGES = {"normaliser": NORMALISER_VERSION, "recogniser": RECOGNISER_VERSION, "signal_features": FEATURES_VERSION}


def measured_with() -> dict[str, Any]:
    """Plain values: date, command, git commit, versions of libraries and judges, machine."""
    facts = provenance.provenance(_PACKAGES)
    return facts | {"versions": facts["versions"] | _JUDGES}
