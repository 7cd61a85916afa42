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

With --peak-flops P, mfu = FLOP of the step / (seconds * P), where
    FLOP = 6 * (rows * W + text targets * W_text + audio targets * W_audio) + 12 * width * layers * pairs
W are the weights of all layers but the depth decoder's, W_text those of the text head, W_audio those of the audio heads
plus eight times the depth decoder's; layers of the row transformers; pairs of rows that see each other, n (n + 1) / 2
in a sentence of n rows. Attention inside the depth decoder (eight positions) is left out. It is what the model asks
for, the same for both versions, so wasted work lowers it.

Exits with 1 where loss or gradients of a case differ: loss by more than 1e-5, norm of the gradients by more than 1e-4,
both relative. Seconds are not comparable between machines.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import random
import statistics
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
import transformers
from lm_generate import SIZES as GENERATION_SIZES
from lm_generate import Size, machine, peak_mib
from torch import Tensor
from transformers.masking_utils import create_causal_mask

from auditory_sentences.packing import best_fit
from lm.losses import LossSettings, cross_entropy, select_targets
from lm.model import UniAudioForConditionalGeneration
from lm.rows import (
    Rows,
    audio_rows,
    collate,
    concatenate,
    descriptive_frames_in_rows,
    structural_frames_in_rows,
    text_rows,
)
from lm.vocabulary import VocabularyLayout

SWITCHES = ("embeddings", "cross_entropy", "depth_decoder", "packing")
CASES = {switch: frozenset({switch}) for switch in SWITCHES} | {"all": frozenset(SWITCHES)}
VERSIONS = ("ours", "straightforward")
TOLERANCE = {"loss": 1e-5, "gradient_norm": 1e-4}


@dataclass(frozen=True)
class Workload:
    """A model and how much of what it is fed: rows in a packed entry, rows of sentences in all, seconds of a clip."""

    model: Size
    context: int
    rows: int
    clip_seconds: tuple[float, float]


SIZES = {
    "tiny": Workload(Size((32, 2, 4, 2, 64), (16, 2, 4, 2, 32), (2, 1), (12, 20), 50), 128, 400, (0.5, 2.0)),
    "mid": Workload(GENERATION_SIZES["mid"], 512, 2048, (1.0, 20.0)),
}


@dataclass(frozen=True)
class Batch:
    """Inputs of a step: (B, T, 9), (B, T, 9), (B, T) and, where sentences are packed, positions (B, T)."""

    ids: Tensor
    mask: Tensor
    loss: Tensor
    position_ids: Tensor | None


# --- the rows ---


def draw_sentences(workload: Workload, seed: int = 0) -> list[Rows]:
    """Sentences of `workload.rows` rows or a little more, none longer than the context.

    Of ten sentences four transcribe, three speak, two caption and one is text alone: by rows, most of it is audio.
    """
    draw = random.Random(seed)
    layout = workload.model.layout
    sentences: list[Rows] = []
    while sum(map(len, sentences)) < workload.rows:
        low, high = workload.clip_seconds
        seconds = low * (high / low) ** draw.random()  # short clips are the common ones
        words = max(3, round(4 * seconds))  # text ids: speech has about three words a second
        task = draw.choices(("transcribe", "speak", "caption", "text"), (4, 3, 2, 1))[0]
        if task == "transcribe":
            parts = [_text(draw, 8, layout), _clip(draw, seconds, layout), _text(draw, words, layout, learn=True)]
        elif task == "speak":
            parts = [_text(draw, 8 + words, layout), _clip(draw, seconds, layout, learn=True)]
        elif task == "caption":
            parts = [_text(draw, 8, layout), _clip(draw, seconds, layout), _text(draw, 12, layout, learn=True)]
        else:
            parts = [_text(draw, draw.randint(16, workload.context // 2), layout, learn=True)]
        sentences.append(concatenate(parts).prefix(workload.context))
    return sentences


def _text(draw: random.Random, length: int, layout: VocabularyLayout, learn: bool = False) -> Rows:
    return text_rows([draw.randrange(9, layout.text_size) for _ in range(length)], learn)


def _clip(draw: random.Random, seconds: float, layout: VocabularyLayout, learn: bool = False) -> Rows:
    """Descriptive frames at 5 Hz, then structural ones at 12.5 Hz."""

    def codes(cards: int, rate: float) -> Tensor:
        return torch.tensor([[draw.randrange(cards) for _ in range(int(rate * seconds) + 1)] for _ in range(8)])

    low = descriptive_frames_in_rows(codes(layout.descriptive_codes, 5), layout)
    high = structural_frames_in_rows(codes(layout.structural_codes, 12.5), layout)
    return concatenate([audio_rows(low, learn), audio_rows(high, learn)])


def pack(sentences: list[Rows], context: int, layout: VocabularyLayout) -> Batch:
    """Sentences end to end in entries of `context` rows, with positions that restart."""
    packs = best_fit({i: len(rows) for i, rows in enumerate(sentences)}, context)
    rows = collate([concatenate([sentences[i] for i in members]) for members in packs], layout)
    positions = torch.zeros(rows.loss.shape, dtype=torch.int64)
    for entry, members in zip(positions, packs, strict=True):
        lengths = [len(sentences[i]) for i in members]
        lengths.append(len(entry) - sum(lengths))  # padding is a sentence of its own
        entry.copy_(torch.cat([torch.arange(length) for length in lengths]))
    return Batch(rows.ids, rows.mask, rows.loss, positions)


def pad(sentences: list[Rows], layout: VocabularyLayout) -> Batch:
    """A sentence per entry."""
    rows = collate(sentences, layout)
    return Batch(rows.ids, rows.mask, rows.loss, None)


# --- the straightforward version ---


def straightforward_loss(model: UniAudioForConditionalGeneration, batch: Batch, plain: frozenset[str]) -> Tensor:
    """The loss of `model.forward`, with the steps named in `plain` as one would write them first."""
    positions = None if batch.position_ids is None else batch.position_ids[:, :-1]
    vectors = gathered_final_vectors if "embeddings" in plain else UniAudioForConditionalGeneration.final_vectors
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
    states = model.depth_states(final[chosen], frames)  # (N, 8, d_depth)
    streams = sums(states, model.audio_head, frames, audio_weight[chosen])  # (8,)

    settings = LossSettings()
    audio = (streams * streams.new_tensor(settings.stream_weights)).sum() / is_audio.sum()
    return settings.text_weight * text / text_weight.sum() + settings.audio_weight * audio


def gathered_final_vectors(
    model: UniAudioForConditionalGeneration, ids: Tensor, mask: Tensor, position_ids: Tensor | None
) -> Tensor:
    """`final_vectors`, from the eight embeddings of every row, masked and summed."""
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
        if plain is not None and "packing" in plain:
            self.batch = pad(self.sentences, layout)
        else:
            self.batch = pack(self.sentences, workload.context, layout)

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
        targets = [select_targets(rows.mask[None], rows.loss[None], None) for rows in self.sentences]
        text = sum(int((weight * is_text > 0).sum()) for is_text, _, weight in targets)
        audio = sum(int((weight * is_audio > 0).sum()) for _, is_audio, weight in targets)
        rows = sum(map(len, self.sentences))
        return {
            "rows": rows,
            "batch": list(self.batch.loss.shape),
            "audio_share": round(sum(int(r.mask[:, 0].sum()) for r in self.sentences) / rows, 3),
            "text_targets": text,
            "audio_targets": audio,
            "flop": self._flop(rows, text, audio),
        }

    def _flop(self, rows: int, text_targets: int, audio_targets: int) -> float:
        """Floating-point operations that the model asks for in a step; the formula stands at the top of the file."""
        model = self.model

        def weights(*modules: torch.nn.Module) -> int:
            named = [(n, p) for module in modules for n, p in module.named_parameters()]
            return sum(p.numel() for n, p in named if p.ndim == 2 and "embed_tokens" not in n)

        groups = (model.understanding, model.cross_modal, model.generation)
        linear = rows * weights(*groups) + text_targets * model.lm_head.weight.numel()
        linear += audio_targets * (model.audio_head.numel() + 8 * weights(model.depth_decoder))
        shape = model.config.cross_modal
        width = shape.num_attention_heads * model.cross_modal.layers[0].self_attn.head_dim
        layers = sum(len(group.layers) for group in groups)
        pairs = sum(len(r) * (len(r) + 1) // 2 for r in self.sentences)
        return 6.0 * linear + 12.0 * width * layers * pairs


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
