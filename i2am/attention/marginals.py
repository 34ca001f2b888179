"""What is kept of one attention call: sums, and the correspondence that is pooled as it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SCRATCH_BYTES = 256 * 2**20
CACHE_BYTES = 4 * 2**20  # of logits at once on a CPU: every pass after the first finds them near
ENOUGH_ROWS = 256  # at once: a product of fewer is slow
WEAK = 1e-25  # a float32 sum below this may have lost what underflowed; a float32 ends at 1e-38


@dataclass(frozen=True)
class Marginals:
    """The sums of one attention call, float32, on the device of its queries.

    share: (batch, heads, 2 + references, generated). The attention each generated token gives to
        the text, to the picture itself, to reference 1, 2, …; sums to one over axis 2.
    paper_r2g: (batch, heads, references, generated). Mean over r of M_g; sums to one over g.
    g2r: per reference (batch, heads, 2, reference). Mean over g of M_r, which sums to one, and of
        the model's attention, which sums to the mean share.
    correspondence: per reference (batch, 2, generated cells, reference cells), mean over heads of
        M_r, whose rows sum to one, and of the model's attention, whose rows sum to the share;
        pooled to the grids of `correspondence_grid`. Empty if it was not asked for.
    """

    share: Tensor
    paper_r2g: Tensor
    g2r: tuple[Tensor, ...]
    correspondence: tuple[Tensor, ...]


class Workspace:
    """Buffers that are used again: a system takes its time to hand out fresh memory."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[object, torch.device], Tensor] = {}

    def take(self, name: object, device: torch.device, *shape: int) -> Tensor:
        """A float32 tensor of this shape, of any values; what had this name before is lost."""
        size = math.prod(shape)
        buffer = self._buffers.get((name, device))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name, device] = torch.empty(size, device=device)
        return buffer[:size].view(shape)
