"""`uniaudio doctor`: what is installed, what is missing, and what that means."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from codec.io.errors import of_system
from codec.io.terminal import one_line

IMPORT_SECONDS = 300  # an import that takes longer will not end


@dataclass(frozen=True)
class Need:
    """One package."""

    # its import name
    module: str
    # its name on PyPI
    distribution: str
    # what is lost without it; "": everything
    without: str = ""


NEEDS = (
    Need("torch", "torch"),
    Need("torchaudio", "torchaudio"),
    Need("transformers", "transformers"),
    Need("peft", "peft"),
    Need("deepspeed", "deepspeed"),
    Need("datasets", "datasets"),
    Need("sentencepiece", "sentencepiece"),
    Need("safetensors", "safetensors"),
    Need("soundfile", "soundfile"),
    Need("vector_quantize_pytorch", "vector-quantize-pytorch"),
    Need("jiwer", "jiwer"),
    Need("espeakng_loader", "espeakng-loader", "no speech in the starter corpus"),
    Need("pocketsphinx", "pocketsphinx", "generated speech is not judged by an independent recogniser"),
    Need("pystoi", "pystoi", "no STOI in codec reports"),
    Need("pesq", "pesq", "no PESQ in codec reports (install the extra: pip install 'uniaudio[quality]')"),
    Need("torchcrepe", "torchcrepe", "no scores of pitch in codec reports (the extra 'quality')"),
    Need("distillmos", "distillmos", "no DistillMOS in codec reports (the extra 'quality')"),
    Need("onnxruntime", "onnxruntime", "no DNSMOS and no tagger in codec reports (the extra 'quality')"),
    Need(
        "pycodec2",
        "pycodec2",
        "Codec2 is no rival in codec reports (install the extra: pip install 'uniaudio[rivals]')",
    ),
    Need("flash_attn", "flash-attn", "attention runs through PyTorch's SDPA: same numbers, slower on long sequences"),
    Need("tensorboard", "tensorboard", "training logs to JSON lines only"),
)


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended without asking.")] = False,
) -> None:
    """Say what is installed, what is missing and what that means."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    mended = mend_torchaudio() if fix else ""
    table = Table("part", "state", "what it means", box=None, header_style="bold", pad_edge=False)
    broken = False
    with ThreadPoolExecutor() as pool:  # each is an import in a process of its own
        examined = list(pool.map(_examine, NEEDS))
    rows = list(zip(NEEDS, examined, strict=True))
    for need, (state, meaning, fatal) in rows:
        broken |= fatal
        table.add_row(need.distribution, state, escape(meaning))
    torch_works = not any(need.module == "torch" and (state == "missing" or fatal) for need, (state, _, fatal) in rows)
    for row in _machine(torch_works):
        table.add_row(*row)
    console.print(table)
    if mended:
        console.print(mended)
    if broken:
        console.print("Something required is missing or broken: run `make setup`, or `uniaudio doctor --fix`.")
        raise typer.Exit(1)


def _examine(need: Need) -> tuple[str, str, bool]:
    """State, meaning, and whether nothing works without it."""
    if not _is_there(need.module):
        return "missing", need.without or "required", not need.without
    try:
        found = version(need.distribution)
    except PackageNotFoundError:
        found = "?"
    # Imported in a process of its own: a broken compiled extension may take the whole interpreter down.
    reason = _import_fault(need.module)
    return (f"{found}, broken", f"import fails: {reason}", not need.without) if reason else (found, "", False)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # ValueError: something half installed that says nothing about itself
        return False


def _import_fault(module: str) -> str:
    """Why a module cannot be imported; "" where it can."""
    command = [sys.executable, "-P", "-c", f"import {module}"]  # not what the working directory may hold under the name
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no end after {IMPORT_SECONDS} s"
    except OSError as error:  # no more processes or memory
        return f"it could not be tried ({error.strerror})"
    return one_line((done.stderr.strip().splitlines() or ["no message"])[-1]) if done.returncode else ""


def _machine(torch_works: bool) -> list[tuple[str, str, str]]:
    rows = [
        ("Python", sys.version.split()[0], "" if sys.version_info >= (3, 11) else "3.11 or newer is needed"),
        ("processors", str(os.cpu_count()), ""),
        ("free disk here", *_free_disk()),
    ]
    if torch_works:
        import torch

        if torch.cuda.is_available():
            for index in range(torch.cuda.device_count()):
                facts = torch.cuda.get_device_properties(index)
                rows.append((f"GPU {index}", facts.name, f"{facts.total_memory / 2**30:.0f} GiB"))
        else:
            rows.append(("GPU", "none", "everything runs on the CPU: right for the starter, too slow for the 3B model"))
    if shutil.which("c++") is None and shutil.which("g++") is None:
        rows.append(("C++ compiler", "missing", "torch.compile is not available; everything runs uncompiled"))
    return rows


def _free_disk() -> tuple[str, str]:
    try:
        return f"{shutil.disk_usage('.').free / 2**30:.0f} GiB", "the demo needs about 2 GiB"
    except OSError as error:  # a folder that was removed meanwhile
        return "unknown", f"this folder cannot be looked at ({error.strerror}); go to another one"


def mend_torchaudio() -> str:
    """Set torchaudio's compiled extension aside where it cannot be loaded; returns a sentence about what was done.

    PyPI's torchaudio is built against CUDA. Beside a CPU build of torch its extension fails to load, and with it
    `import torchaudio` and everything that imports it. What this project uses of torchaudio (resampling, mel
    filters) is pure PyTorch and works without the extension.
    """
    spec = importlib.util.find_spec("torchaudio") if _is_there("torchaudio") else None
    if spec is None or spec.origin is None or not _import_fault("torchaudio"):
        return ""
    libraries = sorted((Path(spec.origin).parent / "lib").glob("*.so"))
    try:
        for library in libraries:
            library.rename(library.with_suffix(".so.disabled"))
    except OSError as error:
        return f"torchaudio's compiled extension does not fit this torch, and stays: {of_system(error)}"
    return (
        f"torchaudio's compiled extension did not fit this torch and was set aside ({len(libraries)} files renamed to "
        "*.so.disabled); its pure-PyTorch parts, which are all that is used here, now load."
    )
