"""How much faster X-Codec encodes and decodes here than transformers' `XcodecModel` with the same weights.

    python benchmarks/xcodec_against_transformers.py --size published
    python benchmarks/xcodec_against_transformers.py --size published --quick
    python benchmarks/xcodec_against_transformers.py --codec FOLDER --seconds 2 20 --batch 1 8

First both must give the same: ids, but for a few in a thousand whose two nearest codes are as near as float32 tells
apart, and waveforms to 1e-4 of their peak. Then both run in turn, and the fastest run of each counts: `ratio` is the
time of transformers over ours. On one CPU thread seconds are those of the processor, which other programs hardly
disturb; on more, and on an accelerator, those of the clock. Random weights (`--size`) are scaled by data so that ids
differ from frame to frame. Prints one JSON line for each case to stdout and a table to stderr.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from codec.io.errors import UserError
from codec.io.terminal import run_program
from codec.layers.initialisation import initialise_from_data
from codec.tokenizer import load_tokenizer
from codec.xcodec.codec import STREAM, XCodec
from codec.xcodec.config import SpeechModelConfig, TeacherConfig, XCodecConfig
from codec.xcodec.transformers_format import export_folder

SMALL_TEACHER = SpeechModelConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    conv_dim=(8,) * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=2,
)
SIZES = {
    "small": XCodecConfig(
        encoder_channels=8,
        decoder_channels=64,
        acoustic_dim=32,
        codebooks=4,
        codes=64,
        teacher=TeacherConfig(model=SMALL_TEACHER),
    ),
    "published": XCodecConfig(),
}
EQUAL_IDS = 0.995  # least share
WAVEFORMS = 1e-4  # largest difference, in peaks


def random_codec(config: XCodecConfig) -> XCodec:
    """In eval mode, with random weights at which frames and codes differ as those of a trained one do."""
    torch.manual_seed(0)
    codec = XCodec(replace(config, kmeans_init=False)).eval()
    for number, level in enumerate(codec.quantiser.layers):
        level._codebook.embed.normal_(std=0.7**number)
    initialise_from_data(codec, lambda: codec(noise(1.0, 2, codec.sample_rate)), {codec.acoustic_decoder.conv_out: 0.1})
    return codec


def theirs_of(codec: XCodec) -> nn.Module:
    """transformers' model with the weights of ours."""
    from transformers import XcodecModel

    with tempfile.TemporaryDirectory() as folder:
        export_folder(codec, folder)
        return XcodecModel.from_pretrained(folder).eval()


def noise(seconds: float, batch: int, sample_rate: int) -> Tensor:
    """(batch, samples): each clip other noise that swells and fades."""
    generator = torch.Generator().manual_seed(0)
    samples = round(seconds * sample_rate)
    loudness = torch.rand(batch, 9, generator=generator)[:, None]
    loudness = nn.functional.interpolate(loudness, size=samples, mode="linear")[:, 0]
    return 0.3 * loudness * torch.randn(batch, samples, generator=generator)


class Pair:
    """Ours and theirs, asked for the same."""

    def __init__(self, codec: XCodec, device: torch.device) -> None:
        self.theirs, self.ours, self.device = theirs_of(codec).to(device), codec.to(device), device

    def calls(self, what: str, waveforms: Tensor) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """What ours and theirs do: (B, codebooks, T) ids or (B, n) waveforms. Whole frames only."""
        tokens = self.ours.encode(waveforms)
        ids = torch.stack([clip[STREAM] for clip in tokens]).to(self.device)
        audio = waveforms[:, None].to(self.device)
        if what == "encode":
            return (
                lambda: torch.stack([clip[STREAM] for clip in self.ours.encode(waveforms)]),
                lambda: self.theirs.encode(audio).audio_codes.cpu(),
            )
        return (
            lambda: torch.stack(self.ours.decode(tokens)),
            lambda: self.theirs.decode(ids).audio_values[:, 0].cpu(),
        )


def difference(what: str, ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """By how much two results differ, by name. Raises RuntimeError where that is too much to compare times."""
    if ours.shape != theirs.shape:
        raise RuntimeError(f"{what}: ours gives {tuple(ours.shape)}, transformers' {tuple(theirs.shape)}")
    if what == "encode":
        equal = (ours == theirs).float().mean().item()
        if equal < EQUAL_IDS:
            raise RuntimeError(f"encode: only {equal:.2%} of the ids are those of transformers")
        return {"equal_ids": round(equal, 6), "different_ids_used": len(ours.unique())}
    largest = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if not largest < WAVEFORMS:
        raise RuntimeError(f"decode: waveforms differ from transformers' by {largest:.1e} of their peak")
    return {"largest_difference": largest}


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    call()  # its result is on the CPU: whatever an accelerator had to do is done
    return clock() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--codec", help="folder or hub id of an X-Codec, in our format or that of transformers")
    which.add_argument("--size", choices=SIZES, help="random weights of that size")
    parser.add_argument("--cases", nargs="+", choices=("encode", "decode"), default=["encode", "decode"])
    parser.add_argument("--seconds", type=float, nargs="+", default=[2, 20], help="lengths of clips")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="clips at once")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, of which the fastest counts")
    parser.add_argument("--quick", action="store_true", help="two runs of each, and one of what takes over 20 s")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if min(*options.seconds, *options.batch, options.repeats) <= 0:
        raise UserError("--seconds, --batch and --repeats must be more than 0")
    torch.set_num_threads(options.threads)
    codec = load_tokenizer(options.codec) if options.codec else random_codec(SIZES[options.size])
    if not isinstance(codec, XCodec):
        raise UserError(f"{options.codec}: is a tokenizer of type {codec.tokenizer_type!r}, not 'xcodec'")
    pair, lines = Pair(codec, torch.device(options.device)), []
    with torch.inference_mode():
        for what in options.cases:
            for seconds in options.seconds:
                for batch in options.batch:
                    frames = max(1, round(seconds * codec.sample_rate / codec.config.hop))
                    waveforms = noise(frames * codec.config.hop / codec.sample_rate, batch, codec.sample_rate)
                    line = {
                        "case": what,
                        "seconds": seconds,
                        "batch": batch,
                        **measured(pair, what, waveforms, options),
                    }
                    line |= {"threads": options.threads, "device": options.device, "torch": torch.__version__}
                    lines.append(line | {"codec": options.codec or f"random, {options.size} size"})
                    print(json.dumps(lines[-1]), flush=True)
    Console(stderr=True).print(table(lines))
    return 0


def measured(pair: Pair, what: str, waveforms: Tensor, options: argparse.Namespace) -> dict[str, object]:
    """The facts of one case."""
    ours, theirs = pair.calls(what, waveforms)
    start = time.perf_counter()
    facts = difference(what, ours(), theirs())  # warms both up, too
    repeats = options.repeats
    if options.quick:
        repeats = min(repeats, 1 if time.perf_counter() - start > 20 else 2)
    taken: dict[str, list[float]] = {"ours": [], "theirs": []}
    for repeat in range(repeats):
        runs = [("ours", ours), ("theirs", theirs)]
        for name, call in runs[:: 1 if repeat % 2 == 0 else -1]:
            taken[name].append(seconds_of(call, pair.device))
    best = {name: min(times) for name, times in taken.items()}
    made = {f"{name}_seconds": round(time, 4) for name, time in best.items()}
    return {"ratio": round(best["theirs"] / best["ours"], 3), **made, "repeats": repeats, **facts}


def table(lines: list[dict]) -> Table:
    """Ratios, a row for each case."""
    made = Table("case", "clips", "seconds each", "ours s", "transformers s", "ratio", title="X-Codec")
    for line in lines:
        cells = (line["batch"], line["seconds"], line["ours_seconds"], line["theirs_seconds"], line["ratio"])
        made.add_row(line["case"], *map(str, cells))
    return made


if __name__ == "__main__":
    run_program("xcodec_against_transformers", main)
