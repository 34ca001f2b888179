"""How much of a call is computed at once, and buffers to compute it in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCRATCH_BYTES = 256 * 2**20
CACHE_BYTES = 4 * 2**20  # of logits at once on a CPU, so that later passes find them in its cache
SMALL_BYTES = 2**20  # of logits: in so small a call, the number of operations is what costs
ENOUGH_ROWS = 256  # at once: matrix products of fewer rows are slow


def can_read_back(device: torch.device) -> bool:
    """Whether reading a value does not wait for a device that runs on its own."""
    return device.type == "cpu"


class Workspace:
    """Buffers that are used again, since allocating fresh memory takes time."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[object, torch.device], Tensor] = {}

    def take(self, name: object, device: torch.device, *shape: int) -> Tensor:
        """An uninitialised float32 tensor of this shape; overwrites the last one of this name."""
        size = math.prod(shape)
        buffer = self._buffers.get((name, device))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name, device] = torch.empty(size, device=device)
        return buffer[:size].view(shape)
