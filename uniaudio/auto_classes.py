"""transformers' Auto classes know our model and processor once `uniaudio` is imported, in whichever order.

Each of our modules registers what it defines. They need PyTorch, which `import uniaudio` must not load: so each is
imported right after the module of transformers that holds the table it registers with, which is when that table can
first be asked.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_REGISTERED_BY = {
    "transformers.models.auto.configuration_auto": "lm.config",
    "transformers.models.auto.modeling_auto": "lm.model",
    "transformers.models.auto.processing_auto": "uniaudio.processor",
}


def register_auto_classes() -> None:
    """Register with what transformers has imported already, and with the rest as soon as it is imported."""
    sys.meta_path.insert(0, _AfterTransformers())
    for theirs, ours in _REGISTERED_BY.items():
        if theirs in sys.modules:
            importlib.import_module(ours)


class _AfterTransformers(MetaPathFinder):
    """Finds the three modules as usual, and adds to each that ours is imported after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in _REGISTERED_BY else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            importlib.import_module(_REGISTERED_BY[fullname])

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
