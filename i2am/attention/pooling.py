"""Correspondence of one call, pooled to coarse cells on both sides as it is computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from torch import Tensor

from ..tokens import Grid, pooling_weights, row_runs, spread

CORRESPONDENCE_SIDE = 32


@lru_cache(maxsize=64)
def correspondence_grid(grid: Grid) -> Grid:
    """The grid a correspondence is pooled to on one side: of all frames of a video together."""
    return grid.at_most(CORRESPONDENCE_SIDE).one_frame


class CorrespondenceSum:
    """The correspondence of one reference, added up over heads, pooled to cells on both sides."""

    def __init__(self, zeros: Callable[..., Tensor], batch: int, rows: Grid, keys: Grid) -> None:
        self._rows, self._keys = rows, keys
        self._to, self._columns = correspondence_grid(rows), correspondence_grid(keys)
        self._sums = zeros(batch, self._to.height, self._to.width, 2, self._columns.area)
        self._lines: tuple[Tensor, Tensor] | None = None
        if rows != self._to:
            down, across = pooling_weights(rows, self._to)
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
        for tokens, line, lines, columns in row_runs(tile, self._rows):
            # (items, lines, columns, 2 × keys), first across and then down
            run = pairs[:, tokens].reshape(len(pairs), lines, -1, 2 * self._columns.area)
            run = across[:, columns] @ run
            share = down[:, line : line + lines]
            touched = share.any(1).nonzero()
            cells = slice(int(touched[0]), int(touched[-1]) + 1)
            into = self._sums[items, cells]
            into += (share[cells].to(run) @ run.flatten(2)).view_as(into)
