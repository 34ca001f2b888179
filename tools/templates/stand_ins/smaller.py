"""Pictures an eighth as large where ComfyUI's nodes have sizes that no input sets."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

SMALLER = 8


def shrink_fixed_sizes() -> None:
    """FluxKontextImageScale and the text encoders of Qwen-Image-Edit, in this process."""
    sizes: list[Any] = _globals("FluxKontextImageScale")["PREFERRED_KONTEXT_RESOLUTIONS"]
    sizes[:] = [(width // SMALLER, height // SMALLER) for width, height in sizes]
    # They scale by the square root of the wanted area over that of the picture.
    shrunk = vars(math) | {"sqrt": lambda value: math.sqrt(value) / SMALLER}
    _globals("TextEncodeQwenImageEdit")["math"] = SimpleNamespace(**shrunk)


def _globals(node: str) -> dict[str, Any]:
    """The globals of the file that a node is from, as ComfyUI loaded it."""
    loaded: Any = sys.modules["nodes"]  # ComfyUI's
    return loaded.NODE_CLASS_MAPPINGS[node].execute.__func__.__globals__
