"""What each stage of a ReasoningCodec loses: the same clips rebuilt from every point of the way through it.

    python benchmarks/codec_stages.py --codec starter/codec --corpus runs/demo/corpus
    python benchmarks/codec_stages.py --codec starter/codec --corpus SENTENCES --tasks codec_real_sentences \\
        --fit TRAINING --recogniser WHISPER

The rows, in the order of the codec: magnitudes alone, phases searched for; latents of the scalar autoencoder, as they
are, rounded, and with noise; what the flow makes of structural vectors that skip the codebooks, all or all but one
branch's; what it makes of the ids. One step without guidance is the flow's mean. Every row loses what those above lose.

With --fit, train clips of corpora, there are rows of a linear decoder: latents by ridge regression from what the
structural branch takes (expert features), from its fused branches, from what they quantise and from what comes of it.
That is the least a decoder trained on these clips should reach, and says whether the encoder lost what the flow lacks.

The tasks are those of evaluation/tasks that ask for a reconstruction. Prints a table for each to stderr, one JSON line
for each row to stdout. Scores stand with one standard error over clips.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from decode_steps import figure, reconstruction_task
from rich.console import Console
from rich.table import Table
from torch import Tensor

from auditory_sentences.corpora.read import read_corpora
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from codec.io.terminal import run_program
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.load import load_reasoning_codec
from codec.reasoning.structural_branch import BRANCHES, FEATURE_FRAMES, StructuralBranch
from codec.tokens import SAMPLE_RATE
from evaluation.cache import Cache
from evaluation.items import ItemBuilder
from evaluation.judges.pool import Judges
from evaluation.judges.whisper import Whisper
from evaluation.metrics.registry import METRICS
from evaluation.recordings import Recordings
from evaluation.scoring import Extractor, compare, score_originals
from evaluation.task import EvalTask

NOISE = (0.1, 0.2)  # deviations added to latents; the starter's autoencoder is trained with 0.1
FITTED_SECONDS = 6.0  # of a training clip, at most
_RIDGE = {"features": 1e-2}  # times the mean variance of a channel; more where there are two thousand
_RIDGE_ELSE = 1e-3

Rebuild = Callable[[Tensor], Tensor]  # (n,) -> (n,)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", required=True, help="folder or hub id of a codec with a flow decoder")
    parser.add_argument("--corpus", nargs="+", required=True, help="corpora, or folders of recordings")
    parser.add_argument("--tasks", nargs="+", default=["codec_digits", "codec_sentences"], help="names or YAML files")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4, 25], help="of the flow")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5], help="of the flow")
    parser.add_argument("--fit", nargs="+", help="corpora whose train clips the linear decoders are fitted to")
    parser.add_argument("--fit-limit", type=int, default=250, help="clips of them, at most")
    parser.add_argument("--recogniser", help="folder or hub id of a Whisper model, in the place of pocketsphinx")
    parser.add_argument("--limit", type=int, default=40, help="clips of each task")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processes", type=int, default=0, help="of judges (default: cores, at most 4)")
    arguments = parser.parse_args()
    if min(arguments.steps) < 1 or min(arguments.guidance) < 1 or min(arguments.limit, arguments.fit_limit) < 1:
        raise UserError("--steps, --guidance, --limit and --fit-limit must be at least 1")
    torch.set_num_threads(arguments.threads)
    stages = Stages(load_reasoning_codec(arguments.codec))
    tasks = [reconstruction_task(name) for name in arguments.tasks]
    ways = dict(stages.ways(arguments.steps, arguments.guidance))
    if arguments.fit:
        ways |= stages.fitted(training_clips(arguments.fit, arguments.fit_limit))
    whisper = Whisper(arguments.recogniser) if arguments.recogniser else None
    builder = ItemBuilder(Recordings(arguments.corpus))
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    with tempfile.TemporaryDirectory() as folder, Judges(Cache(folder), arguments.processes) as judges:
        extractor = Extractor(judges, builder.store.clips, whisper)
        for task in tasks:
            rows = []
            for row in measure(task, builder, arguments.limit, ways, extractor):
                print(json.dumps(row), flush=True)
                rows.append(row)
            console.print(table(task, rows))
    return 0


def measure(
    task: EvalTask, builder: ItemBuilder, limit: int, ways: dict[str, Rebuild], extractor: Extractor
) -> Iterator[dict]:
    """One row for the originals and one for every stage: scores of the same clips."""
    items = builder.items(task, 0, limit)
    row = {"task": task.task, "clips": len(items)}
    originals = {score.name: score_originals(task, score, items, extractor) for score in task.scores}
    yield row | {"stage": "original"} | {name: asdict(p.estimate) for name, p in originals.items() if p}
    for name, rebuild in ways.items():
        # Rounded to 16 bits, as in the suite.
        made = [rebuild(torch.from_numpy(item.recording)).clamp(-1, 1).numpy() for item in items]
        made = [(x * 32767).round().astype(np.float32) / 32768 for x in made]
        yield row | {"stage": name} | {
            score.name: asdict(
                compare(task, score, items, extractor.from_waveforms(task, score, made), extractor).estimate
            )
            for score in task.scores
        }  # fmt: skip


@dataclass(frozen=True)
class Structure:
    """A clip on its way through the structural branch."""

    # (T12, channels) of each point: expert "features", "fused" branches, what is "projected" to be quantised,
    # "quantised" vectors
    points: dict[str, Tensor]
    # name of a branch -> (T12, dim) its vectors without and with the codebooks
    free: dict[str, Tensor]
    coded: dict[str, Tensor]

    def vectors(self, quantised: Sequence[str]) -> Tensor:
        """(T12, dim), the sum of the branches, of which those named pass their codebooks."""
        return torch.stack([(self.coded if name in quantised else self.free)[name] for name in BRANCHES]).sum(0)


class Stages:
    """Ways to rebuild a clip from a stage of a codec."""

    def __init__(self, codec: ReasoningCodec) -> None:
        self.codec = codec.eval()

    def ways(self, steps: Sequence[int], guidances: Sequence[float]) -> Iterator[tuple[str, Rebuild]]:
        """(Name, way) of every stage, in the order of the codec."""
        if self.codec.scalar.spectrogram is not None:
            yield "magnitudes", self._from_magnitudes
        yield "latents", lambda x: self._from_latents(x, rounded=False)
        yield "latents, rounded", self._from_latents
        for deviation in NOISE:
            yield f"latents, noise {deviation:g}", lambda x, d=deviation: self._from_latents(x, d)
        passing = {"flow, no codebooks": ()} | {f"flow, {name} codebooks": (name,) for name in BRANCHES}
        for name, quantised in (passing | {"flow, ids": BRANCHES}).items():
            for guidance in guidances:
                for count in steps:
                    label = f"{name}, {count} steps, guidance {guidance:g}"
                    yield label, lambda x, q=quantised, n=count, g=guidance: self._through_flow(x, q, n, g)

    def fitted(self, clips: Sequence[Tensor]) -> dict[str, Rebuild]:
        """Linear decoders of each point of the structural branch, fitted to clips (n,)."""
        structures = [self.structure(x) for x in clips]
        targets = torch.cat([self._paired_latents(x, s) for x, s in zip(clips, structures, strict=True)])
        ways = {}
        for point in structures[0].points:
            inputs = torch.cat([_in_context(s.points[point]) for s in structures])
            solve = ridge(inputs, targets, _RIDGE.get(point, _RIDGE_ELSE))
            ways[f"linear, {point}"] = lambda x, p=point, solve=solve: self._sound(
                self.codec.flow.denormalise(
                    solve(_in_context(self.structure(x).points[p])).view(-1, self.codec.flow.latent_dim)
                ),
                len(x),
            )
        return ways

    @torch.no_grad()
    def structure(self, x: Tensor) -> Structure:
        """The structural branch of a clip (n,)."""
        branch = self.codec.structural
        features = self.codec.extract_features(x[None], torch.tensor([len(x)]))
        modulated = branch.modulate(branch.fuse(features.values), self.codec.encode_descriptive(features)[0])
        mask, frames = features.structural_mask, int(features.structural_mask.sum())
        taken = [features.values[name][0].T.reshape(-1, k * features.values[name].shape[1])
                 for name, k in FEATURE_FRAMES.items()]  # fmt: skip
        projected = {name: branch.quantiser[name].project_in(modulated[name]) for name in BRANCHES}
        free = {name: branch.quantiser[name].project_out(projected[name])[0, :frames] for name in BRANCHES}
        coded = {name: branch.quantiser[name](modulated[name], mask=mask)[0][0, :frames] for name in BRANCHES}
        points = {
            "features": torch.cat(taken, -1),
            "fused": torch.cat([modulated[name][0] for name in BRANCHES], -1),
            "projected": torch.cat([projected[name][0] for name in BRANCHES], -1),
            "quantised": torch.stack([coded[name] for name in BRANCHES]).sum(0),
        }
        return Structure({name: point[:frames] for name, point in points.items()}, free, coded)

    @torch.no_grad()
    def _from_magnitudes(self, x: Tensor) -> Tensor:
        scalar, lengths = self.codec.scalar, torch.tensor([len(x)])
        return scalar.waveform(scalar.signal(scalar.pad(x[None], lengths)), lengths)[0, : len(x)]

    @torch.no_grad()
    def _from_latents(self, x: Tensor, noise: float = 0.0, rounded: bool = True) -> Tensor:
        scalar, lengths = self.codec.scalar, torch.tensor([len(x)])
        latents = scalar.encode(x[None], lengths)
        latents = latents + noise * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        if rounded:
            return self._sound(latents[0].T, len(x))
        return scalar.waveform(scalar.decode_signal(latents, -(-lengths // scalar.config.samples_per_frame)), lengths)[
            0, : len(x)
        ]

    @torch.no_grad()
    def _through_flow(self, x: Tensor, quantised: Sequence[str], steps: int, guidance: float) -> Tensor:
        vectors = self.structure(x).vectors(quantised)
        decoder = replace(self.codec.decoder, structural=_Given(self.codec.structural, vectors))
        ids = torch.arange(len(vectors)).expand(self.codec.streams[-1].codebooks, -1)
        return self._sound(decoder.latents([ids], [len(x)], [0], steps, guidance)[0], len(x))

    @torch.no_grad()
    def _sound(self, latents: Tensor, num_samples: int) -> Tensor:
        """Latents (T25 or more, latent_dim) -> (num_samples,)."""
        return self.codec.decoder.waveform(latents[: -(-num_samples // self.codec.scalar.config.samples_per_frame)],
                                           num_samples)  # fmt: skip

    @torch.no_grad()
    def _paired_latents(self, x: Tensor, structure: Structure) -> Tensor:
        """(T12, 2 latent_dim) normalised latents of a clip, of each structural frame."""
        latents = self.codec.flow.normalise(self.codec.scalar.encode(x[None])[0].T)
        frames = len(structure.points["quantised"])
        return F.pad(latents, (0, 0, 0, 2 * frames - len(latents))).reshape(frames, -1)


class _Given:
    """Stands for a structural branch in a Decoder: an id is the place of its frame among given vectors (T12, dim)."""

    def __init__(self, branch: StructuralBranch, vectors: Tensor) -> None:
        self._vectors, self.condition, self.no_condition = vectors, branch.condition, branch.no_condition

    def dequantise(self, ids: Tensor) -> Tensor:
        """ids (B, T12, 8), -1 beyond a clip -> (B, T12, dim)."""
        return self._vectors[ids[..., 0].clamp(min=0)] * (ids[..., :1] >= 0)


def ridge(inputs: Tensor, targets: Tensor, strength: float) -> Callable[[Tensor], Tensor]:
    """Affine map from (N, ins) to (N, outs) by ridge regression, strength in mean variances of an input."""
    centre, offset = inputs.mean(0), targets.mean(0)
    x = (inputs - centre).double()
    gram = x.T @ x
    gram.diagonal().add_(strength * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, x.T @ (targets - offset).double()).float()
    return lambda rows: (rows - centre) @ weight + offset


def training_clips(corpora: Sequence[str], limit: int) -> list[Tensor]:
    """The first seconds of train clips, evenly chosen. Raises UserError where there are none."""
    clips = [clip for clip in read_corpora(corpora) if clip.split == "train"]
    if not clips:
        raise UserError(
            f"{', '.join(map(str, corpora))}: no clip in split 'train'; give corpora that have some to --fit"
        )
    chosen = clips[:: -(-len(clips) // limit)]
    return [load_audio(clip.path)[: round(FITTED_SECONDS * SAMPLE_RATE)] for clip in chosen]


def table(task: EvalTask, rows: Sequence[dict]) -> Table:
    """All rows of a task; percentages where the metric is one."""
    shown = Table("stage", title=f"{task.title}, {rows[0]['clips']} clips")
    for score in task.scores:
        shown.add_column(f"{score.name} {METRICS[score.metric].unit}".strip(), justify="right")
    for row in rows:
        shown.add_row(row["stage"], *(figure(row.get(s.name), METRICS[s.metric].percent) for s in task.scores))
    return shown


def _in_context(points: Tensor) -> Tensor:
    """(T, channels) -> (T, 3 channels): each frame between its neighbours, zeros beyond the ends."""
    padded = F.pad(points, (0, 0, 1, 1))
    return torch.cat([padded[i : i + len(points)] for i in range(3)], dim=1)


if __name__ == "__main__":
    run_program("codec_stages", main)
