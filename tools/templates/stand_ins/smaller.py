"""Pictures an eighth as large, for ComfyUI's nodes with fixed sizes."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

SMALLER = 8


def shrink_fixed_sizes() -> None:
    """Patches FluxKontextImageScale and the text encoders of Qwen-Image-Edit, in this process."""
    sizes: list[Any] = _globals("FluxKontextImageScale")["PREFERRED_KONTEXT_RESOLUTIONS"]
    sizes[:] = [(width // SMALLER, height // SMALLER) for width, height in sizes]
    # They scale by the square root of the target area divided by the picture's area.
    shrunk = vars(math) | {"sqrt": lambda value: math.sqrt(value) / SMALLER}
    _globals("TextEncodeQwenImageEdit")["math"] = SimpleNamespace(**shrunk)


def _globals(node: str) -> dict[str, Any]:
    """The globals of a node's source file, as loaded by ComfyUI."""
    loaded: Any = sys.modules["nodes"]  # ComfyUI's
    return loaded.NODE_CLASS_MAPPINGS[node].execute.__func__.__globals__
