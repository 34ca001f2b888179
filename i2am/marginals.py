"""What is kept of one attention call: sums, and the correspondence that is pooled as it is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .geometry import Grid, Span, means_of_lines, runs, spread

SCRATCH_BYTES = 256 * 2**20
CORRESPONDENCE_SIDE = 32
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


@lru_cache(maxsize=64)
def correspondence_grid(grid: Grid) -> Grid:
    """The grid a correspondence is pooled to on one side: of all frames of a video together."""
    return grid.at_most(CORRESPONDENCE_SIDE).one_frame


def mean_over_cells(rows: Tensor, source: Grid, target: Grid) -> Tensor:
    """Average (…, source area, n) over the source cells in each target cell, by their area."""
    if source == target:
        return rows
    pooled = spread(rows.mT, source, target)
    return (pooled / spread(rows.new_ones(source.area), source, target)).mT


def grid_of(span: Span) -> Grid:
    """The grid of a span; tokens without a place of their own count as one row."""
    return span.grid or Grid(1, span.length)


class Match:
    """The correspondence of one reference, added up over heads, pooled to cells on both sides."""

    def __init__(self, zeros: Callable[..., Tensor], batch: int, rows: Grid, keys: Grid) -> None:
        self._rows, self._keys = rows, keys
        self._to, self._columns = correspondence_grid(rows), correspondence_grid(keys)
        self._sums = zeros(batch, self._to.height, self._to.width, 2, self._columns.area)
        self._lines: tuple[Tensor, Tensor] | None = None
        if rows != self._to:
            down, across = means_of_lines(rows, self._to)
            self._lines = down, across.to(self._sums)  # the CPU tells which lines are touched

    def mean(self, heads: int) -> Tensor:
        """(batch, 2, generated cells, reference cells)."""
        return self._sums.div_(heads * self._rows.frames).flatten(1, 2).transpose(1, 2)

    def add(self, items: slice, tile: slice, weights: Tensor, values: Tensor) -> None:
        """Take in some rows. weights: (items, heads, 2, rows); values: (…, heads, rows, keys)."""
        # For each row, (2, heads) @ (heads, keys): heads are added up before anything is pooled.
        weights = weights.permute(0, 3, 2, 1).contiguous()
        pairs = weights @ values.transpose(1, 2)  # (items, rows, 2, keys)
        pairs = spread(pairs, self._keys, self._columns)
        if self._lines is None:
            self._sums.flatten(1, 2)[items, tile] += pairs
            return
        down, across = self._lines
        for tokens, line, lines, columns in runs(tile, self._rows):
            # (items, lines, columns, 2 × keys), first across and then down
            run = pairs[:, tokens].reshape(len(pairs), lines, -1, 2 * self._columns.area)
            run = across[:, columns] @ run
            share = down[:, line : line + lines]
            touched = share.any(1).nonzero()
            cells = slice(int(touched[0]), int(touched[-1]) + 1)
            into = self._sums[items, cells]
            into += (share[cells].to(run) @ run.flatten(2)).view_as(into)
