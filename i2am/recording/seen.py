"""A reference picture → what the model saw of it: the whole, or a part in its middle.

A vision encoder cuts a square out of the middle; a scaler crops to the sizes its model knows. Maps
lie over what was seen, so the picture's proportions are compared with the model's grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from torch import Tensor

from ..tokens import ADAPTER_TOKENS, Picture

_HALF = 0.5  # tokens: sizes that differ by less can be of the same picture
# Tokens of a vision encoder, which by default is given a square cut out of the middle.
_ENCODED = frozenset(
    {"image tokens", "vision tokens", "CLIP image tokens", "IP-Adapter image", ADAPTER_TOKENS}
)
# References that ComfyUI's video nodes crop in the middle, to the proportions of the video.
_CROPPED = frozenset({"guide", "reference"})


class ReferenceFit(str, Enum):
    """Which part of a picture the model saw."""

    AUTO = "auto"  # decided from what is known
    WHOLE = "whole picture"  # all of it, stretched if needed
    SQUARE = "centre square"  # the largest square in its middle
    CROP = "centre crop"  # the largest part in its middle with the proportions of the grid


@dataclass(frozen=True)
class Whole:
    """A picture of which the model saw only a part.

    pictures: the whole, (1 or batch, height, width, 3) in 0–1. top, left, height, width: the part,
    in pixels.
    """

    pictures: Tensor
    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the whole."""
        return self.pictures.shape[1], self.pictures.shape[2]

    @property
    def part(self) -> tuple[slice, slice]:
        """The rows and columns of the part."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    @property
    def seen(self) -> Tensor:
        """The part alone: (1 or batch, height, width, 3)."""
        rows, columns = self.part
        return self.pictures[:, rows, columns]

    def within(self, x: float, y: float) -> tuple[float, float] | None:
        """A point in fractions of the whole → in fractions of the part; None outside the part."""
        tall, wide = self.size
        inside = (x * wide - self.left) / self.width, (y * tall - self.top) / self.height
        return inside if all(0 <= at <= 1 for at in inside) else None

    def enlarged(self, pictures: Tensor, factor: int) -> Whole:
        """The same part of the same pictures, enlarged `factor` times."""
        sides = (self.top, self.left, self.height, self.width)
        top, left, height, width = (side * factor for side in sides)
        return replace(self, pictures=pictures, top=top, left=left, height=height, width=width)


def is_encoded(side: Picture) -> bool:
    """Whether a reference's tokens come from a vision encoder."""
    return side.kind in _ENCODED


def is_cropped(side: Picture) -> bool:
    """Whether the model's own node crops the picture to its middle before encoding it."""
    return side.kind in _CROPPED


def fits_grid(size: tuple[int, int], side: Picture) -> bool:
    """Whether a picture of (height, width) has the proportions of what the model saw.

    At one scale, both sides must match to within half a cell of the map, or a pixel of the latent:
    encoders cut off what does not fill one. Tokens without places fit any picture.
    """
    tall, wide = _proportions(side)
    if not tall:
        return True
    slack = [_HALF, _HALF]
    if side.latent != (0, 0):
        cells = zip(side.grid.covered, side.latent, strict=True)
        slack = [max(_HALF, covered / pixels) for covered, pixels in cells]
    scales = [
        ((cells - more) / pixels, (cells + more) / pixels)
        for cells, more, pixels in zip((tall, wide), slack, size, strict=True)
    ]
    return max(low for low, _ in scales) <= min(high for _, high in scales)


def cut(pictures: Tensor, side: Picture, fit: ReferenceFit) -> Whole | None:
    """Pictures (count, height, width, 3) → the part that the model saw; None if it saw all."""
    tall, wide = pictures.shape[1:3]
    down, across = _proportions(side)
    if fit is ReferenceFit.SQUARE or not down:
        down, across = 1.0, 1.0  # what vision encoders are given
    elif fit is ReferenceFit.CROP and fits_grid((tall, wide), side):
        return None
    if fit is ReferenceFit.WHOLE:
        return None
    height, width = tall, max(1, round(tall * across / down))
    if width > wide:
        height, width = min(tall, max(1, round(wide * down / across))), wide
    if (height, width) == (tall, wide):
        return None
    return Whole(pictures, (tall - height) // 2, (wide - width) // 2, height, width)


def _proportions(side: Picture) -> tuple[float, float]:
    """The (height, width) of what the model saw, in cells; (0, 0) if unknown."""
    return side.grid.covered if side.has_places else (0.0, 0.0)
