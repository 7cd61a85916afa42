"""Training side of the language model: what four ways of saving memory and time are worth. One JSON line per case.

    python benchmarks/lm_train.py --size mid --threads 4

Each case runs one step (forward and backward, no optimiser) of our model and of the straightforward way to write the
same thing, on the same rows and from the same weights:

    embeddings     eight embeddings summed on the fly | gathered as (B, T, 8, d) and summed
    cross_entropy  in chunks, gradients on the way forward | all logits, then F.cross_entropy
    depth_decoder  on rows whose target is audio | on every row, the others with weight 0
    packing        sentences end to end, block-diagonal attention | one sentence per entry, padded to the longest
    all            everything at once | everything at once

Ours and the straightforward version each have a process of their own, so that the peak memory is honest; their steps
alternate, so that a disturbance of the machine hits both alike. rows_per_s counts the rows of sentences, never padding:
the median and the spread (smallest and largest) over `--repeats` steps after one to warm up. peak_mib is that of the
process, rest_mib what it held before its first step: interpreter, libraries and weights, but no gradients.
The rows are drawn at random (seeded): transcription, speech, captions and text alone.

With --peak-flops P, mfu = FLOP of the step / (seconds * P), by the formula of `Demand.flop` in lm_workload.py, where
everything learns here:
    FLOP = 6 * (rows * W + text targets * W_text + audio targets * W_audio) + 12 * width * layers * pairs
It is what the model asks for, the same for both versions, so wasted work lowers it.

Exits with 1 where loss or gradients of a case differ: loss by more than 1e-5, norm of the gradients by more than 1e-4,
both relative. Seconds are not comparable between machines.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import sys
import time
from dataclasses import asdict
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
import transformers
from lm_generate import machine, peak_mib
from lm_workload import WORKLOADS, Batch, Demand, Workload, draw_sentences, pack
from torch import Tensor
from transformers.masking_utils import create_causal_mask

from lm.losses import LossSettings, cross_entropy, select_targets
from lm.model import UniAudioForConditionalGeneration
from lm.rows import Rows, collate
from lm.vocabulary import VocabularyLayout

SIZES = {name: WORKLOADS[name] for name in ("tiny", "mid")}
SWITCHES = ("embeddings", "cross_entropy", "depth_decoder", "packing")
CASES = {switch: frozenset({switch}) for switch in SWITCHES} | {"all": frozenset(SWITCHES)}
VERSIONS = ("ours", "straightforward")
TOLERANCE = {"loss": 1e-5, "gradient_norm": 1e-4}


def pad(sentences: list[Rows], layout: VocabularyLayout) -> Batch:
    """A sentence per entry."""
    rows = collate(sentences, layout)
    return Batch(rows.ids, rows.mask, rows.loss, None)


# --- the straightforward version ---


def straightforward_loss(model: UniAudioForConditionalGeneration, batch: Batch, plain: frozenset[str]) -> Tensor:
    """The loss of `model.forward`, with the steps named in `plain` as one would write them first."""
    positions = None if batch.position_ids is None else batch.position_ids[:, :-1]
    vectors = gathered_final_vectors if "embeddings" in plain else UniAudioForConditionalGeneration.last_hidden_state
    final = vectors(model, batch.ids[:, :-1], batch.mask[:, :-1], positions).flatten(0, 1)  # (R, d)
    is_text, is_audio, weight = select_targets(batch.mask, batch.loss, batch.position_ids)
    targets = batch.ids[:, 1:].flatten(0, 1)  # (R, 9)
    sums = full_cross_entropy if "cross_entropy" in plain else chunked_cross_entropy

    text_weight, audio_weight = (weight * is_text).flatten(), (weight * is_audio).flatten()  # (R,)
    chosen = text_weight.nonzero()[:, 0]
    heads = model.lm_head.weight.T[None]
    text = sums(final[chosen][:, None], heads, targets[chosen, -1:], text_weight[chosen]).sum()

    # The depth decoder spells out text rows too: their audio columns hold ids, and weight 0 hides the result.
    chosen = torch.arange(len(final)) if "depth_decoder" in plain else audio_weight.nonzero()[:, 0]
    frames = targets[chosen, :-1]  # (N, 8)
    states = model.depth_hidden_states(final[chosen], frames)  # (N, 8, d_depth)
    streams = sums(states, model.audio_head, frames, audio_weight[chosen])  # (8,)

    settings = LossSettings()
    audio = (streams * streams.new_tensor(settings.weights_of(len(streams)))).sum() / is_audio.sum()
    return settings.text_weight * text / text_weight.sum() + settings.audio_weight * audio


def gathered_final_vectors(
    model: UniAudioForConditionalGeneration, ids: Tensor, mask: Tensor, position_ids: Tensor | None
) -> Tensor:
    """`last_hidden_state`, from the eight embeddings of every row, masked and summed."""
    audio_gate, text_gate = mask[..., :1], mask[..., -1:]  # (B, S, 1)
    if position_ids is None:
        position_ids = torch.arange(ids.shape[1])[None]
    gathered = model.audio_embeddings(ids[..., :-1] + model.codebook_offsets)  # (B, S, 8, d)
    audio = (gathered * mask[..., :-1, None]).sum(-2)  # (B, S, d)
    text = model.cross_modal.embed_tokens(ids[..., -1])
    causal = create_causal_mask(model.config.cross_modal, text, None, None, position_ids)

    def run(group: torch.nn.Module, vectors: Tensor) -> Tensor:
        return group(
            inputs_embeds=vectors, attention_mask=causal, position_ids=position_ids, use_cache=False
        ).last_hidden_state

    understood = run(model.understanding, audio)
    hidden = run(model.cross_modal, understood * audio_gate + text * text_gate)
    return run(model.generation, hidden * audio_gate) * audio_gate + hidden * text_gate


def chunked_cross_entropy(hidden: Tensor, heads: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return cross_entropy(hidden, heads, targets, weights)[0]


def full_cross_entropy(hidden: Tensor, heads: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """hidden (N, C, d), heads (C, d, V), targets (N, C), weights (N,) -> weighted sums (C,), all logits at once."""
    logits = torch.einsum("ncd,cdv->ncv", hidden, heads)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    return (losses * weights[:, None]).sum(0)


# --- one version of one case, in a process of its own ---


class Step:
    """Forward and backward of one version of a case; `plain` names what is written straightforwardly, None is ours."""

    def __init__(self, workload: Workload, plain: frozenset[str] | None):
        self.model, self.plain = workload.model.build().train(), plain
        self.sentences, layout = draw_sentences(workload), workload.model.layout
        self.packed = pack(self.sentences, workload.context, layout)
        self.batch = self.packed
        if plain is not None and "packing" in plain:
            self.batch = pad(self.sentences, layout)

    def run(self) -> tuple[float, float]:
        """Loss and seconds. Gradients are left in the model."""
        self.model.zero_grad(set_to_none=True)
        start = time.perf_counter()
        if self.plain is None:
            loss = self.model(self.batch.ids, self.batch.mask, self.batch.loss, self.batch.position_ids).loss
        else:
            loss = straightforward_loss(self.model, self.batch, self.plain)
        loss.backward()
        return loss.item(), time.perf_counter() - start

    def gradient_norm(self) -> float:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients])).item()

    def facts(self) -> dict:
        """What there is to do, whoever does it, and how much larger the batch is than its sentences."""
        demand = Demand.of(self.packed)
        return asdict(demand) | {"batch": list(self.batch.loss.shape), "flop": demand.flop(self.model)}


def serve(connection: Connection, workload: Workload, plain: frozenset[str] | None, threads: int) -> None:
    """Warm up and say what was found; then a step for every message, and the peak memory at the end."""
    torch.set_num_threads(threads)
    step = Step(workload, plain)
    rest = peak_mib(torch.device("cpu"))
    loss, _ = step.run()
    found = {"loss": loss, "gradient_norm": step.gradient_norm(), "rest_mib": round(rest)}
    connection.send((found, step.facts()))
    while connection.recv():
        connection.send(step.run()[1])
    connection.send(round(peak_mib(torch.device("cpu"))))


def measure(case: str, workload: Workload, repeats: int, threads: int, peak_flops: float | None) -> dict:
    """The line of one case."""
    # Forked from a server that has imported the libraries and computed nothing: quick to start, and none inherits the
    # memory of another.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers.models.llama.modeling_llama"])
    ends, processes, found, facts = {}, [], {}, {}
    for version in VERSIONS:
        ends[version], theirs = context.Pipe()
        plain = None if version == "ours" else CASES[case]
        processes.append(context.Process(target=serve, args=(theirs, workload, plain, threads), daemon=True))
        processes[-1].start()
        theirs.close()  # so that the death of the process ends the wait for it
        found[version], facts[version] = ends[version].recv()
    seconds: dict[str, list[float]] = {version: [] for version in VERSIONS}
    for repeat in range(repeats):
        for version in VERSIONS[:: 1 if repeat % 2 == 0 else -1]:
            ends[version].send(True)
            seconds[version].append(ends[version].recv())

    line: dict = {"case": case}
    for version in VERSIONS:
        ends[version].send(False)
        speeds = [facts[version]["rows"] / taken for taken in seconds[version]]
        line[version] = {
            "rows_per_s": round(statistics.median(speeds), 2),
            "rows_per_s_spread": [round(min(speeds), 2), round(max(speeds), 2)],
            "peak_mib": ends[version].recv(),
            **found[version],
            "batch": facts[version].pop("batch"),
        }
        if peak_flops:
            flop_per_row = facts[version]["flop"] / facts[version]["rows"]
            line[version]["mfu"] = round(flop_per_row * statistics.median(speeds) / peak_flops, 4)
    for process in processes:
        process.join()
    line["speed_ratio"] = round(line["ours"]["rows_per_s"] / line["straightforward"]["rows_per_s"], 3)
    return line | facts["ours"]


def disagreements(line: dict) -> list[str]:
    """What differs between ours and the straightforward version, in words."""
    found = []
    for name, tolerance in TOLERANCE.items():
        ours, other = (line[version][name] for version in VERSIONS)
        if not abs(ours - other) <= tolerance * abs(other):  # not a number is a difference too
            found.append(f"{line['case']}: {name} {ours} differs from {other}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="mid")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak-flops", type=float, help="peak FLOP/s of the machine in float32; adds mfu to the lines")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")

    common = {
        "size": options.size,
        "machine": machine(torch.device("cpu")),
        "threads": options.threads,
        "dtype": "float32",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    failures = []
    for case in options.cases:
        line = measure(case, SIZES[options.size], options.repeats, options.threads, options.peak_flops)
        print(json.dumps(line | common), flush=True)
        failures += disagreements(line)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
