"""Seeded scenes for the demo model: a scene with a hole, a reference, and what belongs there.

The object of the reference has colours nobody can guess, and the hole in the scene has the object's
silhouette. Filling the hole therefore means finding, for each token of the hole, the token of the
reference that shows the same part of the object. That token is known here exactly, so an attention
map can be compared with the truth: `Scenes.correspondence`.

Every scene has a seed of its own: `make_scenes(count, seed)` gives the scenes `seed`, `seed + 1`
and so on, and scene `n` is the same picture in every batch. Training takes its seeds from
`TRAINING_SEEDS`, every evaluation from `HELD_OUT_SEEDS`.

A recipe says what kind: `synthetic` draws blobs, `with_objects` objects that people recognise, in
photographs.
"""

from .draw import draw_scenes, make_scenes
from .recipe import (
    DISTRACTORS,
    EVERYTHING,
    HELD_OUT_SEEDS,
    HOLE_GREY,
    MOVED,
    OBJECTS,
    PHOTOGRAPHS,
    PLAIN,
    RECIPES,
    REDUCTION,
    SHAPES,
    SIZES,
    TOKEN,
    TRAINING_SEEDS,
    TRANSFORMED,
    UNALIGNED,
    Recipe,
)
from .scene import Scenes, correspondence_distance, put_together, reduced, token_coverage
from .with_objects import draw_try_on, draw_two_objects

__all__ = [
    "DISTRACTORS",
    "EVERYTHING",
    "HELD_OUT_SEEDS",
    "HOLE_GREY",
    "MOVED",
    "OBJECTS",
    "PHOTOGRAPHS",
    "PLAIN",
    "RECIPES",
    "REDUCTION",
    "SHAPES",
    "SIZES",
    "TOKEN",
    "TRAINING_SEEDS",
    "TRANSFORMED",
    "UNALIGNED",
    "Recipe",
    "Scenes",
    "correspondence_distance",
    "draw_scenes",
    "draw_try_on",
    "draw_two_objects",
    "make_scenes",
    "put_together",
    "reduced",
    "token_coverage",
]
