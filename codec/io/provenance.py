"""Where numbers come from: the commit of this source tree, versions, machine. Stands in checkpoints and in results."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def provenance(packages: Iterable[str]) -> dict[str, Any]:
    """What is to be known about a run whose numbers are kept.

    Args:
        packages: Distributions whose versions matter.

    Returns:
        Plain values under "date" (UTC), "command", "git_commit", "versions" and "machine".
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "git_commit": git_commit(),
        "versions": versions(packages),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of installed distributions and of Python; "not installed" for those that are missing."""
    return {name: _version(name) for name in packages} | {"python": platform.python_version()}


def git_commit() -> str:
    """Commit of this source tree, with "+changes" where files differ from it; "" where it is no git checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):  # no git on this machine, or an installed package
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
