"""Seeded scenes for object insertion: a picture with a box cut out, and the object of that box.

This is the task on which the I2AM paper locates objects. A box of 10 to 30 % of the picture is cut
out, and the reference is what was in it, so the model puts the object back. The place the
attribution map finds can then be compared with the box. In most scenes the object is one that
people recognise, in a photograph.

Seeds work as in `tools/demo/scenes`: scene `n` is the same picture in every batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.demo.scenes import HELD_OUT_SEEDS, HOLE_GREY, Recipe
from tools.demo.scenes.objects import object_names
from tools.demo.scenes.photographs import crop
from tools.demo.scenes.synthetic import (
    RIM_GREY,
    RIM_START,
    RIM_STRENGTH,
    draw_backgrounds,
    draw_shape,
    draw_textures,
)
from tools.demo.scenes.with_objects import Placed, paste

REFERENCE_SIDE = 128  # pixels of the reference, whatever the size of the box
AREA = (0.1, 0.3)  # of the picture, smallest and largest box
ASPECT = (0.5, 2.0)  # width to height
SILHOUETTES = Recipe("insertion", blobs=0.5)
OBJECTS = 0.7  # share of scenes with an object that people recognise, in a photograph
PHOTOGRAPHS = 0.5  # of the others, share of scenes, and of objects, that are cut from photographs


@dataclass(frozen=True)
class Insertions:
    """A batch of scenes: pictures (B, H, W, 3) and a mask (B, H, W), 0 to 1."""

    scene: Tensor  # the picture with its box painted HOLE_GREY
    reference: Tensor  # what was in the box, (B, REFERENCE_SIDE, REFERENCE_SIDE, 3)
    target: Tensor  # the whole picture
    box_mask: Tensor  # 1 inside the box
    boxes: tuple[tuple[int, int, int, int], ...]  # left, top, width, height in pixels

    def __len__(self) -> int:
        return len(self.scene)


def make_insertions(count: int, seed: int = HELD_OUT_SEEDS.start, size: int = 128) -> Insertions:
    """Draw `count` square scenes of `size` pixels, with the seeds from `seed` on."""
    return draw_insertions(range(seed, seed + count), size)


def draw_insertions(seeds: Sequence[int], size: int = 128) -> Insertions:
    """Draw one square scene of `size` pixels for each seed."""
    rngs = [np.random.default_rng(seed) for seed in seeds]
    target = draw_backgrounds(rngs, size)[:, 0]
    textures = draw_textures(rngs)
    boxes, references = [], []
    box_mask = torch.zeros(len(rngs), size, size)
    for n, (seed, rng) in enumerate(zip(seeds, rngs, strict=True)):
        held_out = seed in HELD_OUT_SEEDS
        recognised = rng.random() < OBJECTS
        if recognised or rng.random() < PHOTOGRAPHS:
            target[n] = torch.tensor(crop(rng, size, held_out))
        left, top, width, height = box = random_box(rng, size)
        inside = target[n, :, top : top + height, left : left + width]
        if recognised:
            inside.copy_(_with_object(rng, inside, held_out))
        else:
            texture = textures[n]
            if rng.random() < PHOTOGRAPHS:
                # a piece of plain sky has no parts to tell apart: the most varied of three
                parts = [crop(rng, texture.shape[-1], held_out) for _ in range(3)]
                texture = torch.tensor(max(parts, key=np.var))
            inside.copy_(draw_object(inside, texture, draw_shape(rng, SILHOUETTES)))
        references.append(resized(inside, (REFERENCE_SIDE, REFERENCE_SIDE)))
        box_mask[n, top : top + height, left : left + width] = 1
        boxes.append(box)
    scene = torch.where(box_mask[:, None] > 0, HOLE_GREY, target)
    return Insertions(
        scene=scene.movedim(1, -1).contiguous(),
        reference=torch.stack(references).movedim(1, -1).contiguous(),
        target=target.movedim(1, -1).contiguous(),
        box_mask=box_mask,
        boxes=tuple(boxes),
    )


def random_box(rng: np.random.Generator, size: int) -> tuple[int, int, int, int]:
    """Left, top, width, height of a box within a square of `size`, as the paper draws them."""
    aspect = np.exp(rng.uniform(*np.log(ASPECT)))
    area = rng.uniform(*AREA) * size**2
    width, height = (round(side) for side in (np.sqrt(area * aspect), np.sqrt(area / aspect)))
    left, top = rng.integers(0, size - width + 1), rng.integers(0, size - height + 1)
    return int(left), int(top), width, height


def _with_object(rng: np.random.Generator, picture: Tensor, held_out: bool) -> Tensor:
    """A picture (3, H, W) with an object as large as it, somewhere along its longer side."""
    names = object_names(held_out)
    height, width = picture.shape[1:]
    side = min(height, width)
    middle = (
        side / 2 + rng.uniform(0, height - side),
        side / 2 + rng.uniform(0, width - side),
    )
    return paste(picture, names[int(rng.integers(len(names)))], Placed(middle, side))[0]


def draw_object(picture: Tensor, texture: Tensor, shape: np.ndarray) -> Tensor:
    """The object, stretched over a whole picture (3, H, W)."""
    height, width = picture.shape[1:]
    exponent, half_height, half_width, *waves = (float(value) for value in shape)
    y = torch.linspace(-1, 1, height)[:, None] / half_height
    x = torch.linspace(-1, 1, width)[None, :] / half_width
    angle = torch.atan2(y, x)
    edge = torch.ones_like(angle)
    for n in range(4):
        edge = edge + waves[n] * (torch.cos((n + 2) * angle + waves[4 + n]) - 0.5)
    radius = (y.abs() ** exponent + x.abs() ** exponent) ** (1 / exponent) / edge
    rim = RIM_STRENGTH * ((radius - RIM_START) / (1 - RIM_START)).clamp(0, 1)
    colours = torch.lerp(resized(texture, (height, width)), torch.full_like(picture, RIM_GREY), rim)
    return torch.where(radius <= 1, colours, picture)


def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture (3, H, W) at another size."""
    scaled = F.interpolate(
        picture[None], size=size, mode="bicubic", align_corners=False, antialias=True
    )
    return scaled[0].clamp(0, 1)
