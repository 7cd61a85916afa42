"""Phone ABX: are two tokens of one phone closer to each other than to another phone, within and across speakers?

The error rate of machine ABX (Schatz et al., Interspeech 2013; Libri-light, ZeroSpeech 2021) over single phones in any
context. An item is the frames of one phone, cut at its times: those whose middle lies in it, or the one around its
middle where a frame is longer than the phone. A and X are two items of a phone, B one of another phone by A's speaker;
X is by A's speaker (within) or by another one (across). B closer to X than A is one error, a tie half of one: chance
is 50 %. Errors are averaged over the triples of two phones and of A's and X's speakers, then over speakers, then over
ordered pairs of phones, so that rare phones and speakers weigh as much as common ones.

The distance of items is the mean angle between frames, over pi, along the path of dynamic time warping that makes their
sum least. Frames are the de-quantised vectors of a stream. The reference: log-mel frames of the stream's rate, each
band less its mean over all clips. Standard errors: speakers resampled with replacement, those of A and of X together.

The same definition is that of fastabx's `zerospeech_abx` with `context="any"`; that library needs Python 3.12, Polars
and a compiled DTW, and has no standard errors.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.corpora.phones import Phone, Phones, phones_of
from auditory_sentences.rng import stable_hash
from codec.io.errors import UserError
from evaluation.metrics.estimate import BOOTSTRAP_SEED, RESAMPLES, Estimate
from evaluation.token_measures.coded import CodedClips, Measured

MOST_ITEMS = 5  # of one phone by one speaker, drawn by the clip's id
CHANCE = 0.5
_PAIRS = 2_000_000  # numbers of a distance matrix that are worked on at once
_DIGITS = 6  # of distances: what differs by less is a tie


@dataclass(frozen=True)
class AbxItem:
    """One phone as it was spoken once."""

    # who said it
    speaker: str
    # its name
    phone: str
    # (T, dim) float, T at least 1
    frames: np.ndarray


def abx_within(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Phone ABX error rate with A, B and X by one speaker. Raises UserError without phone times or pairs."""
    return _measured(coded, stream, across=False)


def abx_across(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Phone ABX error rate with X by another speaker than A and B. Raises UserError without phone times or pairs."""
    return _measured(coded, stream, across=True)


def _measured(coded: CodedClips, stream: str, across: bool) -> Measured:
    rate = coded.spec(stream).rate
    clips, phones = coded.once("phones", lambda: _with_phones(coded.test))

    def distances(source: str) -> tuple[list[AbxItem], np.ndarray]:
        if source == "tokens":
            frames = [vectors.numpy() for vectors in coded.vectors(stream, clips)]
        else:
            frames = [coded.mel_frames(clip, rate) for clip in clips]
            mean = np.concatenate(frames).mean(axis=0)
            frames = [one - mean for one in frames]
        items = items_of(clips, phones, frames, rate)
        return items, distance_matrix([item.frames for item in items])

    found = {}
    for source in ("tokens", "mel"):
        # The same recordings at the same rate give the same reference, whatever the codec.
        key = ("abx", source, stream if source == "tokens" else rate)
        found[source] = abx_error(*coded.once(key, lambda source=source: distances(source)), across)
    return Measured(found["tokens"], CHANCE, found["mel"])


def _with_phones(clips: Sequence[Clip]) -> tuple[list[Clip], list[Phones]]:
    known = phones_of(clips)
    chosen = [clip for clip in clips if clip.id in known and clip.speaker]
    if not chosen:
        raise UserError(
            "phone ABX needs phone times and speakers, and no test clip has both: put phones.jsonl or an .item file "
            "(auditory_sentences/corpora/phones.py) beside the recordings; `uniaudio corpus synthesise` writes one"
        )
    return chosen, [known[clip.id] for clip in chosen]


def items_of(
    clips: Sequence[Clip], phones: Sequence[Phones], frames: Sequence[np.ndarray], rate: float, most: int = MOST_ITEMS
) -> list[AbxItem]:
    """The phones of clips as items, at most so many of one phone by one speaker.

    Args:
        clips: With speakers.
        phones: Of each clip.
        frames: (T, dim) of each clip: frame t lasts from t / rate to (t + 1) / rate seconds.
        rate: Frames a second.
        most: Items of one phone by one speaker.
    """
    groups: dict[tuple[str, str], list[tuple[int, AbxItem]]] = defaultdict(list)
    for clip, spoken, vectors in zip(clips, phones, frames, strict=True):
        for number, phone in enumerate(spoken):
            cut = vectors[frames_of(phone, rate, len(vectors))]
            drawn = stable_hash("abx", clip.id, number)
            groups[clip.speaker, phone.name].append((drawn, AbxItem(clip.speaker, phone.name, cut)))
    return [item for key in sorted(groups) for _, item in sorted(groups[key], key=lambda one: one[0])[:most]]


def frames_of(phone: Phone, rate: float, count: int) -> slice:
    """Which of a clip's frames are a phone's: at least one."""
    first, end = math.ceil(phone.start * rate - 0.5 - 1e-6), math.ceil(phone.end * rate - 0.5 - 1e-6)
    if end <= first:
        first = math.floor((phone.start + phone.end) / 2 * rate)
        end = first + 1
    first = min(max(first, 0), count - 1)
    return slice(first, max(first + 1, min(end, count)))


def abx_error(items: Sequence[AbxItem], distances: np.ndarray, across: bool) -> Estimate:
    """The error rate of items, with its standard error over speakers; n is the number of items.

    Args:
        items: As `items_of` gives them.
        distances: (n, n) between them.
        across: Whether X is by another speaker.

    Raises:
        UserError: There is no triple.
    """
    speakers, phones = (sorted({getattr(item, key) for item in items}) for key in ("speaker", "phone"))
    groups: dict[tuple[int, int], np.ndarray] = {}
    for s, speaker in enumerate(speakers):
        for p, phone in enumerate(phones):
            members = [i for i, item in enumerate(items) if (item.speaker, item.phone) == (speaker, phone)]
            if members:
                groups[s, p] = np.array(members)
    pairs, cells = [], []  # (speaker of A and B, speaker of X), (P, P) error of phone pairs, NaN where there is none
    for s in range(len(speakers)):
        mine = [(p, groups[s, p]) for p in range(len(phones)) if (s, p) in groups]
        for t in range(len(speakers)) if across else (s,):
            if across and t == s:
                continue
            cell = np.full((len(phones), len(phones)), np.nan, dtype=np.float32)
            for p, a in mine:
                if (t, p) in groups:
                    _fill(cell[p], p, a, groups[t, p], mine, distances, across)
            pairs.append((s, t))
            cells.append(cell.ravel())
    table = np.array(cells) if cells else np.zeros((0, 0), dtype=np.float32)  # (speaker pairs, phone pairs)
    there = ~np.isnan(table)
    if not there.any():
        kind = "by two speakers" if across else "twice by one speaker"
        raise UserError(f"phone ABX needs phones that are spoken {kind}, and the test clips have none; take more clips")
    values = np.where(there, table, 0.0)

    def score(weights: np.ndarray) -> np.ndarray:
        """(R, speaker pairs) -> (R,)"""
        amount, total = weights @ values, weights @ there.astype(np.float32)
        known = total > 0
        means = np.divide(amount, total, out=np.zeros_like(amount), where=known)
        return np.divide(means.sum(1), known.sum(1), out=np.full(len(means), np.nan), where=known.any(1))

    value = float(score(np.ones((1, len(pairs)), dtype=np.float32))[0])
    if len(speakers) < 2:
        return Estimate(value, None, len(items))
    drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(0, len(speakers), size=(RESAMPLES, len(speakers)))
    times = np.stack([(drawn == s).sum(1) for s in range(len(speakers))], axis=1).astype(np.float32)  # (R, S)
    first, second = np.array(pairs).T
    resampled = score(times[:, first] * times[:, second] if across else times[:, first])
    return Estimate(value, float(np.nanstd(resampled, ddof=1)), len(items))


def _fill(
    row: np.ndarray, p: int, a: np.ndarray, x: np.ndarray, others: Sequence[tuple[int, np.ndarray]],
    distances: np.ndarray, across: bool,
) -> None:  # fmt: skip
    """Put the errors of phone p against every other phone of A's speaker into row (P,).

    a, x: items of phone p; others: phone -> items of A's speaker
    """
    if not across and len(a) < 2:
        return
    right = distances[np.ix_(x, a)]  # (X, A)
    every = np.concatenate([b for _, b in others])
    wrong = distances[np.ix_(x, every)]  # (X, B)
    error = (right[:, :, None] > wrong[:, None]) + 0.5 * (right[:, :, None] == wrong[:, None])  # (X, A, B)
    if across:
        each = error.mean((0, 1))
    else:  # X is none of A
        other = (x[:, None] != a)[:, :, None]
        each = (error * other).sum((0, 1)) / other.sum()
    start = 0
    for q, b in others:
        if q != p:
            row[q] = each[start : start + len(b)].mean()
        start += len(b)


def distance_matrix(items: Sequence[np.ndarray]) -> np.ndarray:
    """(n, n) mean angle over pi along the best time-warped path, of every two items (T, dim)."""
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in map(np.float64, items)]
    lengths = np.array([len(x) for x in unit])
    by_length = {length: np.flatnonzero(lengths == length) for length in np.unique(lengths)}
    stacked = {length: np.stack([unit[i] for i in index]) for length, index in by_length.items()}
    found = np.zeros((len(items), len(items)))
    for m, rows in by_length.items():
        for n, columns in by_length.items():
            if n < m:
                continue
            step = max(1, _PAIRS // (len(columns) * m * n))
            for start in range(0, len(rows), step):
                some = stacked[m][start : start + step]
                cosine = some.reshape(-1, some.shape[2]) @ stacked[n].reshape(-1, some.shape[2]).T
                cosine = cosine.reshape(len(some), m, len(columns), n).transpose(1, 3, 0, 2)  # (m, n, rows, columns)
                paths = _warped(np.arccos(np.clip(cosine, -1, 1)) / np.pi)
                found[np.ix_(rows[start : start + step], columns)] = paths
                found[np.ix_(columns, rows[start : start + step])] = paths.T
    return found.round(_DIGITS)


def _warped(distance: np.ndarray) -> np.ndarray:
    """(m, n, ...) distances of frames -> (...) their mean along the path whose sum is least.

    Of paths with one sum the shorter one is taken, so that the order of the two items makes no difference.
    """
    m, n = distance.shape[:2]
    sums: dict[tuple[int, int], np.ndarray] = {}
    steps: dict[tuple[int, int], np.ndarray] = {}
    for i in range(m):
        for j in range(n):
            before = [at for at in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if at in sums]
            if not before:
                sums[i, j], steps[i, j] = distance[i, j], np.ones(distance.shape[2:], dtype=np.int32)
                continue
            least, count = sums[before[0]], steps[before[0]]
            for at in before[1:]:
                better = (sums[at] < least) | ((sums[at] == least) & (steps[at] < count))
                least, count = np.where(better, sums[at], least), np.where(better, steps[at], count)
            sums[i, j], steps[i, j] = least + distance[i, j], count + 1
    return sums[m - 1, n - 1] / steps[m - 1, n - 1]
