import importlib

import pytest

from tests import ROOT


@pytest.fixture
def benchmark_module(monkeypatch):
    """A command of benchmarks/ as a module, by name; its folder is where Python finds it when it is run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module
