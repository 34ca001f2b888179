"""The best match in the reference for each place of the result."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..tokens import Grid
from .correspondence import Correspondence


@dataclass(frozen=True)
class BestMatches:
    """Each place of the result and the place of the reference it looks at most.

    best: (batch, result cells), a reference cell. confidence: the part of what the place gives
    the reference that falls on that cell, 0 to 1. mutual: whether no other place of the result
    gives that cell a larger part. None of it means anything where a place looks nowhere.
    """

    best: Tensor
    confidence: Tensor
    mutual: Tensor
    result: Grid
    reference: Grid

    @property
    def steps(self) -> Tensor:
        """From each place to its match, in parts of the picture: (batch, result cells, 2), x, y."""
        return _centres(self.reference)[self.best] - _centres(self.result)

    def ends(self, item: int, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Where some cells of the result are, and their matches: two of (cells, 2), x, y in 0–1."""
        return _centres(self.result)[cells], _centres(self.reference)[self.best[item, cells]]


def best_matches(pairs: Correspondence) -> BestMatches:
    """Every place of the result and its best match in the reference."""
    looks = pairs.looks
    confidence, best = looks.max(-1)
    back = looks.argmax(1).gather(1, best)
    mutual = (back == torch.arange(pairs.result.area)) & (confidence > 0)
    return BestMatches(best, confidence, mutual, pairs.result, pairs.reference)


def _centres(grid: Grid) -> Tensor:
    """The middle of every cell, in parts of the picture: (area, 2), x, y."""
    rows = (torch.arange(grid.height) + 0.5) / grid.covered[0]
    columns = (torch.arange(grid.width) + 0.5) / grid.covered[1]
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), -1).flatten(0, 1).clamp(max=1)
