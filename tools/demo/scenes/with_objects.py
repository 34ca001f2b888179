"""Seeded scenes of objects that people recognise, in photographs: recipes with objects.

The object lies in the scene and, shifted, scaled, turned or mirrored, in the reference. All of
that is one affine map from pixels of the scene to pixels of the reference, so the token of the
reference that shows what the middle of a hole's token shows is known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .objects import cutout, object_names
from .photographs import crop
from .recipe import HELD_OUT_SEEDS, TOKEN, Recipe
from .scene import Scenes, put_together, token_coverage
from .synthetic import free_box

EDGE = 0.1  # least opacity of what belongs to the object
LARGEST = 112  # pixels of an object's side
FIGURE, SHIRT = "1f9cd", "1f455"  # a standing person, and a T-shirt

# Target and reference (3, H, W), hole and object (H, W), correspondence (tokens,).
_Scene = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Placed:
    """A square in a picture: its middle (down, across) and side in pixels, turned and mirrored."""

    middle: tuple[float, float]
    side: float
    turn: float = 0.0  # radians
    mirrored: bool = False

    def to_square(self) -> np.ndarray:
        """(3, 3): from (down, across, 1) in pixels to the square's own, -1 to 1 between edges."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        turn = np.array([[cos, -sin], [sin, cos]])
        if self.mirrored:
            turn[1] *= -1
        matrix = np.eye(3)
        matrix[:2, :2] = turn * 2 / self.side
        matrix[:2, 2] = -matrix[:2, :2] @ self.middle
        return matrix


def draw_object_scenes(seeds: Sequence[int], size: int, recipe: Recipe) -> Scenes:
    """Draw one square scene of `size` pixels for each seed."""
    return _together([_draw(seed, size, recipe) for seed in seeds])


def draw_try_on(seed: int, size: int = 128) -> Scenes:
    """A scene of a figure that wears a shirt, and the shirt alone.

    The shirt is held out; the seed decides on the photographs behind them, held out too.
    """
    rng = np.random.default_rng((seed, 3))
    target, reference = (torch.tensor(crop(rng, size, held_out=True)) for _ in range(2))
    target, _ = paste(target, FIGURE, Placed((0.86 * size, 0.5 * size), 1.5 * size))
    worn, alone = (Placed((middle * size, 0.5 * size), size / 2) for middle in (0.625, 0.5))
    return _together([_with_object(SHIRT, target, reference, worn, alone)])


def draw_two_objects(seed: int, size: int = 128) -> Scenes:
    """A scene of two objects, one of which is the reference's.

    The seed decides on them and on the photographs behind them, all held out.
    """
    rng = np.random.default_rng((seed, 4))
    names = object_names(held_out=True)
    own, other = (names[n] for n in rng.permutation(len(names))[:2])
    target, reference = (torch.tensor(crop(rng, size, held_out=True)) for _ in range(2))
    left, right = ((0.5 * size, middle * size) for middle in (0.25, 0.75))
    target, _ = paste(target, other, Placed(left, size / 2))
    places = Placed(right, size / 2), Placed((0.5 * size, 0.5 * size), size / 2)
    return _together([_with_object(own, target, reference, *places)])


def _draw(seed: int, size: int, recipe: Recipe) -> _Scene:
    rng = np.random.default_rng((seed, 2))
    held_out = seed in HELD_OUT_SEEDS
    names = object_names(held_out)
    own, *others = (names[n] for n in rng.permutation(len(names))[: 1 + recipe.distractors])
    here, there = _places(rng, size, recipe)
    target, reference = (torch.tensor(crop(rng, size, held_out)) for _ in range(2))
    taken = [_box(there)]
    for other in others:
        side, (top, left) = free_box(rng, taken, size)
        taken.append((top, left, side))
        reference, _ = paste(reference, other, Placed((top + side / 2, left + side / 2), side))
    return _with_object(own, target, reference, here, there)


def _with_object(
    name: str, target: Tensor, reference: Tensor, here: Placed, there: Placed
) -> _Scene:
    """Two pictures (3, H, W) with an object in each."""
    target, hole = paste(target, name, here)
    reference, mask = paste(reference, name, there)
    matrix = np.linalg.inv(there.to_square()) @ here.to_square()
    return target, reference, hole, mask, _correspondence(hole, matrix)


def _together(drawn: Sequence[_Scene]) -> Scenes:
    return put_together(*map(torch.stack, zip(*drawn, strict=True)))


def _places(rng: np.random.Generator, size: int, recipe: Recipe) -> tuple[Placed, Placed]:
    """Where the object lies in the scene, and where in the reference."""
    low, high = recipe.object_tokens
    side = int(rng.integers(low, high + 1)) * TOKEN
    step = TOKEN if recipe.aligned else 1
    scale = math.exp(rng.uniform(-1, 1) * math.log(recipe.scale))
    sides = (side, side if recipe.scale == 1 else round(min(side * scale, LARGEST)))
    corners = [rng.integers(0, (size - one) // step + 1, 2) * step for one in sides]
    here, there = (
        (float(corner[0]) + one / 2, float(corner[1]) + one / 2)
        for corner, one in zip(corners, sides, strict=True)
    )
    turn = math.radians(rng.uniform(-1, 1) * recipe.turn)
    mirrored = bool(rng.random() < recipe.mirrored)
    return Placed(here, sides[0]), Placed(there, sides[1], turn, mirrored)


def _box(place: Placed) -> tuple[int, int, int]:
    """Top, left and side of an upright square around a square."""
    side = place.side * (abs(math.cos(place.turn)) + abs(math.sin(place.turn)))
    top, left = (math.floor(middle - side / 2) for middle in place.middle)
    return top, left, math.ceil(side)


def paste(picture: Tensor, name: str, place: Placed) -> tuple[Tensor, Tensor]:
    """A picture (3, H, W) with an object in it, and where the object is: (H, W), 0 or 1."""
    height, width = picture.shape[1:]
    down, across = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    at = torch.stack(torch.meshgrid(down, across, indexing="ij"), -1)
    matrix = torch.tensor(place.to_square()).float()
    grid = (at @ matrix[:2, :2].T + matrix[:2, 2]).flip(-1)
    drawn = F.grid_sample(
        cutout(name, round(place.side))[None], grid[None], mode="bilinear", align_corners=False
    )[0]
    opacity = drawn[3]
    return picture * (1 - opacity) + drawn[:3], (opacity >= EDGE).float()


def _correspondence(hole: Tensor, to_reference: np.ndarray) -> Tensor:
    """The reference token that shows the middle of each hole token, (tokens,); -1 outside.

    to_reference: (3, 3), from pixels of the scene to pixels of the reference.
    """
    down, across = hole.shape[0] // TOKEN, hole.shape[1] // TOKEN
    rows, columns = np.meshgrid(np.arange(down), np.arange(across), indexing="ij")
    middles = np.stack((rows, columns), -1).reshape(-1, 2) * TOKEN + TOKEN / 2
    there = np.floor((middles @ to_reference[:2, :2].T + to_reference[:2, 2]) / TOKEN)
    there = there.clip(0, [down - 1, across - 1]).astype(np.int64)
    tokens = torch.tensor(there[:, 0] * across + there[:, 1])
    return torch.where(token_coverage(hole[None])[0] >= 0.5, tokens, -1)
