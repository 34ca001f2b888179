"""The best match in the reference for each place of the result."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..tokens import Grid
from .correspondence import Correspondence


@dataclass(frozen=True)
class BestMatches:
    """For each place of the result, the place of the reference it attends to most.

    best: (batch, result cells), a reference cell. confidence: the fraction of the place's attention
    to the reference that falls on that cell, 0 to 1. mutual: whether no other place of the result
    gives that cell a larger fraction. None of these has a meaning for a place that gives the
    reference no attention.
    """

    best: Tensor
    confidence: Tensor
    mutual: Tensor
    result: Grid
    reference: Grid

    @property
    def steps(self) -> Tensor:
        """From each place to its match: (batch, result cells, 2), x, y as picture fractions."""
        return _centres(self.reference)[self.best] - _centres(self.result)

    def ends(self, item: int, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Cells of the result → their centres and their matches: two of (cells, 2), x, y in 0–1."""
        return _centres(self.result)[cells], _centres(self.reference)[self.best[item, cells]]


def best_matches(pairs: Correspondence) -> BestMatches:
    """Correspondence → the best match in the reference for every place of the result."""
    looks = pairs.looks
    confidence, best = looks.max(-1)
    back = looks.argmax(1).gather(1, best)
    mutual = (back == torch.arange(pairs.result.area)) & (confidence > 0)
    return BestMatches(best, confidence, mutual, pairs.result, pairs.reference)


def _centres(grid: Grid) -> Tensor:
    """The centre of every cell, as fractions of the picture: (area, 2), x, y."""
    rows = (torch.arange(grid.height) + 0.5) / grid.covered[0]
    columns = (torch.arange(grid.width) + 0.5) / grid.covered[1]
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), -1).flatten(0, 1).clamp(max=1)
