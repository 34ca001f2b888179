"""Objects that people recognise, with transparency, and which of them are never trained on.

They are Unicode's pictographs of one character: no flags, no couples, one skin tone, no signs and
buttons. Every eighth is held out, by its number in Unicode, and so is never seen in training.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tools.setup.pictures import get_objects

HELD_OUT_REST = 5  # of the number in Unicode divided by eight
FIRST = 0x1F300  # of Unicode's pictographs; letters, digits and arrows come before
SIGNS = (*range(0x1F500, 0x1F507), *range(0x1F518, 0x1F525), *range(0x1F530, 0x1F53E))
PLAIN_SHAPES = range(0x1F7E0, 0x1F800)
RUDE = 0x1F595
LEVELS = (256, 128, 64)  # pixels of a cutout's side
MARGIN = 1.06  # side of the square around an object, in times its longer side
LEAST_COVERED = 0.3  # of its square; the others are too thin to fill a token


def number_of(name: str) -> int | None:
    """An object's number in Unicode, from the name of its file; None if it is no single thing."""
    parts = [part for part in name.split("-") if part != "fe0f"]
    number = int(parts[0], 16)
    thing = number >= FIRST and number not in (*SIGNS, *PLAIN_SHAPES, RUDE)
    return number if len(parts) == 1 and thing else None


@cache
def object_names(held_out: bool) -> tuple[str, ...]:
    """The objects to train on, or those never trained on, in the order of their numbers."""
    found = {path.stem: number_of(path.stem) for path in _folder().glob("*.webp")}
    numbers = {name: number for name, number in found.items() if number is not None}
    return tuple(
        name
        for name in sorted(numbers, key=lambda name: numbers[name])
        if (numbers[name] % 8 == HELD_OUT_REST) == held_out and _covered(name) >= LEAST_COVERED
    )


def cutout(name: str, side: int) -> Tensor:
    """An object for a square of about `side` pixels: (4, S, S), colours times opacity, and opacity.

    S is the smallest of LEVELS that is not below `side`, or else the largest.
    """
    return _levels(name)[min((level for level in LEVELS if level >= side), default=LEVELS[0])]


@cache
def _folder() -> Path:
    return get_objects(Path(sys.executable))


@cache
def _covered(name: str) -> float:
    return float(_levels(name)[LEVELS[-1]][3].mean())


@cache
def _levels(name: str) -> dict[int, Tensor]:
    """The object in the middle of its square, at each of LEVELS."""
    with Image.open(_folder() / f"{name}.webp") as picture:
        values = np.asarray(picture.convert("RGBA"), dtype=np.float32) / 255
    opacity = values[..., 3:]
    whole = torch.tensor(np.concatenate((values[..., :3] * opacity, opacity), -1)).movedim(-1, 0)
    rows, columns = (torch.nonzero(whole[3].amax(axis) > 0.5).flatten() for axis in (1, 0))
    top, bottom, left, right = (int(edge) for edge in (*rows[[0, -1]], *columns[[0, -1]]))
    part = whole[:, top : bottom + 1, left : right + 1]
    height, width = part.shape[1:]
    side = int(max(height, width) * MARGIN)
    above, before = (side - height) // 2, (side - width) // 2
    square = F.pad(part, (before, side - width - before, above, side - height - above))
    return {
        level: F.interpolate(
            square[None], (level, level), mode="bilinear", antialias=True, align_corners=False
        )[0]
        for level in LEVELS
    }
