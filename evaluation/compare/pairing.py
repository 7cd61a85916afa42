"""Two groups of runs beside each other: the same items of the same tasks, and what differs between the groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from codec.io.errors import UserError
from evaluation.compare.paired import Difference, Measured, difference
from evaluation.compare.run import Asked, Entry, Key, Run
from evaluation.metrics.registry import METRICS

MOST_CHANGED = 5  # items of a task that are shown as better, and as worse


@dataclass(frozen=True)
class ScoreMeta:
    """How the numbers of one score read."""

    # of the score
    name: str
    # of the metric, as in `evaluation.metrics.metric.METRICS`
    metric: str
    # which is better: higher or lower
    direction: str
    # whether it is shown times 100
    percent: bool
    # as it is shown behind the number
    unit: str


@dataclass(frozen=True)
class ScorePair:
    """One score of one task in both groups."""

    # how it reads
    meta: ScoreMeta
    # of each run of the first group, over the items that all runs share; what results.json has where there are none
    a: tuple[float, ...]
    # of each run of the second
    b: tuple[float, ...]
    # number of items that all runs measured
    n: int
    # B - A; None where it cannot be tested
    difference: Difference | None
    # why it is not tested, or how many items are not in it; "" where there is nothing to say
    remark: str = ""
    # whether the score is of all items together, as a distance of distributions, and no single item has a value
    of_all_together: bool = False

    @property
    def verdict(self) -> str:
        """What B is where the interval leaves out 0: "better" or "worse"; "" elsewhere."""
        if self.difference is None or not self.difference.is_marked:
            return ""
        return "better" if (self.difference.value > 0) == (self.meta.direction == "higher") else "worse"

    @property
    def better_worse_equal(self) -> tuple[int, int, int] | None:
        """Numbers of items on which B is better, worse and the same; None where nothing is tested."""
        if self.difference is None:
            return None
        higher, lower = self.difference.higher, self.difference.lower
        return (*((higher, lower) if self.meta.direction == "higher" else (lower, higher)), self.difference.equal)


@dataclass(frozen=True)
class Changed:
    """One item that both groups answered."""

    # the answer of the first run of the first group
    a: Asked
    # and of the second
    b: Asked
    # value of the score for this item alone, the mean of the runs of the first group
    a_value: float
    # and of the second
    b_value: float


@dataclass(frozen=True)
class TaskPair:
    """One task at one number of shots in both groups."""

    # what it is known by; without a codec where every run is of one alone
    key: Key
    # of the task
    title: str
    # its scores
    scores: tuple[ScorePair, ...]
    # number of items that all runs have
    n: int = 0
    # numbers of items that are in the first group alone, in the second alone, and in both but not in every run
    alone: tuple[int, int, int] = (0, 0, 0)
    # number of items that all runs have, with other right answers: they are not compared
    other_answers: int = 0
    # number of compared items that were asked in other words, or with other examples
    other_requests: int = 0
    # score that items are ranked by; None where none has a value for each item
    ranked_by: ScoreMeta | None = None
    # items on which B is better than A, the most first
    better: tuple[Changed, ...] = ()
    # items on which it is worse, the most first
    worse: tuple[Changed, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two groups of runs beside each other."""

    # first group
    a: tuple[Run, ...]
    # second group
    b: tuple[Run, ...]
    # what was compared
    tasks: tuple[TaskPair, ...]
    # tasks that were not, with the reason, a sentence each
    left_out: tuple[str, ...] = ()
    # what a reader has to know of all numbers, a sentence each
    notes: tuple[str, ...] = field(default=())

    @property
    def tested(self) -> int:
        """Number of differences of several items: how often chance had an opportunity."""
        return sum(s.difference is not None and s.difference.stderr is not None for t in self.tasks for s in t.scores)

    @property
    def marked(self) -> int:
        """Number of differences whose interval leaves out 0."""
        return sum(bool(score.verdict) for task in self.tasks for score in task.scores)


def compare_runs(a: Sequence[Run], b: Sequence[Run]) -> Comparison:
    """Compare two groups of runs of the same tasks.

    Args:
        a: The first group: one run, or one of every seed of training.
        b: The second.

    Raises:
        UserError: The groups share a run, a group has one twice, or they have no task or no item in common.
    """
    groups = (*a, *b)
    require_different(groups)
    several = any(len(run.codecs) > 1 for run in groups)
    tables = [by_task(run, keep_codecs=several) for run in groups]
    keys = [key for key in tables[0] if all(key in table for table in tables)]
    if not keys:
        raise UserError(_nothing_in_common(a, b, several))
    left_out = [_absent(key, groups, tables) for key in dict.fromkeys(k for t in tables for k in t) if key not in keys]
    tasks = []
    for key in keys:
        entries = [table[key] for table in tables]
        if why := why_not(entries, groups):
            left_out.append(why)
        else:
            tasks.append(_task_pair(key, entries, len(a), groups))
    if not any(score.a for task in tasks for score in task.scores):
        whole = "; ".join(left_out[:3]) or "; ".join(s.remark for t in tasks for s in t.scores if s.remark)
        raise UserError(
            f"{a[0].folder} and {b[0].folder} have no item in common that both have a score of "
            f"({whole or 'no scores'}); evaluate both with the same suite on the same data"
        )
    return Comparison(tuple(a), tuple(b), tuple(tasks), tuple(left_out), tuple(_notes(a, b, tasks)))


def require_different(runs: Sequence[Run]) -> None:
    """Raise UserError where two of the runs are the same one: what they agree on would say nothing."""
    require_different_folders([run.folder for run in runs])
    for i, run in enumerate(runs):
        for earlier in runs[:i]:
            if run.identity == earlier.identity:
                raise UserError(
                    f"{earlier.folder} and {run.folder} are evaluations of the same model or codec with the same seed, "
                    "candidates and judges, so they cannot differ; give the folders of different ones"
                )


def require_different_folders(folders: Sequence[str | Path]) -> None:
    """Raise UserError where one of the folders is given twice, under whatever name; none need exist."""
    seen: set[Path] = set()
    for folder in folders:
        there = Path(folder).resolve()
        if there in seen:
            raise UserError(f"{folder}: is given twice; give the folders of different evaluations")
        seen.add(there)


def by_task(run: Run, keep_codecs: bool) -> dict[Key, Entry]:
    """Entries under keys that runs share: a codec's name counts where a run has several of them."""
    return {(task, shots, codec if keep_codecs else ""): e for (task, shots, codec), e in run.entries.items()}


def _nothing_in_common(a: Sequence[Run], b: Sequence[Run], several: bool) -> str:
    said = [f"{run.folder}: {', '.join(run.suites)}" for run in (a[0], b[0])]
    if several and {key[0] for key in a[0].entries} & {key[0] for key in b[0].entries}:
        said = [f"{run.folder}: {', '.join(run.codecs)}" for run in (a[0], b[0])]
        return (
            f"no codec of one name is in all folders ({'; '.join(said)}); evaluate each codec into a folder of its own"
        )
    return f"no task is in all folders (suites of {'; '.join(said)}); evaluate both with the same --suite and --shots"


def named(key: Key) -> str:
    """A task with its shots and codec, for a sentence."""
    task, shots, codec = key
    return task + (f" after {shots} shot{'s' * (shots != 1)}" if shots else "") + (f" of {codec}" if codec else "")


def _absent(key: Key, runs: Sequence[Run], tables: Sequence[dict[Key, Entry]]) -> str:
    missing = [str(run.folder) for run, table in zip(runs, tables, strict=True) if key not in table]
    return f"{named(key)}: is not in {', '.join(missing)}"


def why_not(entries: Sequence[Entry], runs: Sequence[Run]) -> str:
    """Why a task cannot be compared; "" where it can."""
    for entry, run in zip(entries, runs, strict=True):
        if entry.skipped:
            return f"{named(entry.key)}: was skipped in {run.folder}: {entry.skipped}"
    if len({entry.fingerprint for entry in entries}) > 1:
        return f"{named(entries[0].key)}: is defined otherwise in one of the folders; evaluate both with one version"
    return ""


def _task_pair(key: Key, entries: Sequence[Entry], of_a: int, runs: Sequence[Run]) -> TaskPair:
    first = entries[0]
    sets = [set(entry.items) for entry in entries]
    in_a, in_b, in_all = set().union(*sets[:of_a]), set().union(*sets[of_a:]), set.intersection(*sets)
    shared = [item for item in first.items if item in in_all]
    common = [item for item in shared if len({_right(entry.items[item]) for entry in entries}) == 1]
    scores, ranked = [], None
    for name in first.scores:
        if all(name in entry.scores for entry in entries):
            score, measured = _score_pair(name, entries, common, of_a, runs)
            scores.append(score)
            ranked = ranked or (measured and (score, measured))
    better, worse = _changed(entries, of_a, *ranked) if ranked else ((), ())
    return TaskPair(
        key, first.title, tuple(scores), len(common),
        (len(in_a - in_b), len(in_b - in_a), len((in_a & in_b) - in_all)), len(shared) - len(common),
        sum(len({entry.items[item].given for entry in entries}) > 1 for item in common),
        ranked[0].meta if ranked else None, better, worse,
    )  # fmt: skip


def _right(item: Asked) -> tuple[tuple[str, str | None], ...]:
    """What would be right, for each score."""
    return tuple((name, reading.reference) for name, reading in item.readings.items())


def _score_pair(
    name: str, entries: Sequence[Entry], common: Sequence[str], of_a: int, runs: Sequence[Run]
) -> tuple[ScorePair, tuple[list[str], Measured, Measured] | None]:
    """The score in both groups and, where it is tested, the items with what they measured."""
    scores = [entry.scores[name] for entry in entries]
    one = scores[0]
    meta = ScoreMeta(name, one["metric"], one["direction"], one["percent"], one["unit"])
    values = [score["value"] for score in scores]
    judges = {run.versions.get(one["scorer"]) for run in runs}
    if len(judges) > 1:
        return ScorePair(
            meta, (), (), 0, None, "was judged by different judges, or versions of one; evaluate both with one"
        ), None
    ids = [item for item in common if all(_has(entry, item, name) for entry in entries)]
    metric = METRICS.get(meta.metric)
    if metric is None or not ids:
        if any(value is None for value in values):
            return ScorePair(meta, (), (), 0, None, "has no value in every folder"), None
        whole = not any(entry.items for entry in entries) or metric is not None and _is_of_sets(entries, name)
        if not whole:
            return ScorePair(meta, (), (), 0, None, "no item that all folders measured"), None
        sides = tuple(values[:of_a]), tuple(values[of_a:])
        return ScorePair(meta, *sides, 0, None, of_all_together=True), None
    pairs = np.array([[entry.items[item].readings[name].measured for item in ids] for entry in entries])  # (runs, n, 2)
    a, b = (Measured(group[..., 0], group[..., 1]) for group in (pairs[:of_a], pairs[of_a:]))
    known = [sum(_has(entry, item, name) for item in common) for entry in entries]
    remark = ""
    if max(known) > len(ids):
        remark = (
            f"of the items, A measured {_span(known[:of_a])} and B {_span(known[of_a:])}; only the {len(ids)} of both "
            "are compared"
        )
    of_runs = [tuple(float(value) for value in group.values(metric.transform)) for group in (a, b)]
    return ScorePair(meta, *of_runs, len(ids), difference(a, b, metric.transform), remark), (ids, a, b)


def _has(entry: Entry, item: str, name: str) -> bool:
    reading = entry.items[item].readings.get(name)
    return reading is not None and reading.measured is not None


def _is_of_sets(entries: Sequence[Entry], name: str) -> bool:
    """Whether no single item of any run has a value, while the run has one: a distance of distributions."""
    return not any(_has(entry, item, name) for entry in entries for item in entry.items)


def _span(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def _changed(
    entries: Sequence[Entry], of_a: int, score: ScorePair, measured: tuple[list[str], Measured, Measured]
) -> tuple[tuple[Changed, ...], tuple[Changed, ...]]:
    """The items on which B is better and worse by the most; of the same change, the first of the task first."""
    ids, a, b = measured
    transform = METRICS[score.meta.metric].transform
    a_values, b_values = transform(a.items), transform(b.items)
    gain = (b.items - a.items) * (1 if score.meta.direction == "higher" else -1)
    order = np.argsort(-gain, kind="stable")
    least = 1e-9 + 1e-9 * np.abs(a.items)

    def shown(places: Sequence[int]) -> tuple[Changed, ...]:
        return tuple(
            Changed(entries[0].items[ids[i]], entries[of_a].items[ids[i]], float(a_values[i]), float(b_values[i]))
            for i in places[:MOST_CHANGED]
        )

    backwards = np.argsort(gain, kind="stable")
    return shown([i for i in order if gain[i] > least[i]]), shown([i for i in backwards if -gain[i] > least[i]])


def _notes(a: Sequence[Run], b: Sequence[Run], tasks: Sequence[TaskPair]) -> list[str]:
    notes = []
    seeds = {run.seed for run in (*a, *b)}
    if len(seeds) > 1:
        notes.append(
            f"The folders were evaluated with the seeds {', '.join(map(str, sorted(seeds)))}: clips that they share "
            "were asked about in other words, or after other examples. Evaluate with one seed to compare models alone."
        )
    if min(len(a), len(b)) == 1:
        which = "A and B are" if len(a) == len(b) else ("A is" if len(a) == 1 else "B is")
        notes.append(
            f"{which} one run each: what another seed of training would change is not in the intervals. Three runs of "
            "each tell more (--with)."
            if len(a) == len(b)
            else f"{which} one run: what another seed of its training would change is not in the intervals."
        )
    fewest = min((score.n for task in tasks for score in task.scores if score.difference), default=0)
    if 0 < fewest < 20:
        notes.append(f"With as few as {fewest} items, an interval is narrower than it should be.")
    return notes
