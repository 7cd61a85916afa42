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


@dataclass(frozen=True)
class Need:
    """One package: its import name, its name on PyPI, and what is lost without it ('' means everything)."""

    module: str
    distribution: str
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
    for need, (state, meaning, fatal) in zip(NEEDS, examined, strict=True):
        broken |= fatal
        table.add_row(need.distribution, state, escape(meaning))
    for row in _machine():
        table.add_row(*row)
    console.print(table)
    if mended:
        console.print(mended)
    if broken:
        console.print("Something required is missing or broken: run `make setup`, or `uniaudio doctor --fix`.")
        raise typer.Exit(1)


def _examine(need: Need) -> tuple[str, str, bool]:
    """State, meaning, and whether nothing works without it."""
    if importlib.util.find_spec(need.module) is None:
        return "missing", need.without or "required", not need.without
    try:
        found = version(need.distribution)
    except PackageNotFoundError:
        found = "?"
    # Imported in a process of its own: a broken compiled extension may take the whole interpreter down.
    done = subprocess.run([sys.executable, "-c", f"import {need.module}"], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"{found}, broken", f"import fails: {reason}", not need.without
    return found, "", False


def _machine() -> list[tuple[str, str, str]]:
    rows = [
        ("Python", sys.version.split()[0], "" if sys.version_info >= (3, 11) else "3.11 or newer is needed"),
        ("processors", str(os.cpu_count()), ""),
        ("free disk here", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB", "the demo needs about 2 GiB"),
    ]
    if importlib.util.find_spec("torch") is not None:
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


def mend_torchaudio() -> str:
    """Set torchaudio's compiled extension aside where it cannot be loaded; returns a sentence about what was done.

    PyPI's torchaudio is built against CUDA. Beside a CPU build of torch its extension fails to load, and with it
    `import torchaudio` and everything that imports it. What this project uses of torchaudio (resampling, mel
    filters) is pure PyTorch and works without the extension.
    """
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        return ""
    if subprocess.run([sys.executable, "-c", "import torchaudio"], capture_output=True).returncode == 0:
        return ""
    libraries = sorted((Path(spec.origin).parent / "lib").glob("*.so"))
    for library in libraries:
        library.rename(library.with_suffix(".so.disabled"))
    return (
        f"torchaudio's compiled extension did not fit this torch and was set aside ({len(libraries)} files renamed to "
        "*.so.disabled); its pure-PyTorch parts, which are all that is used here, now load."
    )
