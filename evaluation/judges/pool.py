"""Judges of waveforms. They share nothing with the model that generated them, and run in processes of their own.

Words: `recogniser.py`, or `whisper.py` where one is given. Numbers: `waveform_judges.py`. Classes, instruments, voices:
signal measurements (`signal_features.py`) and a linear classifier (`classifier.py`) fitted to original recordings of
the training split. Every judge is itself tested on originals.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import partial
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any, Self

import numpy as np

from codec.io.workers import die_with_parent
from evaluation.cache import Cache, CannotGoOn, bytes_key, key_of
from evaluation.judges.classifier import ShrinkageLDA
from evaluation.judges.recogniser import Grammar, recognise
from evaluation.judges.signal_features import FEATURES_VERSION, NUM_FEATURES, signal_features
from evaluation.judges.waveform_judges import WaveformJudge, numbers
from evaluation.metrics.metric import Measure
from evaluation.metrics.waveforms import WAVEFORMS_VERSION
from evaluation.report.progress import counted

_WORTH_A_POOL = 8  # waveforms; fewer are done sooner than processes start
MAX_EXAMPLES = 60  # originals of one label value that a classifier is fitted to


class Judges:
    """The judges' processes and their cache. Use as a context manager."""

    def __init__(self, cache: Cache, processes: int = 0) -> None:
        """Start nothing yet.

        Args:
            cache: Where transcripts and measurements are kept.
            processes: Their number; 0 for as many as cores, four at most; 1 works in this process.
        """
        self._cache = cache
        self._processes = processes or min(4, os.cpu_count() or 1)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=error is None, cancel_futures=True)
            self._pool = None

    def transcripts(self, waveforms: Sequence[np.ndarray | None], rules: Grammar) -> list[str | None]:
        """What the recogniser transcribes of waveforms (n,) at 24 kHz; None for None."""
        return self._each(waveforms, partial(recognise, rules=rules), f"words {rules.fingerprint}", _transcript)

    def said(self, waveforms: Sequence[np.ndarray | None], hear: Callable[[np.ndarray], str], version: str) -> list:
        """The same by another recogniser, in this process: its model is large, or on a GPU."""
        return self._each(waveforms, hear, f"words {version}", _transcript, here=True)

    def numbers(self, waveforms: Sequence[np.ndarray | None], judge: WaveformJudge) -> list[list[float] | None]:
        """What a judge makes of waveforms (n,) at 24 kHz; None for None."""
        return self._each(waveforms, judge.judge, f"numbers {judge.version}", numbers)

    def pairs(
        self, measure: Measure, predictions: Sequence[np.ndarray | None], references: Sequence[np.ndarray]
    ) -> list[tuple[float, float] | None]:
        """A metric of two waveforms on each pair: (amount, weight), None where there is nothing to measure."""
        what = f"metric {measure.__name__} {WAVEFORMS_VERSION}"
        given = [None if p is None else (p, r) for p, r in zip(predictions, references, strict=True)]
        measured = self._each(given, partial(_measure_pair, measure=measure), what, _pair)
        return [tuple(pair) if pair else None for pair in measured]

    def features(self, waveforms: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
        """Signal features (F,) of waveforms (n,) at 24 kHz; None for None."""
        measured = self._each(waveforms, _listed_features, f"features {FEATURES_VERSION}", _measured)
        return [None if values is None else np.array(values) for values in measured]

    def _each(
        self, given: Sequence[np.ndarray | tuple | None], work: Callable, what: str, read: Callable, here: bool = False
    ) -> list[Any]:
        """What a judge makes of waveforms, or of tuples of them, each once; in this process with `here`."""
        results: list[Any] = [None] * len(given)
        waiting: dict[str, list[int]] = {}
        for i, one in enumerate(given):
            if one is None:
                continue
            key = key_of(judge=what, waveform=bytes_key(*one) if isinstance(one, tuple) else bytes_key(one))
            results[i] = self._cache.get_json(key, read)
            if results[i] is None:
                waiting.setdefault(key, []).append(i)
        audio = [given[indices[0]] for indices in waiting.values()]
        made = map(work, audio) if here else self._map(work, audio)
        made = counted(made, len(audio), f"clips judged, {_judge_in(what)}")
        for (key, indices), result in zip(waiting.items(), made, strict=True):
            self._cache.put_json(key, {"result": result})
            for i in indices:
                results[i] = result
        return results

    def _map(self, work: Callable, audio: list) -> Iterator[Any]:
        if self._processes == 1 or len(audio) < _WORTH_A_POOL:
            return map(work, audio)
        return self._map_in_pool(work, audio)

    def _map_in_pool(self, work: Callable, audio: list) -> Iterator[Any]:
        if self._pool is None:
            # Fresh processes: a fork of one that runs PyTorch's threads may hang. They inherit that
            # numpy, and PyTorch where a judge needs it, shall take one thread each.
            os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            self._pool = ProcessPoolExecutor(
                self._processes, multiprocessing.get_context("spawn"), die_with_parent, (os.getpid(),)
            )
        try:
            few = max(1, min(4, len(audio) // (4 * self._processes)))  # Ctrl-C waits for those that are begun
            with _without_interrupts():  # processes start here
                results = self._pool.map(work, audio, chunksize=few)
            yield from results
        except BrokenExecutor as error:
            raise CannotGoOn(
                "a process of the judges ended before its time; use fewer (--processes 1 works without), or a machine "
                "with more memory"
            ) from error


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block Ctrl-C, in this thread for a while and for good in the processes that it starts: the parent handles it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # started with the first process otherwise, it would undo this
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


class SignalClassifier:
    """Tells which value of a label a waveform has, by explicit measurements."""

    def __init__(self, judges: Judges, waveforms: Sequence[np.ndarray], values: Sequence[str]) -> None:
        """Fit the classifier.

        Args:
            judges: The processes that measure.
            waveforms: Original recordings of the training split, (n,) at 24 kHz each.
            values: The label's value of each.

        Raises:
            ValueError: There are fewer than two values.
        """
        self._judges = judges
        self._classifier = ShrinkageLDA.fit(np.stack(judges.features(waveforms)), values)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it tells apart."""
        return self._classifier.labels

    def predict(self, waveforms: Sequence[np.ndarray | None]) -> list[str | None]:
        """The value of each waveform; None for None."""
        features = self._judges.features(waveforms)
        return [None if f is None else self._classifier.predict(f)[0] for f in features]


def _judge_in(what: str) -> str:
    """Who judges, in a word for the person who waits: from the key of what is kept."""
    kind, _, version = what.partition(" ")
    return kind if kind in ("words", "features") else version.split()[0].rstrip(",").replace("_", " ")


def _transcript(plain: Any) -> str:
    """What `transcripts` has in the cache. Raises ValueError where it cannot have written that."""
    if not isinstance(plain, dict) or not isinstance(plain.get("result"), str):
        raise ValueError("no words")
    return plain["result"]


def _measured(plain: Any) -> list[float]:
    """What `features` has in the cache, in the same way."""
    values = plain.get("result") if isinstance(plain, dict) else None
    if not isinstance(values, list) or len(values) != NUM_FEATURES or not all(type(x) is float for x in values):
        raise ValueError("no features")
    return values


def _measure_pair(pair: tuple[np.ndarray, np.ndarray], measure: Measure) -> list[float]:
    return list(measure(*pair) or ())


def _pair(plain: Any) -> list[float]:
    """What `pairs` has in the cache, in the same way."""
    values = numbers(plain)
    if len(values) not in (0, 2):
        raise ValueError("no pair of numbers")
    return values


def _listed_features(waveform: np.ndarray) -> list[float]:
    return signal_features(waveform).tolist()
