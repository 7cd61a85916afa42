"""By how much the memory of a process grows that encodes an hour of sound, for any codec.

    python benchmarks/hour_memory.py --codec assets/starter/model/audio_tokenizer
    python benchmarks/hour_memory.py --codec FOLDER OTHER --minutes 60 120

The sound is noise that arrives in blocks of a minute, as `uniaudio tokenize` reads a file. Each measurement has a
process of its own; `adds_mib` is its highest memory above what it held before, with the codec loaded and a second of
sound encoded. Prints one JSON line for each.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from codec.io.errors import UserError
from codec.io.terminal import run_program
from codec.tokenizer import load_tokenizer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", nargs="+", required=True, help="folders or hub ids of tokenizers")
    parser.add_argument("--minutes", nargs="+", type=int, default=[60], help="lengths of the sound")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--here", action="store_true", help="in this process: of one codec and one length")
    options = parser.parse_args()
    if min(options.minutes) < 1:
        raise UserError("--minutes must be at least 1")
    torch.set_num_threads(options.threads)
    if options.here:
        print(json.dumps(measured(options.codec[0], options.minutes[0])))
        return 0
    for codec in options.codec:
        for minutes in options.minutes:
            arguments = ["--codec", codec, "--minutes", str(minutes), "--threads", str(options.threads), "--here"]
            done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
            if done.returncode:
                return done.returncode
            print(done.stdout, end="", flush=True)
    return 0


def measured(source: str, minutes: int) -> dict[str, object]:
    """The facts of one codec and length; they are of the whole process."""
    codec = load_tokenizer(source)
    generator = torch.Generator().manual_seed(0)
    minute = 0.1 * torch.randn(60 * codec.sample_rate, generator=generator)
    codec.encode(minute[None, : codec.sample_rate])
    before, start = peak_mib(), time.perf_counter()
    tokens = codec.encode_blocks((minute.clone() for _ in range(minutes)), minutes * len(minute))
    return {
        "codec": source,
        "type": codec.tokenizer_type,
        "minutes": minutes,
        "before_mib": round(before, 1),
        "adds_mib": round(peak_mib() - before, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "frames": {name: ids.shape[1] for name, ids in tokens.streams.items()},
    }


def peak_mib() -> float:
    """The highest memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    run_program("hour_memory", main)
