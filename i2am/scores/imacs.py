"""IMACS: does the attention lie where the mask says it should? I2AM's score, as in its code."""

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

EPSILON = 1e-8  # in the authors' norm: keeps a flat map at 0
PENALTY = 3.0  # the authors' lambda
THRESHOLD = 0.4  # the authors' cut
TAIL = 0.01  # fraction of the cells that the robust preset cuts off at each end


class Preset(str, Enum):
    """How a map is scaled to 0..1."""

    PAPER = "paper"  # `paper_normalise` and the cut: comparable with published numbers
    ROBUST = "robust"  # `robust_normalise` and no cut: one stray cell cannot flatten the rest


@dataclass(frozen=True)
class Score:
    """IMACS and the numbers reported with it, each (batch,).

    inside, outside: the two means IMACS is made of. share_inside: the fraction of the raw map's
    attention inside the mask, 0 to 1. area: the fraction of the picture the mask covers, which is
    share_inside for an even spread. entropy: how far the raw map is spread, Shannon's entropy over
    its cells divided by its maximum: 0 one cell, 1 even. Preset, penalty, threshold and complement
    do not affect these last three. A map of zeros has NaN for share_inside and entropy.
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
    """Map and mask → the mean inside the mask minus `penalty` times that outside: -penalty to 1.

    mask: (height, width) or (batch or 1, height, width), inside where >= 0.5.
    threshold: values not above it count as 0; the robust preset has none.
    complement: score 1 - map, as the authors' code does for models with one reference token.
    size: (height, width) of the picture, to check the mask against. name: the mask, for messages.

    Raises I2AMError for several maps, and for a mask that is empty or full or has NaN, other
    proportions or another batch size. Source: `cal_IMACS` in the authors' hook.py.
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
    """(batch, h, w) → the fraction of each map's mass inside a mask: (batch,), 0 to 1.

    inside: (batch or 1, height, width), over the picture. A partly covered cell counts in part.
    """
    cells = values.double().flatten(1)
    return ((cells * mask_coverage(inside.float(), grid)).sum(1) / cells.sum(1)).float()


def entropy(values: Tensor) -> Tensor:
    """(batch, h, w) → how far each map is spread over its cells: (batch,), 0 one cell, 1 even."""
    cells = values.double().flatten(1)
    parts = cells / cells.sum(1, keepdim=True)
    return (-torch.xlogy(parts, parts).sum(1) / math.log(cells.shape[1])).float()


def paper_normalise(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Maps over a grid → 0..1 over a picture: (..., h, w) to (..., height, width).

    The authors' norm, bicubic without a clamp, norm again; norm(x) = (x - min) / (max - min + e).
    Their e = 1e-8 distorts maps with values of about 1e-6, typical of means over thousands of
    tokens. A map is therefore first scaled to mean one; the rest of min-max does not depend on
    scale.
    """
    return _norm(resample(_norm(_mean_one(values)), grid, size))


def robust_normalise(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """As `paper_normalise`, but from the 1st to the 99th percentile of the cells, not min-max.

    Values beyond are clamped. The percentiles are rounded inwards to a whole cell, so at least the
    highest and the lowest cell are cut off on any grid.
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
    """(batch, height, width) → the mean where (batch or 1, height, width) is true: (batch,)."""
    total = (values * where).sum((-2, -1), dtype=torch.float64)
    return (total / where.sum((-2, -1))).float()


def _inside(mask: Tensor, batch: int, size: tuple[int, int] | None, name: str) -> Tensor:
    """A mask → checked, as bool: (batch or 1, height, width)."""
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
