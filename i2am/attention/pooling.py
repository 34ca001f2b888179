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


class PooledRows:
    """Values of generated tokens, added up and pooled to the cells of `correspondence_grid`.

    zeros: makes a tensor of this shape. rows: the grid of the result. width: values of each token.
    """

    def __init__(self, zeros: Callable[..., Tensor], batch: int, rows: Grid, width: int) -> None:
        self._rows, self._width = rows, width
        cells = correspondence_grid(rows)
        self._sums = zeros(batch, cells.height, cells.width, width)
        self._pooling: tuple[Tensor, Tensor] | None = None
        if rows != cells:
            down, across = pooling_weights(rows, cells)
            self._pooling = down, across.to(self._sums)  # `down` stays on the CPU, to be read

    def mean(self, times: int) -> Tensor:
        """Mean of what was added `times` times: (batch, cells, width)."""
        return self._sums.div_(times * self._rows.frames).flatten(1, 2)

    def add(self, items: slice, tile: slice, values: Tensor) -> None:
        """Add some rows of some items: (items, rows, width)."""
        if self._pooling is None:
            self._sums.flatten(1, 2)[items, tile] += values
            return
        down, across = self._pooling
        for tokens, line, lines, columns in row_runs(tile, self._rows):
            # (items, lines, columns, width), first across and then down
            run = values[:, tokens].reshape(len(values), lines, -1, self._width)
            run = across[:, columns] @ run
            line_weights = down[:, line : line + lines]
            touched = line_weights.any(1).nonzero()
            cells = slice(int(touched[0]), int(touched[-1]) + 1)
            into = self._sums[items, cells]
            into += (line_weights[cells].to(run) @ run.flatten(2)).view_as(into)


class CorrespondenceSum:
    """The correspondence of one reference, added up over heads and pooled on both sides.

    zeros: makes a tensor of this shape. rows, keys: the grids of the result and the reference.
    kinds: how many weightings of the same rows are kept.
    """

    def __init__(
        self, zeros: Callable[..., Tensor], batch: int, rows: Grid, keys: Grid, kinds: int = 2
    ) -> None:
        self._keys, self._key_cells, self._kinds = keys, correspondence_grid(keys), kinds
        self._pooled = PooledRows(zeros, batch, rows, kinds * self._key_cells.area)

    def mean(self, heads: int) -> Tensor:
        """Mean over so many heads: (batch, kinds, generated cells, reference cells)."""
        pairs = self._pooled.mean(heads)  # (batch, generated cells, kinds × reference cells)
        return rearrange(pairs, "b cells (kinds r) -> b kinds cells r", kinds=self._kinds)

    def add(self, items: slice, tile: slice, weights: Tensor, values: Tensor) -> None:
        """Add some rows.

        weights: (items, heads, kinds, rows). values: (items, heads, rows, keys).
        """
        # For each row, (kinds, heads) @ (heads, keys): heads are added up before pooling.
        weights = rearrange(weights, "items heads kinds rows -> items rows kinds heads")
        pairs = weights.contiguous() @ values.transpose(1, 2)  # (items, rows, kinds, keys)
        self._pooled.add(items, tile, spread(pairs, self._keys, self._key_cells).flatten(2))
