"""Scenes of any recipe, by their seeds."""

from __future__ import annotations

from collections.abc import Sequence

from .recipe import HELD_OUT_SEEDS, PLAIN, TOKEN, Recipe
from .scene import Scenes
from .synthetic import draw_synthetic_scenes
from .with_objects import draw_object_scenes


def make_scenes(
    count: int, seed: int = HELD_OUT_SEEDS.start, size: int = 128, recipe: Recipe = PLAIN
) -> Scenes:
    """Draw `count` square scenes of `size` pixels, with the seeds from `seed` on."""
    return draw_scenes(range(seed, seed + count), size, recipe)


def draw_scenes(seeds: Sequence[int], size: int = 128, recipe: Recipe = PLAIN) -> Scenes:
    """Draw one square scene of `size` pixels for each seed."""
    if size % TOKEN:
        raise ValueError(f"A scene is a whole number of {TOKEN} px tokens, but size is {size}.")
    if size // TOKEN < recipe.object_tokens[1]:
        raise ValueError(f"Objects of {recipe.object_tokens[1]} tokens do not fit {size} px.")
    draw = draw_object_scenes if recipe.objects else draw_synthetic_scenes
    return draw(seeds, size, recipe)
