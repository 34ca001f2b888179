"""The correspondence of one call, pooled to coarse cells on both sides as it is computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from einops import rearrange
from torch import Tensor

from ..tokens import Grid, pooling_weights, row_runs, spread

CORRESPONDENCE_SIDE = 32


@lru_cache(maxsize=64)
def correspondence_grid(grid: Grid) -> Grid:
    """The grid that one side of a correspondence is pooled to; a video's frames are averaged."""
    return grid.shrunk_to(CORRESPONDENCE_SIDE).one_frame


class CorrespondenceSum:
    """The correspondence of one reference, added up over heads and pooled on both sides.

    zeros: makes a tensor of this shape. rows, keys: the grids of the result and the reference.
    kinds: how many weightings of the same rows are kept.
    """

    def __init__(
        self, zeros: Callable[..., Tensor], batch: int, rows: Grid, keys: Grid, kinds: int = 2
    ) -> None:
        self._rows, self._keys, self._kinds = rows, keys, kinds
        row_cells, self._key_cells = correspondence_grid(rows), correspondence_grid(keys)
        self._sums = zeros(batch, row_cells.height, row_cells.width, kinds, self._key_cells.area)
        self._pooling: tuple[Tensor, Tensor] | None = None
        if rows != row_cells:
            down, across = pooling_weights(rows, row_cells)
            self._pooling = down, across.to(self._sums)  # `down` stays on the CPU, to be read

    def mean(self, heads: int) -> Tensor:
        """Mean over so many heads: (batch, kinds, generated cells, reference cells)."""
        return self._sums.div_(heads * self._rows.frames).flatten(1, 2).transpose(1, 2)

    def add(self, items: slice, tile: slice, weights: Tensor, values: Tensor) -> None:
        """Add some rows.

        weights: (items, heads, kinds, rows). values: (items, heads, rows, keys).
        """
        # For each row, (kinds, heads) @ (heads, keys): heads are added up before pooling.
        weights = rearrange(weights, "items heads kinds rows -> items rows kinds heads")
        pairs = weights.contiguous() @ values.transpose(1, 2)  # (items, rows, kinds, keys)
        pairs = spread(pairs, self._keys, self._key_cells)
        if self._pooling is None:
            self._sums.flatten(1, 2)[items, tile] += pairs
            return
        down, across = self._pooling
        for tokens, line, lines, columns in row_runs(tile, self._rows):
            # (items, lines, columns, kinds × keys), first across and then down
            run = pairs[:, tokens].reshape(
                len(pairs), lines, -1, self._kinds * self._key_cells.area
            )
            run = across[:, columns] @ run
            line_weights = down[:, line : line + lines]
            touched = line_weights.any(1).nonzero()
            cells = slice(int(touched[0]), int(touched[-1]) + 1)
            into = self._sums[items, cells]
            into += (line_weights[cells].to(run) @ run.flatten(2)).view_as(into)
