"""Speed of the language model's generation: one JSON line per case.

    python benchmarks/lm_generate.py --size mid --threads 4

Every case runs `--repeats` times, all cases in turn, so that a disturbance of the machine hits all alike. A line holds
the median and the spread (smallest and largest) over the repeats, the peak memory of the process during the case, and
the floor: the time to read the weights of a row (or step of a batch) once at the bandwidth measured in the same run.
share_of_bandwidth says how close a case comes to it: bytes of weights a step needs x steps a second over that
bandwidth, 1 being the floor. A batch makes as many rows as it has entries in one step, from one reading of the weights.
Weights that stay in a cache, the depth decoder's between its eight passes, can be read faster than that.
Weights are random, so that hardly any generation ends before `--rows`. Not comparable between machines; to compare two
versions of the code run both on the same idle machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from lm.config import LLAMA_3_ROPE, UniAudioConfig
from lm.decoding import RowDecoder
from lm.generation import GenerationSettings, generate_audio, generate_text
from lm.model import UniAudioForConditionalGeneration
from lm.rows import Rows, audio_rows, concatenate, hidden, text_rows
from lm.vocabulary import VocabularyLayout


@dataclass(frozen=True)
class Size:
    """A model to measure: (width, layers, heads, key-value groups, MLP width) of both transformers, experts, ids."""

    cross_modal: tuple[int, int, int, int, int]
    depth: tuple[int, int, int, int, int]
    experts: tuple[int, int]
    codes: tuple[int, int]  # descriptive, structural
    text_ids: int

    def build(self) -> UniAudioForConditionalGeneration:
        torch.manual_seed(0)
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
        shared = {"vocab_size": self.text_ids, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072}
        shared["rope_parameters"] = LLAMA_3_ROPE
        config = UniAudioConfig(
            cross_modal=dict(zip(names, self.cross_modal, strict=True)) | shared,
            depth=dict(zip(names, self.depth, strict=True)) | shared,
            understanding_layers=self.experts[0],
            generation_layers=self.experts[1],
            vocabulary=self.layout.to_dict(),
        )
        return UniAudioForConditionalGeneration(config).eval()

    @property
    def layout(self) -> VocabularyLayout:
        low, high = self.codes
        return VocabularyLayout(
            text_size=self.text_ids, text_bos=0, text_eos=1, text_pad=2,
            tags={"transcription": (3, 4), "lyric": (5, 6), "caption": (7, 8)},
            descriptive_codes=low, descriptive_card=low + 4,
            descriptive_bos=low, descriptive_eos=low + 1, descriptive_pad=low + 3,
            structural_codes=high, structural_card=high + 12,
            structural_bos=high, structural_eos=high + 1, structural_pad=high + 3,
            audio_prompt_bos=high + 4, audio_prompt_eos=high + 5,
        )  # fmt: skip


SIZES = {
    "starter": Size((256, 4, 4, 2, 768), (192, 2, 4, 2, 576), (2, 1), (256, 256), 1000),
    "mid": Size((512, 12, 8, 4, 1536), (512, 4, 8, 4, 1536), (3, 2), (4096, 8192), 32000),  # 199.9 M parameters
    "3b": Size((3072, 28, 24, 8, 8192), (2048, 4, 32, 8, 8192), (3, 2), (4096, 8192), 128256),
}


class Bench:
    """The cases of one model. Each returns (rows produced, seconds)."""

    def __init__(self, model: UniAudioForConditionalGeneration, rows: int):
        self.model, self.rows = model, rows
        self.layout = model.config.layout
        self.text_prompt = text_rows(torch.randint(9, self.layout.text_size, (64,)).tolist(), learn=False)

    def audio(self, batch: int, guidance: float = 1.0) -> tuple[int, float]:
        settings = GenerationSettings(max_rows=self.rows, guidance=guidance)
        prompts = [self.text_prompt] * batch
        negatives = [hidden(self.text_prompt, self.layout, structural=False)] * batch
        start = self.clock()
        results = generate_audio(self.model, prompts, settings, list(range(batch)), negatives)
        seconds = self.clock() - start
        return sum(result.descriptive.shape[1] + result.structural.shape[1] + 2 for result in results), seconds

    def text(self, batch: int) -> tuple[int, float]:
        settings = GenerationSettings(max_rows=self.rows)
        start = self.clock()
        results = generate_text(self.model, [self.text_prompt] * batch, settings, list(range(batch)))
        return sum(len(result.ids) for result in results), self.clock() - start

    def prefill(self, rows: int) -> tuple[int, float]:
        start = self.clock()
        with torch.inference_mode():
            RowDecoder(self.model, [self.mixed_prompt(rows)], 1).prefill()
        return rows, self.clock() - start

    def load(self, folder: Path) -> tuple[int, float]:
        """From a saved model to the first row of audio."""
        start = self.clock()
        model = UniAudioForConditionalGeneration.from_pretrained(folder, dtype=self.model.dtype)
        generate_audio(model.to(self.model.device), [self.text_prompt], GenerationSettings(max_rows=2), [0])
        return 1, self.clock() - start

    def mixed_prompt(self, rows: int) -> Rows:
        """Half text, half audio."""
        half = rows // 2
        words = text_rows(torch.randint(9, self.layout.text_size, (rows - half,)).tolist(), learn=False)
        frames = torch.randint(0, self.layout.descriptive_codes, (8, half))
        return concatenate([words, audio_rows(frames, learn=False)])

    def clock(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def weight_bytes(self, case: str) -> int:
        """Weights read for one row of the case (one step of a batch)."""
        model, each = self.model, self.model.audio_head.element_size()

        def size(module: torch.nn.Module) -> int:
            return sum(p.numel() for n, p in module.named_parameters() if "embed_tokens" not in n) * each

        if case.startswith("text"):
            return size(model.cross_modal) + size(model.lm_head)
        groups = size(model.understanding) + size(model.cross_modal) + size(model.generation)
        # In most rows the phase is known, and with it the half of the head that is read: structural here.
        heads = model.audio_head.numel() * each * self.layout.structural_card // self.layout.audio_size
        return groups + 8 * size(model.depth_decoder) + heads


def bandwidth(device: torch.device) -> float:
    """Bytes per second of reading 256 MiB, the best of several passes."""
    data, best = torch.ones(1 << 26, device=device), 0.0
    for _ in range(8):
        start = time.perf_counter()
        data.sum().item()
        best = max(best, data.numel() * data.element_size() / (time.perf_counter() - start))
    return best


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return  # not Linux: the peak is that of the whole process so far


def peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    return f"{names[0]} ({len(names)} logical CPUs)" if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="mid")
    parser.add_argument("--cases", nargs="*", help="names or beginnings of names; default: all")
    parser.add_argument("--rows", type=int, default=120, help="rows generated per request")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = SIZES[options.size].build().to(device, getattr(torch, options.dtype))
    bench = Bench(model, options.rows)
    with tempfile.TemporaryDirectory() as folder:
        cases: dict[str, Callable[[], tuple[int, float]]] = {
            "audio_batch1": lambda: bench.audio(1),
            "audio_batch1_guidance": lambda: bench.audio(1, guidance=2.0),
            "audio_batch16": lambda: bench.audio(16),
            "audio_batch32": lambda: bench.audio(32),
            "text_batch1": lambda: bench.text(1),
            "text_batch16": lambda: bench.text(16),
            "prefill_512": lambda: bench.prefill(512),
            "load_to_first_row": lambda: bench.load(Path(folder)),
        }
        wanted = tuple(options.cases or cases)
        cases = {name: case for name, case in cases.items() if name.startswith(wanted)}
        if "load_to_first_row" in cases:
            model.save_pretrained(folder)
        results: dict[str, list[tuple[int, float]]] = {name: [] for name in cases}
        peaks = dict.fromkeys(cases, 0.0)
        read = bandwidth(device)
        for case in cases.values():  # warm up
            case()
        for repeat in range(options.repeats):
            for name in list(cases)[:: 1 if repeat % 2 == 0 else -1]:
                reset_peak(device)
                results[name].append(cases[name]())
                peaks[name] = max(peaks[name], peak_mib(device))

    common = {
        "size": options.size,
        "parameters_m": round(sum(p.numel() for p in model.parameters()) / 1e6, 1),
        "machine": machine(device),
        "threads": options.threads,
        "dtype": options.dtype,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "bandwidth_gb_per_s": round(read / 1e9, 1),
    }
    for name, runs in results.items():
        speeds = [rows / seconds for rows, seconds in runs]
        line = {
            "case": name,
            "rows_per_s": round(statistics.median(speeds), 2),
            "rows_per_s_spread": [round(min(speeds), 2), round(max(speeds), 2)],
            "ms_per_row": round(1e3 / statistics.median(speeds), 3),
            "peak_mib": round(peaks[name]),
        }
        if name.startswith(("audio", "text")):
            needed, batch = bench.weight_bytes(name), int(name.split("batch")[1].split("_")[0])
            line["weight_mib_per_step"] = round(needed / 2**20, 1)
            line["floor_ms_per_step"] = round(1e3 * needed / read, 3)
            line["share_of_bandwidth"] = round(needed * statistics.median(speeds) / batch / read, 3)
        print(json.dumps(line | common), flush=True)


if __name__ == "__main__":
    main()
