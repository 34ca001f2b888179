"""The tables against the colours their authors published, and what makes them readable."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from i2am.display import Colormap, colorize
from i2am.display.colormaps import ENTRIES, table
from i2am.errors import I2AMError

STEADY = (Colormap.VIRIDIS, Colormap.INFERNO, Colormap.MAGMA, Colormap.GREY)

# Entries of the full tables that are not among our stops: (index, colour).
PUBLISHED = {
    Colormap.VIRIDIS: ((64, (59, 82, 139)), (128, (33, 145, 140)), (192, (94, 201, 98))),
    Colormap.INFERNO: ((64, (87, 16, 110)), (128, (188, 55, 84)), (192, (249, 142, 9))),
    Colormap.MAGMA: ((64, (81, 18, 124)), (128, (183, 55, 121)), (192, (252, 137, 97))),
    Colormap.TURBO: ((64, (40, 188, 235)), (128, (164, 252, 60)), (192, (251, 126, 33))),
}


def lightness(colors: Tensor) -> Tensor:
    """CIE L* of sRGB."""
    linear = torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    light = linear.double() @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)
    return torch.where(light > 0.008856, 116 * light ** (1 / 3) - 16, 903.3 * light)


@pytest.mark.parametrize("colormap", Colormap)
def test_every_table_is_colours(colormap: Colormap) -> None:
    colors = table(colormap)
    assert colors.shape == (ENTRIES, 3)
    assert colors.dtype == torch.float32
    assert 0 <= colors.min() <= colors.max() <= 1


@pytest.mark.parametrize("colormap", STEADY)
def test_lightness_only_grows(colormap: Colormap) -> None:
    assert lightness(table(colormap)).diff().min() > 0.1


@pytest.mark.parametrize("colormap", PUBLISHED)
def test_tables_are_the_published_ones(colormap: Colormap) -> None:
    for index, color in PUBLISHED[colormap]:
        assert (table(colormap)[index] * 255 - torch.tensor(color)).abs().max() < 7


@pytest.mark.parametrize(
    ("colormap", "low", "high"),
    [
        (Colormap.VIRIDIS, (68, 1, 84), (253, 231, 37)),
        (Colormap.INFERNO, (0, 0, 4), (252, 255, 164)),
        (Colormap.MAGMA, (0, 0, 4), (252, 253, 191)),
        (Colormap.TURBO, (48, 18, 59), (122, 4, 3)),
        (Colormap.GREY, (0, 0, 0), (255, 255, 255)),
        (Colormap.JET, (0, 0, 128), (128, 0, 0)),
    ],
)
def test_ends(colormap: Colormap, low: tuple[int, ...], high: tuple[int, ...]) -> None:
    ends = table(colormap)[[0, -1]] * 255
    assert torch.allclose(ends, torch.tensor([low, high]).float(), atol=0.51)


def test_values_outside_count_as_the_ends() -> None:
    colors = colorize(torch.tensor([-1.0, 2.0, float("inf")]), Colormap.VIRIDIS)
    assert torch.equal(colors, table(Colormap.VIRIDIS)[[0, -1, -1]])


@pytest.mark.parametrize("colormap", Colormap)
def test_entries_are_met_and_blended_between(colormap: Colormap) -> None:
    colors = table(colormap)
    at = torch.arange(ENTRIES) / (ENTRIES - 1)
    assert torch.allclose(colorize(at, colormap), colors, atol=1e-4)
    halfway = (at[:-1] + at[1:]) / 2
    assert torch.allclose(colorize(halfway, colormap), (colors[:-1] + colors[1:]) / 2, atol=1e-4)


def test_shape_is_kept_and_input_untouched() -> None:
    values = torch.rand(2, 3, 4)
    before = values.clone()
    assert colorize(values, Colormap.TURBO).shape == (2, 3, 4, 3)
    assert torch.equal(values, before)


def test_nan_is_refused() -> None:
    with pytest.raises(I2AMError, match="1 of its 2 values are NaN"):
        colorize(torch.tensor([0.5, float("nan")]), Colormap.GREY)
