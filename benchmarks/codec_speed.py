"""Speed of the codec: seconds of audio that it encodes and decodes in a second, one JSON line per case.

    python benchmarks/codec_speed.py --codec recipes/starter/codec --threads 4

Every case runs `--repeats` times after one warm-up, all cases in turn, so that a disturbance of the machine hits all
alike. A line holds the median and the spread over the repeats. Decoding takes `--steps` Euler steps with guidance 1.5,
which is twice the work of guidance 1. Not comparable between machines.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time

import torch

from codec.tokenizer import AudioTokenizer, load_tokenizer
from codec.tokens import SAMPLE_RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", required=True, help="folder or hub id of an audio tokenizer")
    parser.add_argument("--seconds", type=float, nargs="+", default=[1, 2, 10, 30], help="lengths of the clips")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="clips at once")
    parser.add_argument("--steps", type=int, default=10, help="steps of the flow decoder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    codec = load_tokenizer(arguments.codec)
    cases = [(seconds, batch) for seconds in arguments.seconds for batch in arguments.batch]
    times: dict[tuple[float, int], list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(arguments.repeats + 1):
        for case in cases:
            times[case].append(measure(codec, *case, steps=arguments.steps))
    for (seconds, batch), runs in times.items():
        line = {"seconds": seconds, "batch": batch, "steps": arguments.steps}
        for name, taken in zip(("encode", "decode"), zip(*runs[1:], strict=True), strict=True):
            rates = [seconds * batch / t for t in taken]
            line[f"{name}_audio_seconds_per_second"] = round(statistics.median(rates), 2)
            line[f"{name}_spread"] = [round(min(rates), 2), round(max(rates), 2)]
        line |= {"threads": arguments.threads, "machine": platform.processor() or platform.machine()}
        print(json.dumps(line | {"torch": torch.__version__}))


def measure(codec: AudioTokenizer, seconds: float, batch: int, steps: int) -> tuple[float, float]:
    """Seconds to encode and to decode `batch` clips of noise."""
    audio = 0.1 * torch.randn(batch, round(seconds * SAMPLE_RATE), generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    tokens = codec.encode(audio)
    middle = time.perf_counter()
    codec.decode(tokens, steps=steps)
    return middle - start, time.perf_counter() - middle


if __name__ == "__main__":
    main()
