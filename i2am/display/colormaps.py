"""Colour tables of 256 entries. The pack has no others: the viewer gets its tables from here."""

from __future__ import annotations

from enum import Enum
from functools import cache

import torch
from torch import Tensor

from ..errors import I2AMError

ENTRIES = 256


class Colormap(str, Enum):
    """From low to high. All but turbo and jet grow steadily lighter, so they also work in grey."""

    VIRIDIS = "viridis"
    INFERNO = "inferno"
    MAGMA = "magma"
    TURBO = "turbo"
    GREY = "grey"
    JET = "jet"  # for comparison with the paper's figures; it shows edges where there are none


class Diverging(str, Enum):
    """From less to more, with zero in the middle."""

    BLUE_ORANGE = "blue to orange"  # distinct with every kind of colour vision


# Every 17th entry of the published tables: viridis, inferno and magma by Stéfan van der Walt and
# Nathaniel Smith (CC0), turbo by Anton Mikhailov (Google, Apache-2.0). Linear interpolation
# between them in sRGB stays within 7/255 of the full tables; turbo's own polynomial is off by
# 32/255.
_STOPS = {
    Colormap.VIRIDIS: "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e "
    "1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725",
    Colormap.INFERNO: "000004 0c0826 240c4f 420a68 5d126e 781c6d 932667 ae305c "
    "c73e4c dd513a ed6925 f8850f fca50a fac62d f2e661 fcffa4",
    Colormap.MAGMA: "000004 0b0924 20114b 3b0f70 57157e 721f81 8c2981 a8327d "
    "c43c75 de4968 f1605d fa7f5e fe9f6d febf84 fddea0 fcfdbf",
    Colormap.TURBO: "30123b 4143a7 4771e9 3e9bfe 22c5e2 1ae4b6 46f884 88ff4e "
    "b9f635 e1dd37 faba39 fd8d27 f05b12 d63506 af1801 7a0403",
    Colormap.GREY: "000000 ffffff",
    Diverging.BLUE_ORANGE: "7cc4ff 2f86f6 1b3f86 26262a 8a4312 f07d1a ffc27a",
}


@cache
def table(colormap: Colormap | Diverging) -> Tensor:
    """A colour map → its colours, low to high: (256, 3), float32 sRGB in 0..1.

    The tensor is shared: do not write to it.
    """
    x = torch.linspace(0, 1, ENTRIES)
    if colormap is Colormap.JET:
        # One trapezium for each channel, a quarter of the range apart.
        return (1.5 - 4 * (x[:, None] - torch.tensor([0.75, 0.5, 0.25])).abs()).clamp(0, 1)
    stops = [tuple(bytes.fromhex(stop)) for stop in _STOPS[colormap].split()]
    return _between(torch.tensor(stops) / 255, x)


def colorize(values: Tensor, colormap: Colormap | Diverging) -> Tensor:
    """Values in 0..1 (...) → colours (..., 3), interpolated between entries.

    Values outside 0..1 get the colours of the ends. Raises I2AMError for NaN.
    """
    if values.isnan().any():
        raise I2AMError(
            "A map cannot be coloured where it is not a number, "
            f"and {int(values.isnan().sum())} of its {values.numel()} values are NaN. "
            "The model gave NaN too: try another precision or seed."
        )
    return _between(table(colormap).to(values.device), values.float().clamp(0, 1))


def _between(colors: Tensor, x: Tensor) -> Tensor:
    """x in 0..1 → linear interpolation of evenly spaced colours (n, 3): (..., 3)."""
    place = x * (len(colors) - 1)
    left = place.long().clamp(max=len(colors) - 2)
    return colors[left].lerp(colors[left + 1], (place - left)[..., None])
