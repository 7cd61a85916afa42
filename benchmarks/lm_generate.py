"""Speed of the language model's generation: one JSON line per case.

    python benchmarks/lm_generate.py --size mid --threads 4

Every case runs `--repeats` times, all cases in turn, so that a disturbance of the machine hits all alike. A line holds
the median and the spread (smallest and largest) over the repeats, the peak memory of the process during the case
(memory that the allocator keeps after a conversion counts; model_mib is what the model itself holds), and the floor:
the time to read the weights of a row (or step of a batch) once at the bandwidth measured in the same run.
share_of_bandwidth says how close a case comes to it: bytes of weights a step needs x steps a second over that
bandwidth, 1 being the floor. A batch makes as many rows as it has entries in one step, from one reading of the weights.
Weights that stay in a cache, the depth decoder's between its eight passes, can be read faster than that.
rtf is the seconds of computing for one second of audio (17.5 rows), over the whole batch.

Further rows: `--dtype bfloat16`; `--int8` (weights only; lm/generation/int8.py); `--steps compiled` adds cases of audio
and text with such steps (`generate_audio`; compiling takes minutes and is not counted). Where weights are not float32,
logits_change compares the logits of cached decoding with the float32 model's, both fed the same ids: largest
difference, the same in standard deviations of the logits, and how often the likeliest id is the same.

On an accelerator, the published size:

    python benchmarks/lm_generate.py --size 3b --dtype bfloat16 --device cuda --steps plain compiled \\
        --cases audio_batch1 audio_batch16 text plain compiled

There steps are captured as one graph where nothing else is said. Without an accelerator nothing is measured, and the
line says so.

Weights are random, so that hardly any generation ends before `--rows`. Not comparable between machines; to compare two
versions of the code run both on the same idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import torch
import transformers

from lm.config import LLAMA_3_ROPE, UniAudioConfig
from lm.generation.cached_model import AudioHeads, FrameDecoder, RowDecoder
from lm.generation.generate import generate_audio, generate_text
from lm.generation.int8 import quantise_weights
from lm.generation.settings import GenerationSettings
from lm.generation.static_step import Steps, steps_for
from lm.model import UniAudioForConditionalGeneration
from lm.rows import Rows, audio_rows, concatenate, drop_conditions, text_rows
from lm.vocabulary import StreamVocabulary, VocabularyLayout
from training.engine import processes  # noqa: F401 (quiets DeepSpeed, which transformers imports and which writes to stdout)


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
            streams=(
                StreamVocabulary("descriptive", low, low + 4, bos=low, eos=low + 1, pad=low + 3, rate=5.0),
                StreamVocabulary("structural", high, high + 12, bos=high, eos=high + 1, pad=high + 3, rate=12.5),
            ),
            audio_prompt_bos=high + 4, audio_prompt_eos=high + 5,
        )  # fmt: skip


SIZES = {
    "tiny": Size((32, 2, 4, 2, 64), (32, 1, 4, 2, 64), (1, 1), (12, 20), 50),  # for the tests
    "starter": Size((256, 4, 4, 2, 768), (192, 2, 4, 2, 576), (2, 1), (256, 256), 1000),
    "mid": Size((512, 12, 8, 4, 1536), (512, 4, 8, 4, 1536), (3, 2), (4096, 8192), 32000),  # 199.9 M parameters
    "3b": Size((3072, 28, 24, 8, 8192), (2048, 4, 32, 8, 8192), (3, 2), (4096, 8192), 128256),
}


class Bench:
    """The cases of one model. Each returns (rows produced, seconds)."""

    def __init__(self, model: UniAudioForConditionalGeneration, rows: int):
        self.model, self.rows = model, rows
        self.layout = model.config.layout
        self.text_prompt = text_rows(
            torch.randint(9, self.layout.text_size, (64,)).tolist(), self.layout, is_target=False
        )

    def audio(self, batch: int, guidance: float = 1.0, steps: Steps | None = None) -> tuple[int, float]:
        settings = GenerationSettings(max_rows=self.rows, guidance=guidance)
        prompts = [self.text_prompt] * batch
        negatives = [drop_conditions(self.text_prompt, self.layout, stream=0)] * batch
        start = self.clock()
        results = generate_audio(self.model, prompts, settings, list(range(batch)), negatives, steps)
        seconds = self.clock() - start
        return sum(ids.shape[1] + 1 for result in results for ids in result.streams.values()), seconds

    def text(self, batch: int, steps: Steps | None = None) -> tuple[int, float]:
        settings, prompts = GenerationSettings(max_rows=self.rows), [self.text_prompt] * batch
        start = self.clock()
        results = generate_text(self.model, prompts, settings, list(range(batch)), steps)
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
        words = text_rows(
            torch.randint(9, self.layout.text_size, (rows - half,)).tolist(), self.layout, is_target=False
        )
        frames = torch.randint(0, self.layout.streams[0].codes, (8, half))
        return concatenate([words, audio_rows(frames, is_target=False)])

    def clock(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def weight_bytes(self, case: str) -> int:
        """Weights read for one row of the case (one step of a batch)."""
        model = self.model

        def size(module: torch.nn.Module) -> int:
            held = (*module.named_parameters(), *module.named_buffers())  # int8 weights are buffers
            return sum(t.numel() * t.element_size() for n, t in held if "embed_tokens" not in n)

        if "text" in case:
            return size(model.cross_modal) + size(model.lm_head)
        groups = size(model.understanding) + size(model.cross_modal) + size(model.generation)
        # In most rows the phase is known, and with it the half of the head that is read: structural here.
        # A static step reads all of it.
        head = model.audio_head
        heads = head.numel() * head.element_size() if isinstance(head, torch.Tensor) else size(head)
        named = next((steps for steps in get_args(Steps) if case.startswith(steps)), None)
        if steps_for(named, model.device) == "plain":
            heads = heads * self.layout.streams[1].size // self.layout.audio_size
        return groups + 8 * size(model.depth_decoder) + heads


@torch.inference_mode()
def decoded_logits(model: UniAudioForConditionalGeneration, rows: int = 16) -> list[torch.Tensor]:
    """Logits of cached decoding fed fixed ids, fp32 on the CPU: of audio (8 rows, V), of text (rows, text ids)."""
    layout, generator = model.config.layout, torch.Generator().manual_seed(0)
    prompt = text_rows(torch.randint(9, layout.text_size, (64,), generator=generator).tolist(), layout, is_target=False)
    frames = torch.randint(0, layout.streams[0].codes, (rows, 8), generator=generator).to(model.device)
    words = torch.randint(9, layout.text_size, (rows,), generator=generator).to(model.device)
    heads, depth, logits = AudioHeads(model.audio_head, 1), FrameDecoder(model, 1), []

    decoder = RowDecoder(model, [prompt], rows)
    final = decoder.prefill()
    for frame in frames:

        def choose(codebook: int, states: torch.Tensor, frame=frame) -> torch.Tensor:
            logits.append(heads.logits(codebook, states, [(0, layout.audio_size)]))
            return frame[codebook, None]

        depth.frame(final, choose)
        final = decoder.feed_audio(frame[None])
    decoder = RowDecoder(model, [prompt], rows)
    final, texts = decoder.prefill(text_only=True), []
    for word in words:
        texts.append(model.lm_head(final))
        final = decoder.feed_text(word[None])
    return [torch.cat(parts).float().cpu() for parts in (logits, texts)]


def logits_change(plain: list[torch.Tensor], other: list[torch.Tensor]) -> dict[str, dict[str, float]]:
    """What `--dtype` and `--int8` do to the logits, for audio and text."""
    changes = {}
    for name, before, after in zip(("audio", "text"), plain, other, strict=True):
        largest = (after - before).abs().max().item()
        agreement = (after.argmax(-1) == before.argmax(-1)).float().mean().item()
        changes[name] = {
            "max_abs": round(largest, 4),
            "in_standard_deviations": round(largest / before.std().item(), 4),
            "same_likeliest_id": round(agreement, 3),
        }
    return changes


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="mid")
    parser.add_argument("--cases", nargs="*", help="names or beginnings of names; default: all")
    parser.add_argument("--rows", type=int, default=120, help="rows generated per request")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--int8", action="store_true", help="weights of eight bits, activations of --dtype")
    parser.add_argument("--steps", nargs="*", choices=get_args(Steps), default=[], help="also cases with such steps")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        facts = {"size": options.size, "device": options.device, "measured": False}
        print(json.dumps(facts | {"why": "not measured: torch finds no accelerator on this machine"}))
        return 1
    model = SIZES[options.size].build().to(device)
    parameters = sum(p.numel() for p in model.parameters())
    changed = {}
    if options.int8 or options.dtype != "float32":
        plain = decoded_logits(model)
        model = model.to(getattr(torch, options.dtype))
        if options.int8:
            quantise_weights(model)
        changed = {"logits_change": logits_change(plain, decoded_logits(model))}
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
        }
        if not options.int8:  # such a model cannot be saved
            cases["load_to_first_row"] = lambda: bench.load(Path(folder))
        for steps, batch in itertools.product(options.steps, (1, 16)):
            cases[f"{steps}_audio_batch{batch}"] = partial(bench.audio, batch, steps=steps)
            cases[f"{steps}_text_batch{batch}"] = partial(bench.text, batch, steps=steps)
        wanted = tuple(options.cases or cases)
        wanted = tuple(name for name in cases if name in wanted or name.startswith(tuple(set(wanted) - cases.keys())))
        cases = {name: cases[name] for name in wanted}
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
        "parameters_m": round(parameters / 1e6, 1),
        "model_mib": round(
            sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())) / 2**20, 1
        ),
        "machine": machine(device),
        "threads": options.threads,
        "dtype": options.dtype,
        "weights": "int8" if options.int8 else options.dtype,
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
            "ms_per_row_spread": [round(1e3 / max(speeds), 3), round(1e3 / min(speeds), 3)],
            "peak_mib": round(peaks[name]),
        }
        if "audio" in name:
            line["rtf"] = round(17.5 / statistics.median(speeds), 3)
        if "batch" in name:
            needed, batch = bench.weight_bytes(name), int(name.split("batch")[1].split("_")[0])
            line["weight_mib_per_step"] = round(needed / 2**20, 1)
            line["floor_ms_per_step"] = round(1e3 * needed / read, 3)
            line["share_of_bandwidth"] = round(needed * statistics.median(speeds) / batch / read, 3)
        print(json.dumps(line | changed | common), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
