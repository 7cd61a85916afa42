"""Judges that make numbers of a waveform, by the name of the scorer: what evaluation/metrics/judged.py compares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.judges.manner import MANNER_VERSION, manner
from evaluation.judges.mos import DISTILLMOS_VERSION, DNSMOS_VERSION, distillmos, dnsmos
from evaluation.judges.music import KEY_VERSION, TEMPO_VERSION, key_of, tempo_of
from evaluation.judges.pitch import PITCH_VERSION, pitch_track
from evaluation.judges.signal_features import FEATURES_VERSION, signal_features
from evaluation.judges.speaker import SPEAKER_VERSION, speaker_embedding
from evaluation.judges.tagger import tagger_version, tags
from evaluation.metrics.packages import Absent, require


@dataclass(frozen=True)
class WaveformJudge:
    """One way to judge a waveform by itself."""

    # name and version: part of the key of everything it says, and in the results
    version: str
    # waveform (n,) at 24 kHz -> numbers, [] where there is nothing to judge; runs in any process
    judge: Callable[[np.ndarray], list[float]]


def _listed_features(waveform: np.ndarray) -> list[float]:
    return signal_features(waveform).tolist()


# scorer -> what it needs installed, its version and itself
_JUDGES: dict[str, tuple[tuple[str, ...], str, Callable[[np.ndarray], list[float]]]] = {
    "pitch": (("torchcrepe",), PITCH_VERSION, pitch_track),
    "dnsmos": (("speechmos", "onnxruntime"), DNSMOS_VERSION, dnsmos),
    "distillmos": (("distillmos",), DISTILLMOS_VERSION, distillmos),
    "speaker": (("resemblyzer",), SPEAKER_VERSION, speaker_embedding),
    "key": (("librosa",), KEY_VERSION, key_of),
    "tempo": (("librosa",), TEMPO_VERSION, tempo_of),
    "edit": ((), MANNER_VERSION, manner),
    "signal_features": ((), f"signal features {FEATURES_VERSION}", _listed_features),
}


def waveform_judge(scorer: str, tagger: str | Path | None = None, clap: str | None = None) -> WaveformJudge:
    """The judge of a scorer.

    Args:
        scorer: pitch, dnsmos, distillmos, speaker, signal_features, edit, key, tempo, tagger, clap or clap_caption.
        tagger: Folder of the tagger (evaluation/judges/tagger.py); None where none was given.
        clap: Folder of the CLAP (evaluation/judges/clap.py); None where none was given.

    Raises:
        Absent: Its package is not installed, or no tagger or CLAP was given.
        UserError: The folder holds none.
    """
    if scorer in ("clap", "clap_caption"):
        if clap is None:
            raise Absent("it needs a CLAP: give a folder or hub id with --clap")
        from evaluation.judges.clap import clap_of_sound, clap_version  # which take torch and transformers

        return WaveformJudge(clap_version(clap), partial(clap_of_sound, folder=clap))
    if scorer == "tagger":
        if tagger is None:
            raise Absent("class agreement needs a tagger: give the folder of a YAMNet with --tagger")
        return WaveformJudge(tagger_version(tagger), partial(tags, folder=str(Path(tagger).resolve())))
    needs, version, judge = _JUDGES[scorer]
    require(f"the judge '{scorer}'", *needs)
    return WaveformJudge(version, judge)


def numbers(plain: Any) -> list[float]:
    """What the cache holds of a judge. Raises ValueError where it cannot have written that."""
    values = plain.get("result") if isinstance(plain, dict) else None
    if not isinstance(values, list) or not all(type(x) is float and math.isfinite(x) for x in values):
        raise ValueError("no numbers")
    return values
