"""The measures of tokens, as tasks name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from evaluation.token_measures import abx, perplexity, probes, reading, stability, usage
from evaluation.token_measures.coded import CodedClips, Measured


@dataclass(frozen=True)
class TokenMeasure:
    """One measure of one stream."""

    # (clips, name of the stream, what is asked of it) -> what is found; raises UserError where nothing can be
    measure: Callable[[CodedClips, str, str], Measured]
    # which is better: higher or lower
    direction: str
    # whether it is shown times 100
    percent: bool = False
    # as it is shown behind the number
    unit: str = ""
    # whether a task has to say what is asked (a label, words, speaker)
    asks: bool = False
    # whether all streams of a tokenizer are also measured together
    joint: bool = False
    # whether the phone times beside the recordings decide it
    of_phones: bool = False


TOKEN_MEASURES: Mapping[str, TokenMeasure] = {
    "abx_within": TokenMeasure(abx.abx_within, "lower", percent=True, unit="%", of_phones=True),
    "abx_across": TokenMeasure(abx.abx_across, "lower", percent=True, unit="%", of_phones=True),
    "probe": TokenMeasure(probes.probe, "higher", percent=True, unit="%", asks=True, joint=True),
    "words_read": TokenMeasure(reading.words_read, "lower", percent=True, unit="%"),
    "perplexity": TokenMeasure(perplexity.perplexity, "lower"),
    "model_bits": TokenMeasure(perplexity.model_bits, "lower", unit="bit/s"),
    "entropy_bits": TokenMeasure(usage.entropy_bits, "higher", unit="bit/s"),
    "nominal_bits": TokenMeasure(usage.nominal_bits, "lower", unit="bit/s"),
    "codes_in_use": TokenMeasure(usage.codes_in_use, "higher", percent=True, unit="%"),
    "dead_codes": TokenMeasure(usage.dead_codes, "lower"),
    "stable_shift": TokenMeasure(stability.stable_shift, "higher", percent=True, unit="%"),
    "stable_gain": TokenMeasure(stability.stable_gain, "higher", percent=True, unit="%"),
    "stable_noise": TokenMeasure(stability.stable_noise, "higher", percent=True, unit="%"),
}
