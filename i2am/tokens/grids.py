"""Grids of tokens over a picture: sizes in cells, padding, video frames, rectangles."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..errors import LayoutMismatch


@dataclass(frozen=True)
class Grid:
    """The tokens of one picture as cells of equal size, row by row from the top left.

    Models pad a picture up to whole tokens, so the last row and column may stick out of it.
    covered: the picture's (height, width) in cells, at most (height, width), which is the default,
    and more than (height - 1, width - 1). frames: a video has several, one after the other, each
    such a picture.
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
        """The shape of one value for each cell: (height, width), with frames first for a video."""
        return self.sides if self.frames == 1 else (self.frames, *self.sides)

    @property
    def one_frame(self) -> Grid:
        """The grid of a single frame."""
        return replace(self, frames=1)

    def shrunk_to(self, side: int) -> Grid:
        """The same picture with at most `side` cells along its longer side."""
        longer = max(self.height, self.width)
        if longer <= side:
            return self
        return self.with_cells(*(max(1, round(n * side / longer)) for n in self.sides))

    def with_cells(self, height: int, width: int) -> Grid:
        """The same padded picture (each frame of a video) in another number of cells."""
        down, across = (c / n for c, n in zip(self.covered, self.sides, strict=True))
        return Grid(height, width, (down * height, across * width), self.frames)

    def merged(self, side: int) -> Grid:
        """The same picture with `side` × `side` cells merged into one; the last may stick out."""
        height, width = (-(-cells // side) for cells in self.sides)
        down, across = (covered / side for covered in self.covered)
        return Grid(height, width, (down, across), self.frames)

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) in cells."""
        return self.height, self.width

    def cell_at(self, x: float, y: float) -> int:
        """The cell of a frame at x, y, given as fractions of the picture, 0 to 1."""
        row, column = (
            min(int(at * covered), cells - 1)
            for at, covered, cells in zip((y, x), self.covered, self.sides, strict=True)
        )
        return row * self.width + column


def frames_of(pictures: int, frames: int) -> tuple[int, ...]:
    """The latent frame of each of a video's pictures; () if the counts do not fit.

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


@dataclass(frozen=True)
class Rectangle:
    """A part of a picture, in fractions of its sides."""

    top: float
    left: float
    height: float
    width: float

    @property
    def area(self) -> float:
        """The fraction of the picture it covers."""
        return self.height * self.width

    def whole_grid(self, grid: Grid) -> Grid:
        """The grid of the whole picture, with cells of the size that `grid` has over this part."""
        if self == WHOLE_PICTURE:
            return grid
        down, across = (
            round(covered / length, 9)  # whole and half cells, which a division may miss
            for covered, length in zip(grid.covered, (self.height, self.width), strict=True)
        )
        return Grid(math.ceil(down), math.ceil(across), (down, across), grid.frames)


WHOLE_PICTURE = Rectangle(0.0, 0.0, 1.0, 1.0)
