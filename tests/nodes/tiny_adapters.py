"""Tiny IP-Adapters, applied as the packs apply them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

TEXT, SIZE = 7, (9, 14)
# Where the pack puts its patches: the middle block has a number that never occurs.
SD15_PLACES = {
    **{("input", 1): 32, ("input", 3): 64, ("output", 0): 64, ("output", 1): 64},
    **{("output", 2): 32, ("output", 3): 32, ("middle", 1): 64},
}


def pack_module(folder: Path, name: str) -> Any:
    """A pack's module and the neighbours it imports, without the pack's nodes."""
    package = ModuleType(folder.name)
    package.__path__ = [str(folder)]
    sys.modules[folder.name] = package
    return importlib.import_module(f"{folder.name}.{name}")
