"""Counting what a call costs: torch's operations and the bytes they make, at real models' sizes."""

from __future__ import annotations

from typing import Any

import torch
from recordings import layout
from torch.utils._python_dispatch import TorchDispatchMode

from i2am.tokens import Grid

FLUX = layout(text=512, generated=Grid(64, 64), references=(Grid(64, 64),))
VIDEO = layout(text=512, generated=Grid(30, 52, frames=21), references=(Grid(30, 52),))


class Counted(TorchDispatchMode):
    """Counts torch's operations on a device, and the bytes of what they make."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view or func.namespace == "prim":
            return result
        launches = not func.name().startswith(("aten::empty", "aten::_unsafe_view"))
        self.operations += launches
        given = {id(x) for x in args if isinstance(x, torch.Tensor)}
        if isinstance(result, torch.Tensor) and id(result) not in given:
            self.bytes += result.numel() * result.element_size()
        return result
