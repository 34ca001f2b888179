"""Two attribution maps → their difference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import I2AMError
from ..tokens import resample_nonnegative
from .values import FLAT, AttributionMap, caption, display_values


@dataclass(frozen=True)
class Comparison:
    """How two maps differ over a picture, for each batch item.

    difference: (batch, height, width), the second minus the first, in the units of
    `display_values`. correlation: (batch,), Pearson's over the picture's pixels, -1 to 1; NaN where
    a map is flat. highest: (batch,), the largest absolute difference; zero where it is rounding
    noise.
    """

    difference: Tensor
    correlation: Tensor
    highest: Tensor


def compare_maps(
    first: AttributionMap, second: AttributionMap, size: tuple[int, int]
) -> Comparison:
    """Two maps of one kind → how they differ, over a picture of (height, width) pixels.

    Their grids may differ. A single map is compared with every item of the other's batch.

    Raises I2AMError for maps of different kinds or of batches that do not match.
    """
    if caption(first) != caption(second):
        raise I2AMError(f"{caption(first)} cannot be compared with {caption(second)}.")
    counts = len(first.values), len(second.values)
    if 1 not in counts and counts[0] != counts[1]:
        raise I2AMError(
            f"The first attribution holds {counts[0]} pictures and the other {counts[1]}. "
            "Compare runs with equally many pictures, or with one."
        )
    one, two = (
        resample_nonnegative(display_values(map)[:, 0], map.grid, size).expand(max(counts), -1, -1)
        for map in (first, second)
    )
    difference = two - one
    highest = difference.abs().amax((-2, -1))
    level = torch.maximum(one, two).amax((-2, -1))
    highest = torch.where(highest <= FLAT * level, 0, highest)
    return Comparison(difference, _correlation(one, two), highest)


def _correlation(one: Tensor, two: Tensor) -> Tensor:
    one, two = (_standard(values.double().flatten(1)) for values in (one, two))
    return (one * two).mean(1).float()


def _standard(values: Tensor) -> Tensor:
    """(batch, pixels) → each item with mean 0 and variance 1; NaN where it is flat."""
    low, high = values.aminmax(dim=1, keepdim=True)
    centred = values - values.mean(1, keepdim=True)
    flat = high - low <= FLAT * high
    return torch.where(flat, torch.nan, centred / centred.square().mean(1, keepdim=True).sqrt())
