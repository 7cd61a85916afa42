"""Metrics that compare a waveform with the original, aligned in time: reconstructions, not free generation."""

from __future__ import annotations

import numpy as np
from scipy.signal import resample_poly

from evaluation.metrics.metric import metric
from evaluation.metrics.packages import Absent
from evaluation.metrics.spectra import RATE, log_mel_decibels, power_spectrogram

WAVEFORMS_VERSION = 2  # to be raised when a measure changes: part of the key of everything it measured
LEAST_SDR, MOST_SDR = -50.0, 100.0  # dB
LEAST_PESQ = 1.0
STFT_WINDOWS = (512, 1024, 2048)  # samples


@metric("mel_distance", takes="audio", direction="lower", unit="dB")
def mel_distance(prediction: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """Mean absolute difference of two log-mel spectrograms (80 bands, 43 ms windows), in dB, levels included.

    The frames that both waveforms have are compared; the 80 dB below the reference's peak count.
    """
    if prediction is None or len(prediction) == 0:
        return None
    actual, expected = log_mel_decibels(prediction), log_mel_decibels(reference)
    floor = expected.max() - 80.0
    frames = min(actual.shape[1], expected.shape[1])
    difference = np.maximum(actual[:, :frames], floor) - np.maximum(expected[:, :frames], floor)
    return float(np.abs(difference).mean()), 1.0


@metric("stoi", takes="audio", direction="higher", slow=True)
def intelligibility(prediction: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """STOI (Taal et al. 2011), 0 to 1, of a waveform aligned in time with its reference.

    None where the clip holds less than the 0.4 s of signal that the measure needs.
    """
    return _stoi(prediction, reference, extended=False)


@metric("estoi", takes="audio", direction="higher", slow=True)
def extended_intelligibility(prediction: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """Extended STOI (Jensen and Taal 2016), 0 to 1: bands are judged together, so that fluctuating noise counts too.

    None as for STOI.
    """
    return _stoi(prediction, reference, extended=True)


@metric("pesq", takes="audio", direction="higher", slow=True)
def perceived_quality(prediction: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """Wide-band PESQ (ITU-T P.862.2), 1 to 4.6, of speech aligned in time with its reference, measured at 16 kHz.

    Where it finds an utterance in the reference alone, as in silence, the lowest of its scale. None where the reference
    has none, or less than the 0.25 s that it needs.

    Raises:
        Absent: Its library, an extra, is not installed.
    """
    try:
        from pesq import PesqError, pesq
    except ImportError as error:
        raise Absent("PESQ needs pesq: pip install 'uniaudio[quality]'") from error
    if prediction is None or len(prediction) == 0:
        return None
    length = min(len(prediction), len(reference))
    actual, expected = (
        resample_poly(np.nan_to_num(x[:length]).astype(np.float64), 2, 3) for x in (prediction, reference)
    )
    for compared, value in ((actual, None), (expected, LEAST_PESQ)):
        try:
            found = float(pesq(16_000, expected, compared, "wb"))
        except (PesqError, ValueError):  # no utterance, too short; of silence "cannot convert float NaN to integer"
            continue
        return found if value is None else value, 1.0
    return None


@metric("si_sdr", takes="audio", direction="higher", unit="dB")
def scale_invariant_sdr(prediction: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """SI-SDR (Le Roux et al. 2019) in dB: energy along the reference over the rest, means taken out.

    It asks for the same waveform: codecs that make phases of their own are low however they sound. Cut at -50 and 100,
    so that silence and the reference itself have a number; None where the reference is silent.
    """
    if prediction is None or len(prediction) == 0:
        return None
    length = min(len(prediction), len(reference))
    actual, expected = (
        x[:length].astype(np.float64) - x[:length].mean(dtype=np.float64) for x in (prediction, reference)
    )
    energy = float(expected @ expected)
    if energy < 1e-9:
        return None
    target = (actual @ expected / energy) * expected
    rest = actual - target
    kept, lost = float(target @ target), float(rest @ rest)
    if kept == 0:
        return LEAST_SDR, 1.0
    return float(np.clip(10 * np.log10(kept / max(lost, 1e-30)), LEAST_SDR, MOST_SDR)), 1.0


@metric("stft_distance", takes="audio", direction="lower")
def stft_distance(prediction: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """Multi-resolution STFT distance (Yamamoto et al. 2020): spectral convergence plus log-magnitude distance.

    The mean over windows of 21, 43 and 85 ms, a quarter of each apart. Spectral convergence is the norm of the
    difference of magnitudes over that of the reference: errors of loud partials, heard as roughness or buzz. The other
    part is the mean absolute difference of natural log magnitudes, where quiet high bands weigh as much as loud ones:
    lost brightness, or hiss. Short windows see smeared attacks, long ones wrong harmonics. 0 for the same, about 1 to 2
    for vocoders. The 80 dB below the reference's loudest bin count. None where the reference is silent.
    """
    if prediction is None or len(prediction) == 0:
        return None
    length = min(len(prediction), len(reference))
    distances = []
    for window in STFT_WINDOWS:
        actual, expected = (
            np.sqrt(power_spectrogram(x[:length], window, window // 4)).astype(np.float64)
            for x in (np.nan_to_num(prediction), reference)
        )
        if not expected.any():
            return None
        floor = 1e-4 * expected.max()
        convergence = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
        logs = np.abs(np.log(np.maximum(actual, floor)) - np.log(np.maximum(expected, floor))).mean()
        distances.append(float(convergence + logs))
    return float(np.mean(distances)), 1.0


def _stoi(prediction: np.ndarray | None, reference: np.ndarray, extended: bool) -> tuple[float, float] | None:
    import warnings

    from pystoi import stoi

    if prediction is None or len(prediction) == 0:
        return None
    length = min(len(prediction), len(reference))
    if length < 0.4 * RATE:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of pystoi for a clip that is too short: it returns 1e-5
        try:
            return float(stoi(reference[:length], prediction[:length], RATE, extended=extended)), 1.0
        except RuntimeWarning:
            return None
