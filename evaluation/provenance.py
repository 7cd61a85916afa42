"""Where numbers come from: commit, versions, machine. Stands in every results.json."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evaluation.judges.recogniser import RECOGNISER_VERSION
from evaluation.judges.signal_features import FEATURES_VERSION
from evaluation.metrics.normaliser import NORMALISER_VERSION

_PACKAGES = ("uniaudio", "torch", "transformers", "numpy", "scipy", "jiwer", "pocketsphinx", "pystoi")


def provenance() -> dict[str, Any]:
    """Plain values: date, command, git commit (with "+" where files were changed), versions, machine."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "git_commit": git_commit(),
        "versions": {name: _version(name) for name in _PACKAGES}
        | {"python": platform.python_version(), "normaliser": NORMALISER_VERSION, "recogniser": RECOGNISER_VERSION}
        | {"signal_features": FEATURES_VERSION},
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
    }


def git_commit() -> str:
    """Commit of this source tree, "" where it is no git checkout."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+" if commit and git("status", "--porcelain", "--untracked-files=no") else "")
    except FileNotFoundError:  # no git on this machine
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
