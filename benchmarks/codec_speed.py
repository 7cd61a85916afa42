"""Speed of the codec: seconds of audio that it encodes and decodes in a second of computing, one JSON line per case.

    python benchmarks/codec_speed.py --codec starter/codec --threads 4
    python benchmarks/codec_speed.py --size full --threads 4 --dtype float32 bfloat16 --seconds 1 2 10 20 30 120
    python benchmarks/codec_speed.py --size full --device cuda --dtype float32 bfloat16 --seconds 2 20

`--size full` has the published flow decoder (932 M parameters), branches, codebooks and shape of the scalar
autoencoder, with random weights, and mel experts: what the published experts cost is not in it. The clips are noise.

Every case runs once to warm up and then `--repeats` times, all cases of a type in turn, so that a disturbance of the
machine hits all alike. A line holds the median and the spread (smallest and largest) over the repeats and the peak
memory of the process during the case. The lines of `decode` tell the flow from the scalar decoder. Guidance other than
1 doubles the flow's work. A case whose warm-up and repeats would take more than `--budget` seconds, judged by the
shorter ones, is left out, and its line says so.

`published_encode` and `published_decode` do with the same codec the work that the published code does for one clip,
and it takes one at a time: it encodes 60 s or more whatever the clip, in windows of 30 s, and decodes windows of 20 s,
never a shorter one, in float32 with PyTorch's own matrix product (codec/layers/fast_linear.py). Several lengths of
clips cost it the same, so the lines say how much it computes, and the rate is of that. times_published of a line
compares the time for the same clips, work_of_published the seconds of audio that are computed for them. Both stand in
for the published code and are computed on a CPU alone. They are slower than it: on two cores 20 s decode 1.33 times as
fast as the published code itself does, not 2.3.

`--dtype` is the type of the flow's estimator (`ReasoningCodec.set_decoder_dtype`); encoding has none but float32. Not
comparable between machines; to compare two versions of the code run both on the same idle machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

import torch
from lm_generate import machine, peak_mib, reset_peak

from codec.layers import fast_linear
from codec.layers.config import QuantiserConfig
from codec.layers.windows import BLOCK_SAMPLES, overlapping_windows
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import DescriptiveConfig, FlowConfig, ReasoningCodecConfig, ScalarConfig, StructuralConfig
from codec.tokenizer import load_tokenizer
from codec.tokens import SAMPLE_RATE, AudioTokens

ENCODE_WINDOW, DECODE_WINDOW = 30, 20  # seconds, of the published code
DECODE_TOKENS, DECODE_HOP = 250, 186  # structural frames of its decoding windows, and from one to the next


def full_size() -> ReasoningCodecConfig:
    """The published sizes; channels of the mel experts."""
    return ReasoningCodecConfig(
        descriptive=DescriptiveConfig(
            speech_dim=128, music_dim=120, quantiser=QuantiserConfig(4096, codebook_dim=64, kmeans_init=False)
        ),
        structural=StructuralConfig(quantiser=QuantiserConfig(kmeans_init=False)),
    )


def tiny_size() -> ReasoningCodecConfig:
    """For the tests: everything small."""
    quantiser = QuantiserConfig(codebook_size=64, codebook_dim=8, kmeans_init=False)
    return ReasoningCodecConfig(
        descriptive=DescriptiveConfig(
            speech_dim=128, music_dim=120, dim=32, heads=2, rope_dims=8, blocks=1, quantiser=quantiser
        ),
        structural=StructuralConfig(dim=32, quantiser=quantiser),
        flow=FlowConfig(layers=2, heads=2, head_dim=16),
        scalar=ScalarConfig(init_channel=2, res_kernel_size=3),
    )


SIZES = {"tiny": tiny_size, "full": full_size}


def published_encoded_seconds(seconds: float) -> int:
    """What the published code encodes of a clip: doubled until it fills 30 s and 10 ms, then one window more."""
    samples = round(seconds * SAMPLE_RATE)
    while samples < ENCODE_WINDOW * SAMPLE_RATE + 240:
        samples *= 2
    return ENCODE_WINDOW * (samples // (ENCODE_WINDOW * SAMPLE_RATE) + 1)


def published_decode_windows(seconds: float) -> int:
    """Windows of 20 s that the published code decodes for a clip."""
    frames = int(12.5 * seconds)
    return 1 + max(0, -(-(frames - DECODE_TOKENS) // DECODE_HOP))


@dataclass
class Case:
    """One line: `call` makes `batch` clips of `seconds` and computes `work` seconds of audio for that."""

    name: str
    seconds: float
    batch: int
    call: Callable[[], None]
    work: float
    peak: float = 0.0
    runs: list[dict[str, float]] = field(default_factory=list)  # seconds taken: all, flow, scalar

    def median(self, part: str) -> float:
        """Seconds that a part takes."""
        return statistics.median(run[part] for run in self.runs)


class Bench:
    """The cases of one codec."""

    def __init__(self, codec: ReasoningCodec, steps: int, guidance: float, device: torch.device) -> None:
        self.codec, self.steps, self.guidance, self.device = codec.to(device), steps, guidance, device
        self.taken: dict[str, float] = {}

    def case(self, name: str, seconds: float, batch: int) -> Case:
        """To encode or decode clips of some length, as ours does it."""
        if name == "encode":
            audio = noise(seconds, batch).to(self.device)
            blocks = audio.shape[1] // BLOCK_SAMPLES + 1
            return Case(name, seconds, batch, lambda: self.codec.encode(audio), 0.4 * blocks * batch)
        tokens, flow = self.tokens(seconds, batch), self.codec.config.flow
        latents = self.codec.config.scalar.latent_frames(tokens[0].num_samples)
        windows = overlapping_windows(latents, flow.window_frames, flow.overlap_frames)
        work = sum(stop - start for start, stop in windows) / 25
        return Case(name, seconds, batch, lambda: self.decode(tokens), work * batch)

    def published_case(self, name: str, seconds: float) -> Case:
        """What the published code computes to encode or decode a clip of some length."""
        if name == "encode":
            computed = published_encoded_seconds(seconds)
            # The last sample of each window is left out, or our own windows would be two.
            windows = noise(ENCODE_WINDOW, computed // ENCODE_WINDOW)[:, :-1]
            return Case("published_encode", computed, 1, lambda: self.codec.encode(windows), computed)
        windows, tokens = published_decode_windows(seconds), self.tokens(DECODE_WINDOW, 1)

        def call() -> None:
            with patch.object(fast_linear, "ONEDNN", False):
                for _ in range(windows):
                    self.decode(tokens)

        return Case("published_decode", DECODE_WINDOW * windows, 1, call, DECODE_WINDOW * windows)

    def tokens(self, seconds: float, batch: int) -> list[AudioTokens]:
        """Of random ids."""
        samples = round(seconds * SAMPLE_RATE)
        generator = torch.Generator().manual_seed(0)
        sizes = {s.name: (s.codebooks, self.codec.num_frames(s.name, samples)) for s in self.codec.streams}
        codes = {s.name: s.codes for s in self.codec.streams}
        return [
            AudioTokens(
                {name: torch.randint(codes[name], size, generator=generator) for name, size in sizes.items()},
                samples,
                self.codec.fingerprint,
            )
            for _ in range(batch)
        ]

    def decode(self, tokens: list[AudioTokens]) -> None:
        with self.clocked("flow", self.codec.flow, "solve"), self.clocked("scalar", self.codec.scalar, "decode"):
            self.codec.decode(tokens, steps=self.steps, guidance=self.guidance)

    @contextmanager
    def clocked(self, part: str, owner: torch.nn.Module, method: str):
        """Add up the seconds of all calls of a method."""
        plain = getattr(owner, method)

        def timed(*arguments, **named):
            start = self.now()
            result = plain(*arguments, **named)
            self.taken[part] = self.taken.get(part, 0.0) + self.now() - start
            return result

        with patch.object(owner, method, timed):
            yield

    def run(self, case: Case) -> None:
        reset_peak(self.device)
        self.taken = {}
        start = self.now()
        case.call()
        case.runs.append({"all": self.now() - start} | self.taken)
        case.peak = max(case.peak, peak_mib(self.device))

    def now(self) -> float:
        """Seconds, once all that a GPU was given is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def measure(self, cases: list[Case], repeats: int, budget: float) -> dict[int, str]:
        """Run all cases, in place. Returns why a case was left out, by its index."""
        second, left_out = {}, {}  # seconds of computing for a second of work, by kind
        for i in sorted(range(len(cases)), key=lambda i: (cases[i].name.startswith("published"), cases[i].work)):
            case = cases[i]
            known = second.get(case.name, second.get(case.name.removeprefix("published_"), 0.0))
            expected = known * case.work * (repeats + 1)
            if expected > budget:
                left_out[i] = f"not measured: would take about {expected:.0f} s, more than --budget {budget:g}"
                continue
            self.run(case)  # to warm up
            second[case.name] = case.runs.pop()["all"] / case.work
            case.peak = 0.0
        for repeat in range(repeats):
            for i in range(len(cases))[:: 1 if repeat % 2 == 0 else -1]:
                if i not in left_out:
                    self.run(cases[i])
        return left_out


def noise(seconds: float, batch: int) -> torch.Tensor:
    """(batch, samples) of noise, one clip like another."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(1, round(seconds * SAMPLE_RATE), generator=generator).repeat(batch, 1)


def rate_facts(case: Case, published: Case | None) -> dict[str, object]:
    """Median and spread of the case and its parts, and how they compare with the published code's work."""
    facts: dict[str, object] = {}
    for part in case.runs[0]:
        audio, name = case.seconds * case.batch, "" if part == "all" else f"{part}_"
        facts[f"{name}audio_seconds_per_second"] = round(audio / case.median(part), 3)
        facts[f"{name}spread"] = [round(audio / limit(r[part] for r in case.runs), 3) for limit in (max, min)]
        if published is not None and published.runs:
            ratio = published.median(part) * case.batch / case.median(part)
            facts[f"{name}times_published"] = round(ratio, 2)
    facts["computed_seconds"] = round(case.work, 2)
    if published is not None:
        facts["work_of_published"] = round(published.work * case.batch / case.work, 1)
    return facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--codec", help="folder or hub id of a ReasoningCodec")
    which.add_argument("--size", choices=SIZES, help="random weights of that size")
    parser.add_argument("--cases", nargs="+", choices=("encode", "decode"), default=["encode", "decode"])
    parser.add_argument("--seconds", type=float, nargs="+", default=[1, 2, 10, 20, 30, 120], help="lengths of clips")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="clips at once")
    parser.add_argument("--steps", type=int, default=10, help="Euler steps of the flow decoder")
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget", type=float, default=600.0, help="seconds that one case may take")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()

    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        why = "not measured: torch finds no accelerator on this machine"
        print(json.dumps({"device": options.device, "measured": False, "why": why}))
        return 1
    torch.set_num_threads(options.threads)
    if options.codec:
        codec = load_tokenizer(options.codec)
    else:
        torch.manual_seed(0)
        codec = ReasoningCodec(SIZES[options.size]()).eval()
    common = {
        "codec": options.codec or f"random, {options.size} size",
        "parameters_m": round(sum(p.numel() for p in codec.parameters()) / 1e6, 1),
        "flow_parameters_m": round(sum(p.numel() for p in codec.flow.parameters()) / 1e6, 1),
        "machine": machine(device),
        "threads": options.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    bench = Bench(codec, options.steps, options.guidance, device)
    published: dict[tuple[str, float], Case] = {}
    for dtype in sorted(options.dtype, reverse=True):  # float32, with which the published code is compared, first
        if dtype != "float32":
            codec.set_decoder_dtype(getattr(torch, dtype))
        names = [name for name in options.cases if dtype == "float32" or name == "decode"]
        cases = [bench.case(n, s, b) for n in names for s in options.seconds for b in options.batch]
        if dtype == "float32" and device.type == "cpu":
            by_work: dict[tuple[str, float], Case] = {}
            for case in cases:
                like = bench.published_case(case.name, case.seconds)
                published[case.name, case.seconds] = by_work.setdefault((like.name, like.work), like)
            cases += by_work.values()
        left_out = bench.measure(cases, options.repeats, options.budget)
        for i, case in enumerate(cases):
            line: dict[str, object] = {"case": case.name, "seconds": case.seconds, "batch": case.batch}
            if case.name.endswith("decode"):
                line |= {"steps": options.steps, "guidance": options.guidance, "dtype": dtype}
            if i in left_out:
                line |= {"measured": False, "why": left_out[i]}
            else:
                line |= rate_facts(case, published.get((case.name, case.seconds))) | {"peak_mib": round(case.peak)}
            print(json.dumps(line | common), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
