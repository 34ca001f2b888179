"""Seeded scenes of blobs in clouds or in photographs: recipes without objects people recognise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .photographs import crop
from .recipe import HELD_OUT_SEEDS, TOKEN, Recipe
from .scene import Scenes, put_together, token_coverage

CELL = 12  # pixels between the random colours of an object: every token shows its own
# An object fades to a dark rim from this normalised radius on. The fade is soft and short of black
# because hard edges are what the small VAE draws worst.
RIM_START, RIM_STRENGTH, RIM_GREY = 0.8, 0.85, 0.22


def draw_synthetic_scenes(seeds: Sequence[int], size: int, recipe: Recipe) -> Scenes:
    """Draw one square scene of `size` pixels for each seed."""
    rngs = [np.random.default_rng(seed) for seed in seeds]

    boxes = torch.tensor(np.stack([_draw_boxes(rng, size, recipe) for rng in rngs])).float()
    extent = boxes[:, 0]
    shapes = torch.tensor(np.stack([draw_shape(rng, recipe) for rng in rngs]))
    texture = draw_textures(rngs)
    backgrounds = draw_backgrounds(rngs, size)
    # What only some recipes need has a random stream of its own and leaves the rest unchanged.
    extras = [np.random.default_rng((seed, 1)) for seed in seeds]
    if recipe.photographs:
        _use_photographs(seeds, extras, recipe, backgrounds, texture)
    scene, reference = backgrounds[:, 0], backgrounds[:, 1]
    if recipe.distractors:
        reference = _add_distractors(extras, recipe, reference, boxes, shapes)

    hole, painted = _paint_object(boxes[:, 1:3], extent, shapes, texture, size)
    target = torch.where(hole[:, None], painted, scene)
    mask, painted = _paint_object(boxes[:, 3:5], extent, shapes, texture, size)
    reference = torch.where(mask[:, None], painted, reference)
    hole, mask = hole.float(), mask.float()
    shift = boxes[:, 3:5] - boxes[:, 1:3]
    return put_together(target, reference, hole, mask, _correspondence(hole, shift))


def _draw_boxes(rng: np.random.Generator, size: int, recipe: Recipe) -> np.ndarray:
    """The object's box: side, top and left in the scene, top and left in the reference (pixels)."""
    low, high = recipe.object_tokens
    extent = int(rng.integers(low, high + 1)) * TOKEN
    step = TOKEN if recipe.aligned else 1
    corners = rng.integers(0, (size - extent) // step + 1, 4) * step
    return np.array([extent, *corners])


def draw_shape(rng: np.random.Generator, recipe: Recipe) -> np.ndarray:
    """A silhouette: exponent and two half axes of a superellipse, then four waves (size, phase)."""
    wavy = rng.random() < recipe.blobs
    exponent = rng.choice([1.3, 2.0, 4.0])
    axes = rng.uniform(0.84, 0.94, 2)
    waves = rng.uniform(0.0, 0.16, 4) / np.arange(2, 6) * 2
    phases = rng.uniform(0.0, 2 * np.pi, 4)
    if wavy:
        exponent = 2.0
    else:
        waves[:] = 0.0
    return np.array([exponent, *axes, *waves, *phases], dtype=np.float32)


def _radius(corners: Tensor, extent: Tensor, shapes: Tensor, size: int) -> Tensor:
    """Normalised distance from the object's centre, (B, size, size): below one is inside."""
    pixels = torch.arange(size, dtype=torch.float32)
    half = (extent / 2)[:, None]
    # Whole numbers and halves only up to here, so hole and object get bit-equal silhouettes.
    y = ((pixels - corners[:, :1] - half + 0.5) / half)[:, :, None]
    x = ((pixels - corners[:, 1:] - half + 0.5) / half)[:, None, :]
    exponent = shapes[:, 0, None, None]
    y, x = y / shapes[:, 1, None, None], x / shapes[:, 2, None, None]
    radius = (y.abs() ** exponent + x.abs() ** exponent) ** (1 / exponent)
    waves = shapes[:, 3:7]
    wavy = waves.abs().sum(1) > 0
    if wavy.any():
        angle = torch.atan2(y[wavy].expand_as(radius[wavy]), x[wavy].expand_as(radius[wavy]))
        edge = torch.ones_like(angle)
        for n in range(4):
            size_n, phase = waves[wavy, n, None, None], shapes[wavy, 7 + n, None, None]
            edge = edge + size_n * (torch.cos((n + 2) * angle + phase) - 0.5)
        radius[wavy] = radius[wavy] / edge
    return radius


def _paint_object(
    corners: Tensor, extent: Tensor, shapes: Tensor, texture: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The object with its box at `corners`: where it is (B, S, S), its colours (B, 3, S, S)."""
    radius = _radius(corners, extent, shapes, size)
    pixels = torch.arange(size)
    last = texture.shape[-1] - 1
    y = (pixels - corners[:, :1].long()).clamp(0, last)[:, :, None]
    x = (pixels - corners[:, 1:].long()).clamp(0, last)[:, None, :]
    batch = torch.arange(len(texture))[:, None, None]
    colours = texture.movedim(1, -1)[batch, y, x].movedim(-1, 1)
    rim = RIM_STRENGTH * ((radius - RIM_START) / (1 - RIM_START)).clamp(0, 1)[:, None]
    return radius <= 1, torch.lerp(colours, torch.full_like(colours, RIM_GREY), rim)


def draw_textures(rngs: Sequence[np.random.Generator]) -> Tensor:
    """Fields of saturated random hues, (B, 3, 96, 96): one independent colour every CELL pixels."""
    cells = np.stack([rng.random((3, 10, 10), dtype=np.float32) for rng in rngs])
    hue, saturation, value = cells[:, 0], 0.65 + 0.35 * cells[:, 1], 0.55 + 0.45 * cells[:, 2]
    ramps = (hue[:, None] * 6 + np.array([5, 3, 1])[None, :, None, None]) % 6
    chroma = np.clip(np.minimum(ramps, 4 - ramps), 0, 1)  # the published HSV to RGB formula
    colours = value[:, None] * (1 - saturation[:, None] * chroma)
    field = F.interpolate(torch.tensor(colours).float(), scale_factor=CELL, mode="bicubic")
    return field[..., CELL:-CELL, CELL:-CELL].clamp(0, 1)


def draw_backgrounds(rngs: Sequence[np.random.Generator], size: int) -> Tensor:
    """Muted clouds with soft grey discs for scene and reference, (B, 2, 3, size, size)."""
    base, noise, discs = [], [[], [], []], []
    for rng in rngs:
        base.append(rng.uniform(0.3, 0.7, (2, 1)) + rng.uniform(-0.08, 0.08, (2, 3)))
        for octave, cells in enumerate((4, 8, 16)):
            noise[octave].append(rng.standard_normal((2, 3, cells, cells)))
        discs.append(rng.random((2, 3, 5)))
    batch, coarse = len(base), size // 4  # all of it is soft: drawn at a quarter, enlarged once
    picture = torch.tensor(np.stack(base)).float().view(batch * 2, 3, 1, 1)
    for cells, strength in zip(noise, (0.06, 0.035, 0.02), strict=True):
        field = torch.tensor(np.stack(cells)).float().flatten(0, 1)
        # mostly grey: the three channels share most of their noise
        field = field.mean(1, keepdim=True) * 1.2 + field * 0.4
        picture = picture + strength * F.interpolate(field, size=(coarse, coarse), mode="bicubic")
    place = torch.tensor(np.stack(discs)).float().flatten(0, 1)[..., None, None]  # (2B, 3, 5, 1, 1)
    pixels = (torch.arange(coarse) + 0.5) / coarse
    for n in range(3):
        cy, cx, height, width, grey = place[:, n].unbind(1)
        y = (pixels[:, None] - cy) / (0.05 + 0.25 * height)
        x = (pixels[None, :] - cx) / (0.05 + 0.25 * width)
        soft = torch.sigmoid((1 - (y**2 + x**2).sqrt()) * 6)[:, None]
        picture = picture + soft * (0.15 + 0.7 * grey[:, None] - picture) * 0.6
    picture = F.interpolate(picture, size=(size, size), mode="bicubic")
    return picture.clamp(0, 1).unflatten(0, (batch, 2))


def _use_photographs(
    seeds: Sequence[int],
    rngs: Sequence[np.random.Generator],
    recipe: Recipe,
    backgrounds: Tensor,
    texture: Tensor,
) -> None:
    """Replace pictures and object, in place, by photographs; held-out seeds get held-out ones."""
    for n, (seed, rng) in enumerate(zip(seeds, rngs, strict=True)):
        if rng.random() >= recipe.photographs:
            continue
        held_out = seed in HELD_OUT_SEEDS
        for place in range(2):
            backgrounds[n, place] = torch.tensor(crop(rng, backgrounds.shape[-1], held_out))
        # a piece of plain sky has no parts to tell apart: the most varied of three
        parts = [crop(rng, texture.shape[-1], held_out) for _ in range(3)]
        texture[n] = torch.tensor(max(parts, key=np.var))


def _add_distractors(
    rngs: Sequence[np.random.Generator],
    recipe: Recipe,
    reference: Tensor,
    boxes: Tensor,
    shapes: Tensor,
) -> Tensor:
    """The reference with smaller objects of other silhouettes, clear of the object's own place."""
    size = reference.shape[-1]
    taken = [[(int(box[3]), int(box[4]), int(box[0]))] for box in boxes]
    for _ in range(recipe.distractors):
        extents, corners, silhouettes = [], [], []
        for rng, boxes_here, shape in zip(rngs, taken, shapes, strict=True):
            extent, corner = free_box(rng, boxes_here, size)
            silhouette = draw_shape(rng, recipe)
            while silhouette[0] == shape[0] and not (silhouette[3] or shape[3]):
                silhouette = draw_shape(rng, recipe)
            boxes_here.append((*corner, extent))
            extents.append(extent)
            corners.append(corner)
            silhouettes.append(silhouette)
        mask, painted = _paint_object(
            torch.tensor(corners).float(),
            torch.tensor(extents).float(),
            torch.tensor(np.stack(silhouettes)),
            draw_textures(rngs),
            size,
        )
        reference = torch.where(mask[:, None], painted, reference)
    return reference


def free_box(
    rng: np.random.Generator, taken: Sequence[tuple[int, int, int]], size: int
) -> tuple[int, tuple[int, int]]:
    """Side and corner of a box clear of those taken (top, left, side); off the picture if none."""
    for _ in range(10):
        side = int(rng.integers(2, 4)) * TOKEN
        top, left = (int(corner) for corner in rng.integers(0, size - side + 1, 2))
        if all(
            top + side <= y or y + other <= top or left + side <= x or x + other <= left
            for y, x, other in taken
        ):
            return side, (top, left)
    return TOKEN, (-2 * TOKEN, -2 * TOKEN)


def _correspondence(hole: Tensor, shift: Tensor) -> Tensor:
    """The reference token that shows the middle of each hole token, (B, tokens).

    hole: (B, H, W); shift: (B, 2) pixels from hole to object, down and across. A token belongs to
    the hole when at least half of it does.
    """
    down, across = hole.shape[1] // TOKEN, hole.shape[2] // TOKEN
    rows = torch.arange(down)[:, None] + shift[:, 0, None, None] / TOKEN
    columns = torch.arange(across)[None, :] + shift[:, 1, None, None] / TOKEN
    rows = (rows + 0.5).floor().long().clamp(0, down - 1)
    columns = (columns + 0.5).floor().long().clamp(0, across - 1)
    tokens = (rows * across + columns).flatten(1)
    return torch.where(token_coverage(hole) >= 0.5, tokens, -1)
