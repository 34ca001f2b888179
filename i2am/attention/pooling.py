"""The correspondence of one call, pooled to coarse cells on both sides as it is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from ..tokens import Grid, pooling_weights, row_runs, spreading_weights

CORRESPONDENCE_SIDE = 32


@lru_cache(maxsize=64)
def correspondence_grid(grid: Grid) -> Grid:
    """The grid that one side of a correspondence is pooled to; a video's frames are averaged."""
    return grid.shrunk_to(CORRESPONDENCE_SIDE).one_frame


@dataclass(frozen=True)
class _Weights:
    """How the tokens of a frame are added up to cells.

    down: (cells, tokens) of the vertical axis, across: of the horizontal one. touched: for each
    line of tokens, the first and the last row of cells it lies in.
    """

    down: Tensor
    across: Tensor
    touched: tuple[tuple[int, int], ...]


@lru_cache(maxsize=32)  # on the device for all calls: to copy them there would make it wait
def _weights(grid: Grid, mean: bool, device: torch.device) -> _Weights:
    """To the cells of `correspondence_grid`: their mean, or their sum."""
    cells = correspondence_grid(grid)
    down, across = (pooling_weights if mean else spreading_weights)(grid, cells)
    touched = [weights.nonzero().flatten() for weights in down.mT]
    lines = tuple((int(cells[0]), int(cells[-1])) for cells in touched)
    return _Weights(down.float().to(device), across.float().to(device), lines)


class PooledRows:
    """Values of generated tokens, added up and pooled to the cells of `correspondence_grid`.

    zeros: makes a tensor of this shape. rows: the grid of the result. width: values of each token.
    """

    def __init__(self, zeros: Callable[..., Tensor], batch: int, rows: Grid, width: int) -> None:
        self._rows, self._width = rows, width
        cells = correspondence_grid(rows)
        self._sums = zeros(batch, cells.height, cells.width, width)
        self._weights = None if rows == cells else _weights(rows, True, self._sums.device)

    @property
    def device(self) -> torch.device:
        """Where they are added up."""
        return self._sums.device

    def mean(self, times: int) -> Tensor:
        """Mean of what was added `times` times: (batch, cells, width)."""
        return self._sums.div_(times * self._rows.frames).flatten(1, 2)

    def add(self, items: slice, tile: slice, values: Tensor) -> None:
        """Add some rows of some items: (items, rows, width)."""
        if self._weights is None:
            self._sums.flatten(1, 2)[items, tile] += values
            return
        down, across, touched = self._weights.down, self._weights.across, self._weights.touched
        for tokens, line, lines, columns in row_runs(tile, self._rows):
            # (items, lines, columns, width), first across and then down
            run = values[:, tokens].reshape(len(values), lines, -1, self._width)
            run = across[:, columns] @ run
            cells = slice(touched[line][0], touched[line + lines - 1][1] + 1)
            into = self._sums[items, cells]
            into += (down[cells, line : line + lines] @ run.flatten(2)).view_as(into)


class CorrespondenceSum:
    """The correspondence of one reference, added up over heads and pooled on both sides.

    zeros: makes a tensor of this shape. rows, keys: the grids of the result and the reference.
    kinds: how many weightings of the same rows are kept.
    """

    def __init__(
        self, zeros: Callable[..., Tensor], batch: int, rows: Grid, keys: Grid, kinds: int = 2
    ) -> None:
        cells = correspondence_grid(keys)
        self._keys, self._kinds = keys, kinds
        self._pooled = PooledRows(zeros, batch, rows, kinds * cells.area)
        self._weights = None if keys == cells else _weights(keys, False, self._pooled.device)

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
        by_row = weights.contiguous(), values.transpose(1, 2)
        # (items, rows, kinds, keys); one product of all items would copy the values first.
        pairs = torch.stack([one @ those for one, those in zip(*by_row, strict=True)])
        if self._weights is not None:
            keys = self._keys
            pairs = pairs.view(*pairs.shape[:-1], keys.frames, keys.height, keys.width)
            pairs = pairs.squeeze(-3) if keys.frames == 1 else pairs.sum(-3)
            pairs = self._weights.down @ pairs @ self._weights.across.mT
        self._pooled.add(items, tile, pairs.flatten(2))
