"""Speed of a token store's build, files included: hours of sound that become tokens in an hour. One JSON line.

    python benchmarks/tokenise.py --codec starter/codec --minutes 20
    python benchmarks/tokenise.py --size full --device cuda --minutes 120

The sound is noise, in FLAC files of 4 to 16 s at 44.1 kHz, which are decoded, checked by their hash and resampled
beside the encoding. Writing them is not timed. `busy` is the share of the time in which at least one batch was in the
tokenizer: what is missing to 1 is time spent waiting for files, or for the store to be written. `--size` as in
codec_speed.py, with random weights.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import soundfile
import torch
from codec_speed import SIZES
from lm_generate import machine

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import build_store
from auditory_sentences.token_store.encoding import Pace
from codec.io.errors import UserError
from codec.io.terminal import run_program
from codec.reasoning.codec import ReasoningCodec
from codec.tokenizer import load_tokenizer

RATE = 44_100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--codec", help="folder or shipped name")
    which.add_argument("--size", choices=SIZES)
    parser.add_argument("--minutes", type=float, default=20.0, help="of sound")
    parser.add_argument("--batch-seconds", type=float, default=120.0, help="of sound in a batch")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", help="where the files are made; default: among those for a short time")
    arguments = parser.parse_args()
    if not arguments.minutes > 0:
        raise UserError("--minutes must be more than 0")
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print(json.dumps({"measured": False, "why": "not measured: torch finds no accelerator"}))
        return 1
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    codec = load_tokenizer(arguments.codec) if arguments.codec else ReasoningCodec(SIZES[arguments.size]()).eval()
    codec.to(arguments.device)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        clips = list(files(Path(folder), 60 * arguments.minutes))
        codec.encode(torch.zeros(1, 2 * codec.sample_rate, device=arguments.device))  # the first call is slow
        pace = Pace()
        build_store(clips, codec, Path(folder) / "store", batch_seconds=arguments.batch_seconds, pace=pace)
        line = {
            "case": "tokenise",
            "codec": arguments.codec or arguments.size,
            "hours": round(pace.sound / 3600, 3),
            "hours_an_hour": round(pace.rate, 1),
            "busy": round(pace.share, 3),
            "clips": len(clips),
            "threads": arguments.threads,
            "machine": machine(torch.device(arguments.device)),
        }
    print(json.dumps(line))
    return 0


def files(folder: Path, seconds: float) -> Iterator[Clip]:
    """Writes noise, so many seconds in all, and yields its clips."""
    draws, left, number = random.Random(0), seconds, 0
    while left > 0:
        length = min(left, draws.uniform(4, 16))
        path = folder / f"{number:06d}.flac"
        generator = torch.Generator().manual_seed(number)
        soundfile.write(path, (0.1 * torch.randn(max(1, int(length * RATE)), generator=generator)).numpy(), RATE)
        yield Clip(f"{number:06d}", str(path), "sound", "train")
        left, number = left - length, number + 1


if __name__ == "__main__":
    run_program("tokenise", main)
