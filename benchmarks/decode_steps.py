"""Decoding quality and speed by number of steps, of one codec or of several: before and after distillation, say.

    python benchmarks/decode_steps.py --codec starter/codec runs/starter/reflow/model --corpus runs/demo/corpus
    python benchmarks/decode_steps.py --codec starter/codec --corpus DIGITS SENTENCES CLIPS \\
        --tasks codec_real_digits codec_real_sentences codec_recordings

Every task of evaluation/tasks that asks for a reconstruction names its clips and its scores: the recogniser's word
error rate (beside it on the originals), STOI, mel distance, and what needs an extra (pip install 'uniaudio[quality]')
where that is installed. Prints a table for each task to stderr and one JSON line for each row to stdout. Scores stand
with one standard error over clips; every codec and every number of steps decodes the same clips from the same noise.
Speed is seconds of audio made in a second, clip by clip, from ids to samples; it is not comparable between machines.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from codec.io.errors import UserError
from codec.io.terminal import run_program
from codec.reasoning.load import load_reasoning_codec
from codec.tokenizer import AudioTokenizer
from codec.tokens import AudioTokens
from evaluation.cache import Cache
from evaluation.items import Item, ItemBuilder
from evaluation.judges.pool import Judges
from evaluation.metrics.registry import METRICS
from evaluation.recordings import Recordings
from evaluation.runner import CodecRunner
from evaluation.scoring import Extractor, compare, score_originals
from evaluation.task import EvalTask, load_task

STEPS = (1, 2, 4, 10, 25)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", nargs="+", required=True, help="folders or hub ids of codecs with a flow decoder")
    parser.add_argument("--corpus", nargs="+", required=True, help="corpora, or folders of recordings")
    parser.add_argument("--tasks", nargs="+", default=["codec_digits", "codec_sentences"], help="names or YAML files")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--guidance", type=float, nargs="+", help="default: what each codec's configuration says")
    parser.add_argument("--limit", type=int, default=40, help="clips of each task")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processes", type=int, default=0, help="of judges (default: cores, at most 4)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    codecs = {source: load_reasoning_codec(source) for source in arguments.codec}
    tasks = [reconstruction_task(name) for name in arguments.tasks]
    if min(arguments.steps) < 1 or min(arguments.guidance or [1]) < 1 or arguments.limit < 1:
        raise UserError("--steps, --guidance and --limit must be at least 1")
    builder = ItemBuilder(Recordings(arguments.corpus))
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    with tempfile.TemporaryDirectory() as folder, Judges(cache := Cache(folder), arguments.processes) as judges:
        extractor = Extractor(judges, builder.store.clips)
        runners = {source: CodecRunner(codec, cache) for source, codec in codecs.items()}
        for task in tasks:
            rows = []
            items = builder.items(task, 0, arguments.limit)
            for row in measure(task, items, runners, extractor, arguments.steps, arguments.guidance):
                print(json.dumps(row | {"threads": arguments.threads}), flush=True)
                rows.append(row)
            console.print(table(task, rows))
    return 0


def measure(
    task: EvalTask,
    items: Sequence[Item],
    runners: dict[str, CodecRunner],
    extractor: Extractor,
    steps: Sequence[int],
    guidances: Sequence[float] | None,
) -> Iterator[dict]:
    """One row for the originals and one for every codec, guidance and number of steps.

    Args:
        task: A reconstruction task.
        items: Its clips.
        runners: The codecs by name.
        extractor: Reads predictions out of waveforms.
        steps: Numbers of steps.
        guidances: None for each codec's own.
    """
    originals = {score.name: score_originals(task, score, items, extractor) for score in task.scores}
    row = {"task": task.task, "codec": "originals", "clips": len(items)}
    yield row | {name: asdict(prediction.estimate) for name, prediction in originals.items() if prediction}
    for source, runner in runners.items():
        codec, answers = runner.codec, runner.encode(items)
        codec.decode([answers[0].tokens], steps=1)  # the first call of a process is slow
        for guidance in guidances or [codec.config.decode_guidance]:
            for count in steps:
                decoded = Decoded(codec, [answer.tokens for answer in answers], count, guidance)
                scores = {
                    score.name: asdict(
                        compare(
                            task, score, items, extractor.from_waveforms(task, score, decoded.waveforms), extractor
                        ).estimate
                    )
                    for score in task.scores
                }
                settings = {"codec": source, "guidance": guidance, "steps": count}
                speed = {"audio_seconds_per_second": round(decoded.seconds_per_second, 2)}
                yield row | settings | scores | speed


class Decoded:
    """The waveforms of all clips, decoded once with the same settings, in the order of their tokens."""

    def __init__(
        self,
        codec: AudioTokenizer,
        tokens: Sequence[AudioTokens],
        steps: int | None,
        guidance: float | None,
    ) -> None:
        start = time.perf_counter()
        made = [codec.decode([clip], steps=steps, guidance=guidance, seed=0)[0] for clip in tokens]
        seconds = sum(clip.num_samples for clip in tokens) / codec.sample_rate
        self.seconds_per_second = seconds / (time.perf_counter() - start)
        # Rounded to 16 bits, as in the suite: its scores of the same clips are the same.
        self.waveforms = [(np.clip(x.numpy(), -1, 1) * 32767).round().astype(np.float32) / 32768 for x in made]


def reconstruction_task(name: str) -> EvalTask:
    """A task by name or YAML file. Raises UserError for one that asks a model."""
    task = load_task(name)
    if not task.is_reconstruction:
        raise UserError(f"the task '{name}' asks a model, not a codec; name tasks that ask for a reconstruction")
    return task


def table(task: EvalTask, rows: Sequence[dict]) -> Table:
    """All rows of a task; percentages where the metric is one."""
    shown = Table("codec", "guidance", "steps", title=f"{task.title}, {rows[0]['clips']} clips")
    for score in task.scores:
        shown.add_column(f"{score.name} {METRICS[score.metric].unit}".strip(), justify="right")
    shown.add_column("audio s/s", justify="right")
    for row in rows:
        cells = [row["codec"], str(row.get("guidance", "")), str(row.get("steps", ""))]
        cells += [figure(row.get(score.name), METRICS[score.metric].percent) for score in task.scores]
        shown.add_row(*cells, str(row.get("audio_seconds_per_second", "")))
    return shown


def figure(estimate: dict | None, percent: bool) -> str:
    if estimate is None or estimate["value"] is None:
        return ""
    scale, digits = (100, 1) if percent else (1, 2)
    error = "" if estimate["stderr"] is None else f" ± {scale * estimate['stderr']:.{digits}f}"
    return f"{scale * estimate['value']:.{digits}f}{error}"


if __name__ == "__main__":
    run_program("decode_steps", main)
