"""The truth test of a map, without ground truth: mute what it points at, or an equal part."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import I2AMError
from ..tokens import Grid, mask_coverage


def top_fraction(values: Tensor, part: float) -> Tensor:
    """A map (height, width) → its highest cells, a fraction `part` of all: booleans."""
    count = max(1, round(part * values.numel()))
    top = torch.zeros(values.numel(), dtype=torch.bool)
    top[values.flatten().topk(count).indices] = True
    return top.view(values.shape)


def random_elsewhere(part: Tensor, seed: int) -> Tensor:
    """A part → the same shape moved elsewhere at random: booleans (height, width).

    It wraps around the edges and goes to one of the places that overlap the part least. The shape
    is kept because one piece and scattered cells are not equally easy to do without.
    """
    height, width = part.shape
    moves = [(y, x) for y in range(height) for x in range(width)]
    overlaps = [int((part & part.roll(move, (0, 1))).sum()) for move in moves]
    least = [move for move, o in zip(moves, overlaps, strict=True) if o == min(overlaps)]
    chosen = torch.randint(len(least), (), generator=torch.Generator().manual_seed(seed))
    return part.roll(least[int(chosen)], (0, 1))


def mean_change(plain: Tensor, other: Tensor, region: Tensor | None = None) -> float:
    """Two batches of pictures (batch, height, width, 3) → mean absolute difference in a region.

    Raises I2AMError for an empty region.
    """
    difference = (plain - other).abs().mean(-1)
    if region is None:
        return float(difference.mean())
    weights = mask_coverage(region, Grid(plain.shape[1], plain.shape[2]))
    if not bool((weights.sum(1) > 0).all()):
        raise I2AMError("The region is empty. Paint it white where the results are compared.")
    weights = weights.expand(len(difference), -1)
    return float((difference.flatten(1) * weights).sum() / weights.sum())
