"""What a GPU gives, in one run of at most nine minutes: checks, generation, training, codec. JSON lines and one page.

    benchmarks/gpu_wheels.sh WHEELS     # beforehand, where there is a network
    benchmarks/gpu.sh OUT WHEELS        # there: installs them, and runs this file

Each step is one of the other benchmarks in a process of its own with a limit of its own; what a step printed before it
was stopped counts. OUT gets lines.jsonl, the output of every step, and a page named by card and date. Without a GPU
nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
BF16_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense, of a card whose name has this word
# What a line is known by, and the numbers of it that the page shows, where it has them.
NAMES = ("step", "case", "seconds", "batch", "dtype", "zero", "precision")
FIGURES = (
    "rows_per_s", "rtf", "share_of_bandwidth", "mfu", "seconds_per_step", "audio_seconds_per_second",
    "hours_an_hour", "busy", "peak_mib",
)  # fmt: skip


class Step(NamedTuple):
    """One benchmark."""

    # on the page
    name: str
    # arguments of Python
    arguments: Sequence[str]
    # seconds after which it is stopped
    limit: float


class Outcome(NamedTuple):
    """What became of a step."""

    # which
    step: Step
    # its exit status; None where it was stopped
    status: int | None
    # seconds that it took
    seconds: float
    # its JSON lines
    lines: Sequence[Mapping[str, object]]
    # the last lines of the rest that it printed
    tail: str


def steps(card: str) -> list[Step]:
    """All of them, the longest limits 500 s together."""
    peak = next((str(flops) for word, flops in BF16_FLOPS.items() if word in card), None)
    mfu = ["--peak-flops", peak] if peak else []
    generate = ["benchmarks/lm_generate.py", *"--size 3b --dtype bfloat16 --device cuda --repeats 3".split()]
    train = ["benchmarks/lm_train_step.py", "--repeats", "3"]
    codec = ["benchmarks/codec_speed.py", *"--size full --device cuda --seconds 2 20 --repeats 3".split()]
    checks = ["tests/training/engine/test_precision.py", "tests/training/engine/test_engine.py", "tests/lm/generation"]
    return [
        Step("checks", ["-m", "pytest", "-q", "-x", "--no-header", "--device", "cuda", *checks], 90),
        Step("generation", [*generate, "--cases", "audio_batch1", "audio_batch16", "text_batch1", "prefill_512"], 80),
        Step("generation, other steps", [*generate, *"--steps plain compiled --cases plain compiled".split()], 90),
        Step(
            "training",
            [
                *train,
                *"--size 3b --precision bf16 --zero 1 --cases full lora --micro-batches 1 --batch 4".split(),
                *mfu,
            ],
            110,
        ),
        Step("training, small", [*train, *"--size mid --precision mixed --cases full".split()], 30),
        Step("codec", [*codec, "--dtype", "float32", "bfloat16", "--budget", "15"], 60),
        Step("token store", ["benchmarks/tokenise.py", *"--size full --device cuda --minutes 30".split()], 40),
    ]


def run(step: Step, out: Path) -> Outcome:
    """Run a step to its end or its limit; its output goes to a file in `out`."""
    path = out / f"{re.sub('[^a-z]+', '_', step.name)}.txt"
    began = time.monotonic()
    with path.open("w", encoding="utf-8") as file:
        try:
            status: int | None = subprocess.run(
                [sys.executable, *step.arguments], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=step.limit,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            status = None
    said = path.read_text(encoding="utf-8", errors="replace").splitlines()
    lines, rest = [], []
    for line in said:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if isinstance(found, dict):
            lines.append({"step": step.name, **found})
        elif line.strip():
            rest.append(line)
    return Outcome(step, status, time.monotonic() - began, lines, "\n".join(rest[-3:]))


def page(card: str, versions: Mapping[str, str], outcomes: Sequence[Outcome]) -> str:
    """Markdown: what became of each step, then the figures of every line."""
    made = [f"# {card}, {datetime.now(UTC):%Y-%m-%d}", "", ", ".join(f"{k} {v}" for k, v in versions.items()), ""]
    made += ["| step | ended | seconds | lines |", "|---|---|--:|--:|"]
    for outcome in outcomes:
        ended = {None: "stopped at its limit", 0: "well"}.get(outcome.status, f"with status {outcome.status}")
        made.append(f"| {outcome.step.name} | {ended} | {outcome.seconds:.0f} | {len(outcome.lines)} |")
    lines = [line for outcome in outcomes for line in outcome.lines]
    names, figures = ([key for key in keys if any(key in line for line in lines)] for keys in (NAMES, FIGURES))
    if lines:
        made += ["", f"| {' | '.join([*names, *figures])} |", f"|{'---|' * len(names)}{'--:|' * len(figures)}"]
        made += [f"| {' | '.join(str(line.get(key, '')) for key in [*names, *figures])} |" for line in lines]
    for outcome in outcomes:
        if outcome.status != 0 and outcome.tail:
            made += ["", f"The end of {outcome.step.name}:", "", "```", outcome.tail, "```"]
    return "\n".join(made) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for what is measured")
    options = parser.parse_args()
    import torch
    import transformers

    if not torch.cuda.is_available():
        print(json.dumps({"measured": False, "why": "not measured: torch finds no accelerator on this machine"}))
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name()
    versions = {"torch": torch.__version__, "CUDA": str(torch.version.cuda), "transformers": transformers.__version__}
    outcomes: list[Outcome] = []
    name = f"{re.sub('[^a-z0-9]+', '-', card.lower()).strip('-')}-{datetime.now(UTC):%Y-%m-%d}.md"
    for step in steps(card):
        print(f"{step.name} ...", flush=True)
        outcomes.append(run(step, options.out))
        # After every step: a machine may be taken away.
        lines = (json.dumps(line) + "\n" for outcome in outcomes for line in outcome.lines)
        (options.out / "lines.jsonl").write_text("".join(lines), encoding="utf-8")
        (options.out / name).write_text(page(card, versions, outcomes), encoding="utf-8")
    print(options.out / name)
    return 0 if all(outcome.status == 0 for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
