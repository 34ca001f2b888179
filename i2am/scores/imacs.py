"""IMACS: does the attention lie where the mask says it should? I2AM's score, as its code has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ..errors import I2AMError
from ..maps import AttributionMap
from ..tokens import Grid, mask_coverage, resample
from .fitting import fitting_mask

EPSILON = 1e-8  # of the authors' norm: keeps a flat map at 0
PENALTY = 3.0  # the authors' lambda
THRESHOLD = 0.4  # the authors' cut
TAIL = 0.01  # of the cells, cut off at each end by the robust preset


class Preset(str, Enum):
    """How a map is brought to 0..1."""

    PAPER = "paper"  # `paper_normalise` and the cut: comparable with published numbers
    ROBUST = "robust"  # `robust_normalise` and no cut: one stray cell cannot flatten the rest


@dataclass(frozen=True)
class Score:
    """IMACS and what stands beside it, one of each for every batch item: (batch,).

    inside, outside: the two means it is made of. share_inside: the part of the raw map's attention
    that lies inside the mask, 0 to 1; area: the part of the picture the mask covers, which is what
    share_inside would be if attention were spread evenly. entropy: how far the raw map is spread,
    Shannon's over its cells divided by its highest: 0 all in one cell, 1 evenly. The last three
    know no preset, penalty, threshold or complement. A map of nothing has neither share nor
    entropy: not a number.
    """

    imacs: Tensor
    inside: Tensor
    outside: Tensor
    share_inside: Tensor
    area: Tensor
    entropy: Tensor


def imacs_score(
    map: AttributionMap,
    mask: Tensor,
    *,
    preset: Preset = Preset.PAPER,
    penalty: float = PENALTY,
    threshold: float = THRESHOLD,
    complement: bool = False,
    size: tuple[int, int] | None = None,
    name: str = "mask",
) -> Score:
    """Mean of the map inside the mask minus `penalty` times its mean outside: -penalty to 1.

    mask: (height, width) or (batch or 1, height, width), inside where >= 0.5.
    threshold: what is not above it counts as 0; the robust preset has none.
    complement: score 1 - map, as the authors' code does for models with one reference token.
    size: (height, width) of the picture, to hold the mask against; name: the mask, for messages.

    Raises I2AMError for several maps, and for a mask that is not a number somewhere, of other
    proportions or batch, empty or full. Source: `cal_IMACS` in the authors' hook.py.
    """
    batch, maps = map.values.shape[:2]
    if maps != 1:
        raise I2AMError(
            f"IMACS scores one map for each picture, but at the {map.level.value} level there "
            f"are {maps}. Choose the unified level."
        )
    inside = _inside(mask, batch, size, name)
    values, picture = map.values[:, 0], (inside.shape[-2], inside.shape[-1])
    if preset is Preset.PAPER:
        values = paper_normalise(values, map.grid, picture)
    else:
        values = robust_normalise(values, map.grid, picture)
    if complement:
        values = 1 - values  # before the cut: the authors' order
    if preset is Preset.PAPER:
        values = torch.where(values > threshold, values, 0)
    mean_inside, mean_outside = _mean(values, inside), _mean(values, ~inside)
    return Score(
        imacs=mean_inside - penalty * mean_outside,
        inside=mean_inside,
        outside=mean_outside,
        share_inside=share_inside(map.values[:, 0], map.grid, inside),
        area=inside.float().mean((-2, -1)).expand(batch),
        entropy=entropy(map.values[:, 0]),
    )


def share_inside(values: Tensor, grid: Grid, inside: Tensor) -> Tensor:
    """The part of each map's mass that lies inside a mask: (batch, h, w) to (batch,), 0 to 1.

    inside: (batch or 1, height, width), over the picture; a cell it covers in part counts in part.
    """
    cells = values.double().flatten(1)
    return ((cells * mask_coverage(inside.float(), grid)).sum(1) / cells.sum(1)).float()


def entropy(values: Tensor) -> Tensor:
    """How far each map is spread over its cells: (batch, h, w) to (batch,), 0 one cell, 1 even."""
    cells = values.double().flatten(1)
    parts = cells / cells.sum(1, keepdim=True)
    return (-torch.xlogy(parts, parts).sum(1) / math.log(cells.shape[1])).float()


def paper_normalise(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Maps over a grid to 0..1 over a picture: (..., h, w) to (..., height, width).

    The authors' norm, bicubic without a clamp, norm again; norm(x) = (x - min) / (max - min + e).
    Their e = 1e-8 bends maps whose values are about 1e-6, which means over thousands of tokens
    are, so a map is first brought to mean one: nothing else in min-max depends on its scale.
    """
    return _norm(resample(_norm(_mean_one(values)), grid, size))


def robust_normalise(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """As `paper_normalise`, from the 1st to the 99th percentile of the cells instead of min-max.

    What lies beyond is clamped. The percentiles are taken inwards to a whole cell, so that at
    least the one highest and the one lowest cell are left out of any grid.
    """
    values = _mean_one(values)
    cells = values.flatten(-2)
    low = cells.quantile(TAIL, -1, interpolation="higher")[..., None, None]
    high = cells.quantile(1 - TAIL, -1, interpolation="lower")[..., None, None]
    scaled = (values - low) / ((high - low).clamp(min=0) + EPSILON)
    return resample(scaled.clamp(0, 1), grid, size).clamp(0, 1)


def _mean_one(values: Tensor) -> Tensor:
    values = values.float()
    mean = values.abs().mean((-2, -1), keepdim=True)
    return values / torch.where(mean > 0, mean, 1)


def _norm(values: Tensor) -> Tensor:
    low, high = values.amin((-2, -1), keepdim=True), values.amax((-2, -1), keepdim=True)
    return (values - low) / (high - low + EPSILON)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """The mean of (batch, height, width) over (batch or 1, height, width): (batch,)."""
    total = (values * where).sum((-2, -1), dtype=torch.float64)
    return (total / where.sum((-2, -1))).float()


def _inside(mask: Tensor, batch: int, size: tuple[int, int] | None, name: str) -> Tensor:
    """The checked mask as bool, (batch or 1, height, width)."""
    mask = fitting_mask(mask, batch, size, name)
    inside = mask >= 0.5
    for fills, word, found in (
        (~inside.flatten(1).any(1), "empty", "no pixel is"),
        (inside.flatten(1).all(1), "full", "all pixels are"),
    ):
        if fills.any():
            number = int(fills.nonzero()[0])
            which = f" number {number + 1}" if mask.shape[0] > 1 else ""
            raise I2AMError(
                f"The {name}{which} is {word}: {found} at 0.5 or above, so IMACS has nothing to "
                "compare. Paint the object alone, and leave the rest out."
            )
    return inside
