"""A whole training step of the language model, optimiser and DeepSpeed included. One JSON line per case and ZeRO stage.

    python benchmarks/lm_train_step.py --size mid --precision mixed --threads 4
    torchrun --nproc-per-node 8 benchmarks/lm_train_step.py --size 3b --precision bf16 --zero 1 2 3 --peak-flops 989e12

    full, full_checkpointing    everything learns, as in stage 4
    lora, lora_checkpointing    only low-rank differences of all layers learn, as in recipes/full/finetune_lora.yaml

The step is that of training/lm/train_lm.py: TrainingModule, Engine, losses and accuracies; on a CPU with the attention
it takes there. What is not in it: drawing sentences from a store, the metrics log, checkpoints. A micro-batch is
`--batch` packed sequences of the size's context (tiny 128, mid 512, 3b 2,048 rows); each process has `--micro-batches`
of them in a step. Rows are drawn at random (seeded, see lm_workload.py), weights are random, and every step sees the
same rows.

A step takes as long as in its slowest process. rows_per_s counts the rows of sentences over all processes, never
padding: of the median step, and the spread (smallest and largest) over `--repeats` steps after one to warm up. peak_mib
is the memory of the accelerator, or without one of the process, in the process that needs most; rest_mib what it held
before the first step: weights, and what DeepSpeed makes of them, but with ZeRO 0 neither gradients nor the optimiser's
state. What the allocator keeps of one case counts in the next: for exact peaks on a CPU run one case in a command.

With --peak-flops P, of the device of one process, mfu = flop / (seconds * processes * P): model FLOP, so what
activation checkpointing computes a second time earns nothing. flop is of the step, over all processes, by the formula
of `Demand.flop` in lm_workload.py, with c = 6 for weights that learn and 4 for those frozen under LoRA, which need no
gradient of their own:
    c * (rows * W + text targets * W_text + audio targets * W_audio) + 12 * width * layers * pairs

Size 3b is for accelerators; without one nothing is measured, the line says so, and the exit status is 1. Not comparable
between machines.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from dataclasses import asdict, replace
from typing import get_args

import torch
import transformers
from lm_generate import machine, peak_mib, reset_peak
from lm_workload import WORKLOADS, Demand, Workload, draw_sentences, pack

from auditory_sentences.stream.packing import PackedBatch
from codec.io.errors import UserError
from codec.io.terminal import run_program
from lm.lean_layers import make_lean
from training.engine import processes
from training.engine.engine import Engine
from training.engine.precision import Precision
from training.engine.processes import deepspeed
from training.lm.lora import GroupLoraRecipe
from training.lm.recipe import LanguageModelRecipe
from training.lm.stages import LossRecipe, TrainingModule, freeze_for_stage
from training.lm.train_lm import global_counts, micro_batch_losses
from training.recipe import EngineRecipe

CASES = ("full", "full_checkpointing", "lora", "lora_checkpointing")
ADAPTED = ("understanding", "cross_modal", "generation", "depth")  # as in recipes/full/finetune_lora.yaml
LOSS = LossRecipe(text=1.6, audio=1.0, streams=(0.25,) * 3 + (0.125,) * 5)


def recipe_of(case: str, lora_rank: int, engine: EngineRecipe, steps: int, batch: int = 1) -> LanguageModelRecipe:
    """That of a stage 4 which trains what the case says."""
    lora = GroupLoraRecipe(rank=lora_rank, groups=ADAPTED, freeze_rest=True) if case.startswith("lora") else None
    return LanguageModelRecipe(
        out="nowhere",
        store="random rows",
        init="random weights",
        mixture={"asr": 1.0},
        stage=4,
        loss=LOSS,
        batch=batch,
        steps=steps,
        lora=lora,
        engine=replace(engine, activation_checkpointing=case.endswith("_checkpointing")),
    )


def draw_batch(workload: Workload, count: int) -> PackedBatch:
    """As many packed sequences of the size's context as asked for; the same on every process."""
    sentences = draw_sentences(replace(workload, rows=count * workload.context))
    batch = pack(sentences, workload.context, workload.model.layout)  # at least as many as asked for
    parts = (part[:count] for part in (batch.ids, batch.mask, batch.loss, batch.position_ids))
    return PackedBatch(*parts, cursor=0, names=[f"sequence {i}" for i in range(count)])


class TrainingSteps:
    """A fresh model that learns as the recipe says, update after update on the same micro-batches."""

    def __init__(self, workload: Workload, recipe: LanguageModelRecipe) -> None:
        self.recipe = recipe
        processes.join()
        with processes.device():  # large weights are drawn where they will be used
            model = workload.model.build()
        freeze_for_stage(model, recipe.stage, recipe.lora)
        if processes.device().type == "cpu":
            make_lean(model)
        size = recipe.batch
        batch = draw_batch(workload, size * recipe.engine.micro_batches)
        self.demand = Demand.of(batch)
        # Counted before ZeRO takes the parameters apart.
        self.flop = self.demand.flop(model)
        self.parameters = sum(p.numel() for p in model.parameters())
        self.trained_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.mine = [
            PackedBatch(*(part[i : i + size] for part in batch[:4]), cursor=0, names=batch.names[i : i + size])
            for i in range(processes.rank() * size, len(batch.names), processes.world_size() * size)
        ]
        learner = TrainingModule(model, recipe.loss)
        self.engine = Engine(learner, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed)
        learner.train()

    def run(self) -> float:
        """One update, the loop of training/lm/train_lm.py; seconds until all processes are done. Collective."""
        processes.barrier()
        start = _clock()
        counts = global_counts(self.mine)
        for batch, _ in zip(self.mine, self.engine.micro_batches(self.engine.steps_done + 1), strict=True):
            losses = micro_batch_losses(self.engine, batch, counts, self.recipe)
            self.engine.backward(losses["loss"], names=batch.names)
            self.engine.record(**losses)
        self.engine.step()
        return max(processes.gather(_clock() - start))

    def close(self) -> None:
        """Give back what DeepSpeed's hooks would keep."""
        self.engine.deepspeed.destroy()
        del self.engine
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def measure(workload: Workload, recipe: LanguageModelRecipe, peak_flops: float | None) -> dict:
    """What one case takes and does. Collective."""
    steps, device = TrainingSteps(workload, recipe), processes.device()
    reset_peak(device)
    rest = peak_mib(device)
    steps.run()
    losses = [steps.engine.metrics()["loss"]]
    seconds = [steps.run() for _ in range(recipe.steps - 1)]
    losses.append(steps.engine.metrics()["loss"])
    typical, rows = statistics.median(seconds), steps.demand.rows
    line = {
        "rows_per_s": round(rows / typical, 2),
        "rows_per_s_spread": [round(rows / max(seconds), 2), round(rows / min(seconds), 2)],
        "seconds_per_step": round(typical, 4),
        "peak_mib": round(max(processes.gather(peak_mib(device)))),
        "rest_mib": round(max(processes.gather(rest))),
        "parameters": steps.parameters,
        "trained_parameters": steps.trained_parameters,
        "losses": [round(loss, 4) for loss in losses],  # of the first and the last step
        "batch": [recipe.engine.micro_batches, recipe.batch, workload.context],
        **asdict(steps.demand),
        "flop": steps.flop,
    }
    if peak_flops:
        available = processes.world_size() * peak_flops
        line["mfu"] = round(steps.flop / (typical * available), 4)
        line["mfu_formula"] = "flop / (seconds_per_step * processes * peak_flops)"
        line["peak_flops"] = peak_flops
    steps.close()
    return line


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=WORKLOADS, default="mid")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="default: all")
    parser.add_argument("--zero", nargs="*", type=int, choices=range(4), default=[0], help="ZeRO stages; default: 0")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="as a recipe has it")
    parser.add_argument("--micro-batches", type=int, default=4, help="of a process in a step")
    parser.add_argument("--batch", type=int, default=1, help="packed sequences of a micro-batch")
    parser.add_argument("--lora-rank", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of a process")
    parser.add_argument("--peak-flops", type=float, help="peak FLOP/s of the device of one process; adds mfu")
    options = parser.parse_args()
    if min(options.repeats, options.micro_batches, options.batch, options.threads) < 1:
        parser.error("--repeats, --micro-batches, --batch and --threads must be at least 1")
    micro_batches = options.micro_batches * processes.world_size()
    try:
        recipes = []  # all of them before anything is computed, so that a bad one is refused at once
        for case in options.cases:
            for zero in options.zero:
                engine = EngineRecipe(micro_batches=micro_batches, zero_stage=zero, precision=options.precision)
                recipes.append((case, recipe_of(case, options.lora_rank, engine, options.repeats + 1, options.batch)))
    except UserError as error:
        parser.error(str(error))

    if options.size == "3b" and not torch.cuda.is_available():
        if processes.rank() == 0:
            why = "not measured: torch finds no accelerator on this machine"
            print(json.dumps({"size": options.size, "measured": False, "why": why}))
        return 1
    torch.set_num_threads(options.threads)
    processes.join()
    common = {
        "size": options.size,
        "precision": options.precision,
        "processes": processes.world_size(),
        "threads": options.threads,
        "machine": machine(processes.device()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "deepspeed": deepspeed.__version__,
        "python": platform.python_version(),
    }
    for case, recipe in recipes:
        line = {"case": case, "zero": recipe.engine.zero_stage}
        line |= measure(WORKLOADS[options.size], recipe, options.peak_flops) | common
        if processes.rank() == 0:
            print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    run_program("lm_train_step", main)
