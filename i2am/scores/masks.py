"""Attribution map → mask: where to cut the map, and how to grow and soften the mask."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor
from torch.nn.functional import conv1d, max_pool2d, pad

from ..errors import I2AMError
from ..maps import FLAT, AttributionMap
from ..tokens import resample_nonnegative

_BINS = 256  # in the histogram for Otsu's cut
_FEATHER_SIGMAS = 3  # standard deviations in the width of an edge: 87 % of the way from 0 to 1


class Method(str, Enum):
    """How to find the value at which the mask begins."""

    OTSU = "Otsu"  # best separates bright from dark places: Otsu, IEEE Trans. SMC 9(1), 1979
    THRESHOLD = "threshold"  # a percentage of the way from the map's lowest to its highest value
    TOP = "top percent"  # the highest places, a percentage of the picture
    AREA = "area"  # the fewest places that together hold a percentage of the attention


def mask_of(
    map: AttributionMap, size: tuple[int, int], method: Method = Method.OTSU, percent: float = 50.0
) -> Tensor:
    """A map → the mask of the places where it is high: (batch, height, width), 0 or 1.

    The map is resized to the picture first, so that the mask has a smooth edge. size: the picture's
    (height, width). percent: 0 to 100; its meaning depends on the method, and Otsu's does not use
    it.

    Raises I2AMError for several maps or a flat map.
    """
    if map.values.shape[1] != 1:
        raise I2AMError(f"A mask is made of one map, but there are {map.values.shape[1]}.")
    values = resample_nonnegative(map.values[:, 0], map.grid, size)
    low, high = map.values.flatten(1).aminmax(dim=1)
    flat = high - low <= FLAT * high
    if bool(flat.any()):
        which = f" of picture {int(flat.nonzero()[0]) + 1}" if len(flat) > 1 else ""
        raise I2AMError(
            f"The map{which} is the same everywhere, so no place of it stands out and no mask can "
            "be made. Look at it in Attribution Map, and choose another direction or reference."
        )
    levels = torch.stack([_level(line, method, percent / 100) for line in values.flatten(1)])
    return (values >= levels[:, None, None]).float()


def _level(values: Tensor, method: Method, part: float) -> Tensor:
    """One map (pixels,) → the lowest value that belongs to the mask: ()."""
    low, high = values.aminmax()
    match method:
        case Method.THRESHOLD:
            return low + part * (high - low)
        case Method.OTSU:
            return _otsu(values)
        case Method.TOP:
            count = max(1, round(part * len(values)))
            return values.sort(descending=True).values[count - 1]
        case Method.AREA:
            ordered = values.sort(descending=True).values
            held = ordered.double().cumsum(0)
            count = int((held < part * held[-1]).sum())
            return ordered[min(count, len(values) - 1)]


def _otsu(values: Tensor) -> Tensor:
    """Otsu's cut: it maximises the variance between the values below and the others."""
    low, high = values.aminmax()
    place = ((values - low) / (high - low) * _BINS).long().clamp(max=_BINS - 1)
    count = torch.bincount(place, minlength=_BINS).double()
    total = torch.zeros(_BINS, dtype=torch.float64).index_add_(
        0, place.cpu(), values.double().cpu()
    )
    below, sum_below = count.cumsum(0)[:-1], total.cumsum(0)[:-1]
    above, sum_above = count.sum() - below, total.sum() - sum_below
    between = below * above * (sum_above / above.clamp(min=1) - sum_below / below.clamp(min=1)) ** 2
    # All cuts within a run of empty bins are equal: take the middle, away from both sides.
    best = (between >= between.max() * (1 - 1e-9)).nonzero().flatten()
    cut = float(best[0] + best[-1]) / 2 + 1
    return low + cut / _BINS * (high - low)


def grow(mask: Tensor, pixels: int) -> Tensor:
    """A mask (batch, h, w) → its edge moved outwards by `pixels`, inwards if negative."""
    if pixels < 0:
        return 1 - grow(1 - mask, -pixels)
    if pixels == 0:
        return mask
    side = 2 * pixels + 1
    taller = max_pool2d(mask[:, None], (side, 1), 1, (pixels, 0))
    return max_pool2d(taller, (1, side), 1, (0, pixels))[:, 0]


def feather(mask: Tensor, pixels: float) -> Tensor:
    """A mask (batch, h, w) → its edge faded over `pixels`, half of them on each side.

    Uses a Gaussian with a standard deviation of `pixels` / 3; the border of the picture repeats.
    """
    if pixels <= 0:
        return mask
    sigma = pixels / _FEATHER_SIGMAS
    reach = int(3 * sigma) + 1
    taps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(mask)[None, None]
    for _ in range(2):  # along the rows, then along the columns
        batch, height, width = mask.shape
        lines = pad(mask.reshape(-1, 1, width), (reach, reach), mode="replicate")
        mask = conv1d(lines, kernel).reshape(batch, height, width).mT
    return mask.clamp(0, 1)
