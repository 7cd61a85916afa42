"""Quality, rate and cost of an ALMTokenizer at each of its windows: the same weights at several bit rates.

    python benchmarks/almtokenizer_windows.py --codec FOLDER --corpus runs/demo/corpus
    python benchmarks/almtokenizer_windows.py --codec FOLDER OTHER --corpus CORPUS --windows 2 6 10 --hour

Scores are those of the reconstruction tasks of evaluation/tasks, clips and originals too, with one standard error over
clips. `encode` is seconds of computation for a minute of noise, the fastest of three, and `positions` what the
encoder's transformer reads in it; the first is not comparable between machines. `--hour` also encodes an hour of noise
that arrives in blocks, at each window, and states by how much the process's peak memory grew. Prints a table for each
task to stderr and one JSON line for each row to stdout.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict

import torch
from decode_steps import Decoded, figure, reconstruction_task
from rich.console import Console
from rich.table import Table

from codec.almtokenizer.codec import ALMTokenizer
from codec.io.errors import UserError
from codec.io.terminal import run_program
from evaluation.cache import Cache
from evaluation.items import ItemBuilder
from evaluation.judges.pool import Judges
from evaluation.metrics.registry import METRICS
from evaluation.recordings import Recordings
from evaluation.runner import CodecRunner
from evaluation.scoring import Extractor, compare, score_originals
from evaluation.task import EvalTask


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", nargs="+", required=True, help="folders of trained ALMTokenizers")
    parser.add_argument("--corpus", nargs="+", required=True, help="corpora, or folders of recordings")
    parser.add_argument("--tasks", nargs="+", default=["codec_digits", "codec_sentences"], help="names or YAML files")
    parser.add_argument("--windows", type=int, nargs="+", help="default: all that training drew")
    parser.add_argument("--limit", type=int, default=40, help="clips of each task")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processes", type=int, default=0, help="of judges (default: cores, at most 4)")
    parser.add_argument("--hour", action="store_true", help="encode an hour, and state the memory")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.limit < 1:
        raise UserError("--limit must be at least 1")
    codecs = {source: ALMTokenizer.from_pretrained(source) for source in arguments.codec}
    tasks = [reconstruction_task(name) for name in arguments.tasks]
    builder = ItemBuilder(Recordings(arguments.corpus))
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    with tempfile.TemporaryDirectory() as folder, Judges(cache := Cache(folder), arguments.processes) as judges:
        extractor = Extractor(judges, builder.store.clips)
        costs = {}
        for task in tasks:
            items = builder.items(task, 0, arguments.limit)
            originals = {score.name: score_originals(task, score, items, extractor) for score in task.scores}
            rows = [{"task": task.task, "codec": "originals", "clips": len(items)}]
            rows[0] |= {name: asdict(made.estimate) for name, made in originals.items() if made}
            for source, codec in codecs.items():
                config = codec.config
                for window in arguments.windows or range(config.least_window, config.most_window + 1):
                    at = codec.with_window(window)
                    if (source, window) not in costs:
                        costs[source, window] = dict(cost(at, arguments.hour))
                    answers = CodecRunner(at, cache).encode(items)
                    waveforms = Decoded(at, [answer.tokens for answer in answers], None, None).waveforms
                    scores = {
                        score.name: asdict(
                            compare(
                                task, score, items, extractor.from_waveforms(task, score, waveforms), extractor
                            ).estimate
                        )
                        for score in task.scores
                    }
                    (spec,) = at.streams
                    row = {"task": task.task, "codec": source, "window": window, "hz": spec.rate}
                    row["bits_per_second"] = spec.bits_per_second
                    rows.append(row | costs[source, window] | scores | {"threads": arguments.threads})
            for row in rows:
                print(json.dumps(row), flush=True)
            console.print(table(task, rows))
    return 0


def cost(codec: ALMTokenizer, hour: bool) -> Iterator[tuple[str, float]]:
    """What encoding costs, by name."""
    generator = torch.Generator().manual_seed(0)
    minute = 0.1 * torch.randn(60 * codec.sample_rate, generator=generator)
    read: list[int] = []
    hook = codec.encoder.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        codec.encode(minute[None])
        times.append(time.perf_counter() - start)
    hook.remove()
    yield "encode_seconds_per_minute", round(min(times), 3)
    yield "positions_per_minute", sum(read) // 3
    if hour:
        before, start = _peak_mib(), time.perf_counter()
        codec.encode_blocks((minute for _ in range(60)), 60 * len(minute))
        yield "encode_seconds_per_hour", round(time.perf_counter() - start, 1)
        yield "hour_adds_mib", round(_peak_mib() - before, 1)


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def table(task: EvalTask, rows: list[dict]) -> Table:
    """All rows of a task; percentages where the metric is one."""
    made = Table("codec", "window", "Hz", "bit/s", title=f"{task.title}, {rows[0]['clips']} clips")
    for score in task.scores:
        made.add_column(f"{score.name} {METRICS[score.metric].unit}".strip(), justify="right")
    made.add_column("encode s/min", justify="right")
    for row in rows:
        cells = [row["codec"], str(row.get("window", ""))]
        cells += [f"{row[name]:.4g}" if name in row else "" for name in ("hz", "bits_per_second")]
        cells += [figure(row.get(score.name), METRICS[score.metric].percent) for score in task.scores]
        made.add_row(*cells, str(row.get("encode_seconds_per_minute", "")))
    return made


if __name__ == "__main__":
    run_program("almtokenizer_windows", main)
