"""Where each token sits in which picture: grids, spans, layouts, and moving maps between grids."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor

from .errors import LayoutMismatch

_CUBIC = -0.75  # the free parameter of torch's bicubic


@dataclass(frozen=True)
class Grid:
    """The tokens of one picture, row by row from the top left, all cells of one size.

    Models pad a picture up to whole tokens, so the last row and column may stick out of it.
    `covered` is the picture's (height, width) measured in cells: at most (height, width), which
    is what it is when left out, and more than (height - 1, width - 1). A video has several
    `frames`, one after the other, each of them such a picture.
    """

    height: int
    width: int
    covered: tuple[float, float] = (0.0, 0.0)
    frames: int = 1

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.frames) < 1:
            raise LayoutMismatch(
                f"a grid needs at least one cell, got {'×'.join(map(str, self.shape))}"
            )
        if self.covered == (0.0, 0.0):
            object.__setattr__(self, "covered", (float(self.height), float(self.width)))
        for cells, covered in zip(self.sides, self.covered, strict=True):
            if not cells - 1 < covered <= cells:
                raise LayoutMismatch(f"{covered} cells of picture do not end in cell {cells}")

    @property
    def area(self) -> int:
        """The number of cells, which is the number of tokens."""
        return self.frames * self.height * self.width

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an array with one value for each cell: (height, width), a video's frames first."""
        return self.sides if self.frames == 1 else (self.frames, *self.sides)

    @property
    def one_frame(self) -> Grid:
        """The grid of each of its frames."""
        return replace(self, frames=1)

    def at_most(self, side: int) -> Grid:
        """This grid, or the one of its shape whose longer side is `side` cells if it is longer."""
        longer = max(self.height, self.width)
        if longer <= side:
            return self
        return self.with_cells(*(max(1, round(n * side / longer)) for n in self.sides))

    def with_cells(self, height: int, width: int) -> Grid:
        """The same padded picture, or each of its frames, in another number of cells."""
        down, across = (c / n for c, n in zip(self.covered, self.sides, strict=True))
        return Grid(height, width, (down * height, across * width), self.frames)

    def with_tokens_of(self, side: int) -> Grid:
        """The same picture, or frames, in cells of `side` × `side` of these; the last stick out."""
        height, width = (-(-cells // side) for cells in self.sides)
        down, across = (covered / side for covered in self.covered)
        return Grid(height, width, (down, across), self.frames)

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) in cells."""
        return self.height, self.width

    def cell_at(self, x: float, y: float) -> int:
        """The cell of a frame that holds a place, given in parts of the picture, 0 to 1."""
        row, column = (
            min(int(at * covered), cells - 1)
            for at, covered, cells in zip((y, x), self.covered, self.sides, strict=True)
        )
        return row * self.width + column


def frames_of(pictures: int, frames: int) -> tuple[int, ...]:
    """The latent frame of each of a video's pictures; none if so many cannot be of these frames.

    Video VAEs give the first picture a frame of its own, and each further frame equally many.
    """
    if frames == 1:
        return (0,) * (pictures == 1)
    each, rest = divmod(pictures - 1, frames - 1)
    if each < 1 or rest:
        return ()
    return (0, *(1 + picture // each for picture in range(pictures - 1)))


def picture_grid(height: int, width: int, cell: int) -> Grid:
    """The grid of a picture of (height, width) pixels padded to whole cells of `cell` pixels."""
    return Grid(math.ceil(height / cell), math.ceil(width / cell), (height / cell, width / cell))


# The kinds of tokens that tell of a whole picture each.
STYLE_TOKENS, ADAPTER_TOKENS = "style tokens", "IP-Adapter tokens"
UNCLIP_TOKENS = "unCLIP tokens"


@dataclass(frozen=True)
class Picture:
    """One side of the maps: the grid they are on, and the (height, width) of its latent.

    kind: what it is ("result", "reference latent", "image tokens", "style tokens"). latent is
    (0, 0) where there is none.
    """

    grid: Grid
    latent: tuple[int, int]
    kind: str

    @property
    def has_places(self) -> bool:
        """Whether its tokens lie at places of a picture, so that there can be a map over it."""
        return self.kind not in (STYLE_TOKENS, ADAPTER_TOKENS, UNCLIP_TOKENS) and self.grid.area > 1


class Role(str, Enum):
    """What a token stands for."""

    TEXT = "text"  # the prompt, and whatever else is neither the result nor a reference's place
    GENERATED = "generated"
    REFERENCE = "reference"


@dataclass(frozen=True)
class Span:
    """A run of tokens with one role: positions start to stop - 1 of a sequence.

    softmax: which of the call's softmaxes its keys share, where adapters attend beside the text.
    """

    role: Role
    start: int
    stop: int
    grid: Grid | None = None
    softmax: int = 0

    @property
    def length(self) -> int:
        """The number of tokens."""
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        """The positions, to index a token axis with."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class TokenLayout:
    """The spans of the query axis and of the key axis of one attention call, in order.

    query_order, key_order: where a picture's tokens do not stand together in the sequence, the
    positions to take, so that they do; the spans describe the axis in that order.

    Raises LayoutMismatch if spans overlap or a grid does not have one cell for each token.
    """

    queries: tuple[Span, ...]
    keys: tuple[Span, ...]
    query_order: tuple[int, ...] | None = None
    key_order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for spans in (self.queries, self.keys):
            end = 0
            for span in spans:
                if span.start < end or span.stop < span.start:
                    raise LayoutMismatch(f"the {span.role.value} tokens start before {end}")
                if span.grid is not None and span.grid.area != span.length:
                    raise LayoutMismatch(
                        f"{span.length} {span.role.value} tokens do not fill a grid of "
                        f"{'×'.join(map(str, span.grid.shape))}"
                    )
                end = span.stop
        if sum(span.role is Role.GENERATED for span in self.queries) != 1:
            raise LayoutMismatch("a call must hold the generated tokens once among its queries")

    @property
    def generated(self) -> Span:
        """The generated tokens on the query axis."""
        return next(span for span in self.queries if span.role is Role.GENERATED)

    @property
    def references(self) -> tuple[Span, ...]:
        """The reference tokens on the key axis, one span for each reference."""
        return tuple(span for span in self.keys if span.role is Role.REFERENCE)

    @property
    def key_count(self) -> int:
        """How many keys the layout accounts for."""
        return sum(span.length for span in self.keys)


@dataclass(frozen=True)
class Part:
    """A rectangle of a picture, in fractions of its sides."""

    top: float
    left: float
    height: float
    width: float

    @property
    def area(self) -> float:
        """The fraction of the picture it takes."""
        return self.height * self.width

    def whole(self, grid: Grid) -> Grid:
        """The grid of the whole picture in cells of the size that `grid` has over this part."""
        if self == WHOLE:
            return grid
        down, across = (
            round(covered / length, 9)  # of whole cells and halves, which a division may miss
            for covered, length in zip(grid.covered, (self.height, self.width), strict=True)
        )
        return Grid(math.ceil(down), math.ceil(across), (down, across), grid.frames)


WHOLE = Part(0.0, 0.0, 1.0, 1.0)


def _overlap(
    source: int,
    covered: float,
    target: int,
    target_covered: float,
    start: float = 0.0,
    length: float = 1.0,
) -> Tensor:
    """How much of each source interval lies in each target interval: (target, source).

    The target's intervals divide one line of picture, the source's the part of it that starts at
    the fraction `start` and is so long; what sticks out of it is cut off first. Every column sums
    to one.
    """
    edges = torch.arange(source + 1, dtype=torch.float64).div(covered).clamp(max=1)
    edges = start + length * edges
    target_edges = torch.arange(target + 1, dtype=torch.float64).div(target_covered).clamp(max=1)
    low = torch.maximum(target_edges[:-1, None], edges[None, :-1])
    high = torch.minimum(target_edges[1:, None], edges[None, 1:])
    return (high - low).clamp(min=0) / (edges[1:] - edges[:-1])


def spread(maps: Tensor, source: Grid, target: Grid, part: Part = WHOLE) -> Tensor:
    """Move mass from one grid of a picture to another: (..., source area) to (..., target area).

    part: the part of the target's picture that the source is a grid of.
    Each cell's mass is spread evenly over the place it covers, so every sum is kept, and a map
    moved to a grid that divides its cells evenly can be added up to what it was. A video keeps its
    frames, or has them added up where the target is of one frame.

    Raises LayoutMismatch for another number of frames.
    """
    if source == target and part == WHOLE:
        return maps
    if target.frames not in (1, source.frames):
        raise LayoutMismatch(f"{source.frames} frames cannot be spread over {target.frames}")
    lines = zip(source.sides, source.covered, target.sides, target.covered, strict=True)
    placed = ((part.top, part.height), (part.left, part.width))
    down, across = (_overlap(*line, *place) for line, place in zip(lines, placed, strict=True))
    rows = maps.reshape(*maps.shape[:-1], source.frames, source.height, source.width)
    if target.frames < source.frames:
        rows = rows.sum(-3, keepdim=True)
    return (down.to(rows) @ rows @ across.to(rows).mT).flatten(-3)


def unspread(maps: Tensor, source: Grid, target: Grid) -> Tensor:
    """What `spread` brought from `target` to the finer `source`: (…, source area) to (…, target
    area). A finer grid keeps all there was, so this is exact."""
    if source == target:
        return maps
    down, across = (
        torch.pinverse(_overlap(cells, covered, finer, finer_covered))
        for cells, covered, finer, finer_covered in zip(
            target.sides, target.covered, source.sides, source.covered, strict=True
        )
    )
    rows = maps.reshape(*maps.shape[:-1], source.frames, source.height, source.width)
    return (down.to(rows) @ rows @ across.to(rows).mT).flatten(-3)


def resample(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Cells to the pixels of the picture they divide: (..., h, w) to (..., height, width).

    Torch's bicubic (align_corners=False) over the padded picture, of which `grid.covered` is
    kept; the average of the cells under each pixel along a side with fewer pixels than cells.
    It can swing below the lowest and above the highest cell.
    """
    down = _reading(grid.height, grid.covered[0], size[0])
    across = _reading(grid.width, grid.covered[1], size[1])
    values = values.float()
    return down.to(values) @ values @ across.to(values).mT


def resample_cells(maps: Tensor, source: Grid, target: Grid) -> Tensor:
    """`resample` to the cells of another grid of the same picture: (…, source area) to (…, target
    area). It keeps values, not sums."""
    down, across = (
        _reading(cells, covered / target_covered * wanted, wanted)
        for cells, covered, wanted, target_covered in zip(
            source.sides, source.covered, target.sides, target.covered, strict=True
        )
    )
    rows = maps.reshape(*maps.shape[:-1], source.frames, source.height, source.width)
    return (down.to(rows) @ rows @ across.to(rows).mT).flatten(-3)


def _reading(cells: int, covered: float, pixels: int) -> Tensor:
    """How much each pixel of a line reads of each cell: (pixels, cells), rows sum to one."""
    cells_per_pixel = covered / pixels
    edges = torch.arange(pixels + 1, dtype=torch.float64) * cells_per_pixel
    if cells_per_pixel > 1:
        starts = torch.arange(cells, dtype=torch.float64)
        high = torch.minimum(edges[1:, None], starts + 1)
        return (high - torch.maximum(edges[:-1, None], starts)).clamp(min=0) / cells_per_pixel
    centre = (edges[:-1] + edges[1:]) / 2 - 0.5  # in cells, 0 at the centre of the first
    left = centre.floor()
    reading = torch.zeros(pixels, cells, dtype=torch.float64)
    for tap in range(-1, 3):
        x = (centre - left - tap).abs()
        near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
        far = _CUBIC * (((x - 5) * x + 8) * x - 4)
        cell = (left + tap).clamp(0, cells - 1).long()  # the border repeats
        reading.scatter_add_(1, cell[:, None], torch.where(x <= 1, near, far)[:, None])
    return reading


def means_of_lines(source: Grid, target: Grid) -> tuple[Tensor, Tensor]:
    """How to average over the source cells in each target cell, first across and then down.

    Gives the weights (target height, source height) and (target width, source width), float64, of
    the source cells by the part of them that lies in each target cell; rows sum to one.
    """
    down, across = (
        _overlap(*line)
        for line in zip(source.sides, source.covered, target.sides, target.covered, strict=True)
    )
    return down / down.sum(1, keepdim=True), across / across.sum(1, keepdim=True)


def runs(tokens: slice, grid: Grid) -> Iterator[tuple[slice, int, int, slice]]:
    """A run of a grid's tokens in rectangles, which are whole lines but at its ends.

    Gives of each its tokens, counted from the first of the run; its first line, and how many; and
    its columns. Frames are one over the other.
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
