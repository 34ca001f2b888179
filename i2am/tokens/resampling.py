"""Move values between grids of one picture: mass-preserving, averaging and interpolating."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import LayoutMismatch
from .grids import WHOLE_PICTURE, Grid, Rectangle

_CUBIC = -0.75  # the free parameter of torch's bicubic


# --- moving sums ---


def spread(maps: Tensor, source: Grid, target: Grid, part: Rectangle = WHOLE_PICTURE) -> Tensor:
    """Move mass between grids of one picture: (…, source area) → (…, target area).

    part: the part of the target's picture that the source is a grid of.
    Each cell's mass is spread evenly over the area it covers, so sums are kept, and a map moved
    to a grid that divides its cells evenly can be added up to what it was. Frames are kept, or
    added up if the target has one.

    Raises LayoutMismatch if the frames do not match.
    """
    if source == target and part == WHOLE_PICTURE:
        return maps
    if target.frames not in (1, source.frames):
        raise LayoutMismatch(f"{source.frames} frames cannot be spread over {target.frames}")
    rows = _rows_of(maps, source)
    down, across = _weights_on(rows.device, rows.dtype, source, target, part)
    if target.frames < source.frames:
        rows = rows.sum(-3, keepdim=True)
    return _apply(down, across, rows)


def spreading_weights(
    source: Grid, target: Grid, part: Rectangle = WHOLE_PICTURE
) -> tuple[Tensor, Tensor]:
    """The part of each source row and column that lies in each of the target's, as in `spread`.

    Float64, (target height, source height) and (target width, source width).
    """
    axes = zip(source.sides, source.covered, target.sides, target.covered, strict=True)
    parts = ((part.top, part.height), (part.left, part.width))
    down, across = (_overlap(*axis, *within) for axis, within in zip(axes, parts, strict=True))
    return down, across


@lru_cache(maxsize=32)  # copied for each call, they would make the processor wait for a card
def _weights_on(
    device: torch.device, dtype: torch.dtype, source: Grid, target: Grid, part: Rectangle
) -> tuple[Tensor, Tensor]:
    """`spreading_weights` in a precision, on a device."""
    down, across = spreading_weights(source, target, part)
    return down.to(device, dtype), across.to(device, dtype)


def invert_spread(maps: Tensor, source: Grid, target: Grid) -> Tensor:
    """Undo `spread` from `target` to the finer `source`: (…, source area) → (…, target area).

    A finer grid keeps everything, so this is exact.
    """
    if source == target:
        return maps
    down, across = (
        torch.pinverse(_overlap(cells, covered, finer, finer_covered))
        for cells, covered, finer, finer_covered in zip(
            target.sides, target.covered, source.sides, source.covered, strict=True
        )
    )
    return _apply(down, across, _rows_of(maps, source))


def _rows_of(maps: Tensor, grid: Grid) -> Tensor:
    """(…, area) → (…, frames, height, width)."""
    return maps.reshape(*maps.shape[:-1], grid.frames, grid.height, grid.width)


def _apply(down: Tensor, across: Tensor, rows: Tensor) -> Tensor:
    """Weights of both axes, (target, source) each, applied to rows: (…, target area)."""
    return (down.to(rows) @ rows @ across.to(rows).mT).flatten(-3)


# --- averaging ---


def mean_over_cells(rows: Tensor, source: Grid, target: Grid) -> Tensor:
    """Average (…, source area, n) over the source cells in each target cell, by their area."""
    if source == target:
        return rows
    pooled = spread(rows.mT, source, target)
    return (pooled / spread(rows.new_ones(source.area), source, target)).mT


def mask_coverage(mask: Tensor, grid: Grid) -> Tensor:
    """How much of each cell a mask over the picture covers, 0 to 1: (batch, area)."""
    pixels = Grid(mask.shape[-2], mask.shape[-1])
    area = spread(mask.new_full((pixels.area,), 1.0), pixels, grid)
    return spread(mask.float().flatten(1), pixels, grid) / area


def pooling_weights(source: Grid, target: Grid) -> tuple[Tensor, Tensor]:
    """Weights that average source cells into target cells, down and across.

    Float64, (target height, source height) and (target width, source width): source cells count
    by the part of them inside the target cell. Rows sum to one.
    """
    down, across = spreading_weights(source, target)
    return down / down.sum(1, keepdim=True), across / across.sum(1, keepdim=True)


def row_runs(tokens: slice, grid: Grid) -> Iterator[tuple[slice, int, int, slice]]:
    """Cut a run of a grid's tokens into rectangles: whole lines, except at its ends.

    Gives, for each, its tokens, counted from the start of the run; its first line and number of
    lines; and its columns. Lines count within their frame.
    """
    at = tokens.start
    while at < tokens.stop:
        line, column = divmod(at, grid.width)
        line %= grid.height
        left = tokens.stop - at
        if column or left < grid.width:
            lines, columns = 1, slice(column, min(column + left, grid.width))
        else:
            lines, columns = min(left // grid.width, grid.height - line), slice(0, grid.width)
        count = lines * (columns.stop - columns.start)
        yield slice(at - tokens.start, at - tokens.start + count), line, lines, columns
        at += count


def _overlap(
    source: int,
    covered: float,
    target: int,
    target_covered: float,
    start: float = 0.0,
    length: float = 1.0,
) -> Tensor:
    """The fraction of each source interval inside each target interval: (target, source).

    The target's intervals divide one axis of the picture; the source's divide its part from
    `start` to `start + length`, fractions of the axis. What sticks out is cut off first. Columns
    sum to one.
    """
    edges = torch.arange(source + 1, dtype=torch.float64).div(covered).clamp(max=1)
    edges = start + length * edges
    target_edges = torch.arange(target + 1, dtype=torch.float64).div(target_covered).clamp(max=1)
    low = torch.maximum(target_edges[:-1, None], edges[None, :-1])
    high = torch.minimum(target_edges[1:, None], edges[None, 1:])
    return (high - low).clamp(min=0) / (edges[1:] - edges[:-1])


# --- interpolating ---


def resample(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Interpolate cells to the pixels of their picture: (…, h, w) → (…, height, width).

    Torch's bicubic (align_corners=False) over the padded picture, cut to `grid.covered`; along a
    side with fewer pixels than cells, the average of the cells under each pixel. It can overshoot
    the lowest and the highest cell.
    """
    down = _interpolation_weights(grid.height, grid.covered[0], size[0])
    across = _interpolation_weights(grid.width, grid.covered[1], size[1])
    values = values.float()
    return down.to(values) @ values @ across.to(values).mT


def resample_nonnegative(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """`resample`, clamped at zero: bicubic overshoots below it, but attention is never negative."""
    return resample(values, grid, size).clamp(min=0)


def resample_cells(maps: Tensor, source: Grid, target: Grid) -> Tensor:
    """`resample` to the cells of another grid: (…, source area) → (…, target area).

    Keeps values, not sums.
    """
    down, across = (
        _interpolation_weights(cells, covered / target_covered * wanted, wanted)
        for cells, covered, wanted, target_covered in zip(
            source.sides, source.covered, target.sides, target.covered, strict=True
        )
    )
    return _apply(down, across, _rows_of(maps, source))


def _interpolation_weights(cells: int, covered: float, pixels: int) -> Tensor:
    """Interpolation weights along one axis: (pixels, cells); rows sum to one."""
    cells_per_pixel = covered / pixels
    edges = torch.arange(pixels + 1, dtype=torch.float64) * cells_per_pixel
    if cells_per_pixel > 1:
        starts = torch.arange(cells, dtype=torch.float64)
        high = torch.minimum(edges[1:, None], starts + 1)
        return (high - torch.maximum(edges[:-1, None], starts)).clamp(min=0) / cells_per_pixel
    centre = (edges[:-1] + edges[1:]) / 2 - 0.5  # in cells, 0 at the centre of the first
    left = centre.floor()
    weights = torch.zeros(pixels, cells, dtype=torch.float64)
    for tap in range(-1, 3):
        x = (centre - left - tap).abs()
        near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
        far = _CUBIC * (((x - 5) * x + 8) * x - 4)
        cell = (left + tap).clamp(0, cells - 1).long()  # the border repeats
        weights.scatter_add_(1, cell[:, None], torch.where(x <= 1, near, far)[:, None])
    return weights
