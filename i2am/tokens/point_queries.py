"""Points and rectangles named before sampling: their notation, and the tokens they cover."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import I2AMError
from .grids import WHOLE_PICTURE, Grid, Rectangle

RESULT = -1  # instead of a reference's number
MAX_POINTS = 16
_NUMBER = r"\s*(\d*\.?\d+|\d+\.)\s*"
_CORNER = f"{_NUMBER},{_NUMBER}"
_PLACE = re.compile(rf"(?:\s*(\d+)\s*:)?{_CORNER}(?:-{_CORNER})?")


@dataclass(frozen=True)
class PointQuery:
    """A point or rectangle of a picture, as fractions of its sides from the top left.

    reference: the number of its reference, from 0, or RESULT. A point is a rectangle without
    extent and means the one token it lies in; in a video, that token of every frame.
    """

    reference: int
    left: float
    top: float
    right: float
    bottom: float

    @property
    def is_point(self) -> bool:
        """Whether it is a point rather than a rectangle."""
        return (self.left, self.top) == (self.right, self.bottom)

    @property
    def name(self) -> str:
        """A short name for labels and messages, as the user writes it."""
        start, end = f"{self.left:g},{self.top:g}", f"{self.right:g},{self.bottom:g}"
        return start if self.is_point else f"{start}-{end}"

    def weights(self, grid: Grid, part: Rectangle = WHOLE_PICTURE) -> Tensor:
        """How much of each token it covers, 0 to 1: (grid area,).

        part: the part of the picture that the grid is of; the rest of the query is ignored.
        """
        left, right = ((x - part.left) / part.width for x in (self.left, self.right))
        top, bottom = ((y - part.top) / part.height for y in (self.top, self.bottom))
        if self.is_point:
            frame = torch.zeros(grid.one_frame.area)
            if 0 <= left <= 1 and 0 <= top <= 1:
                frame[grid.cell_at(left, top)] = 1
        else:
            down = _covered(grid.height, grid.covered[0], top, bottom)
            across = _covered(grid.width, grid.covered[1], left, right)
            frame = (down[:, None] * across).flatten()
        return frame.repeat(grid.frames)


def _covered(cells: int, covered: float, low: float, high: float) -> Tensor:
    """The fraction of each cell of a line between `low` and `high`, fractions of the line."""
    edges = torch.arange(cells + 1, dtype=torch.float64).div(covered).clamp(max=1)
    inside = edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)
    # Rounded, so that a rectangle does not touch cells that it ends at.
    return (inside.clamp(min=0) / (edges[1:] - edges[:-1])).round(decimals=9).float()


def parse_point_queries(text: str, name: str, *, numbered: bool = False) -> tuple[PointQuery, ...]:
    """`0.5,0.4; 0.2,0.1-0.4,0.3` → points x,y and rectangles from corner to corner.

    numbered: points of references, of reference 1 unless `2:` stands before it.

    Raises I2AMError naming the input `name` if the text is anything else.
    """
    example = "2: 0.5,0.4" if numbered else "0.2,0.7"
    points: list[PointQuery] = []
    for entry in filter(None, (entry.strip() for entry in text.split(";"))):
        match = _PLACE.fullmatch(entry)
        if match is None or (match[1] and not numbered):
            raise I2AMError(
                f"{name} cannot be read: found “{entry[:40]}”. Write x,y from 0 to 1, with ; "
                "between points and - between the corners of a rectangle, such as "
                f"0.5,0.4; {example}; 0.1,0.1-0.3,0.2."
            )
        number = int(match[1] or 1)
        left, top = float(match[2]), float(match[3])
        right, bottom = (float(match[4]), float(match[5])) if match[4] else (left, top)
        if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1) or number < 1:
            raise I2AMError(
                f"{name} asks about “{entry[:40]}”, which is outside the picture. x and y go from "
                "0 (left, top) to 1 (right, bottom), a rectangle from its top left to its bottom "
                "right corner, and references are counted from 1."
            )
        if match[4] and (left == right or top == bottom):
            raise I2AMError(
                f"{name} asks about “{entry[:40]}”, an empty rectangle. Write its top left and "
                "bottom right corners, or one x,y for a point."
            )
        points.append(PointQuery(number - 1 if numbered else RESULT, left, top, right, bottom))
    return tuple(points)


def check_point_count(points: tuple[PointQuery, ...]) -> None:
    """Raises I2AMError for more points than can be recorded."""
    if len(points) > MAX_POINTS:
        raise I2AMError(
            f"{len(points)} points are named, but at most {MAX_POINTS} can be recorded, result and "
            "references together. Remove some: the correspondence covers every place, only less "
            "finely."
        )
