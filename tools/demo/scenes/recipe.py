"""What kinds of scenes there are, and the seeds they are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

TOKEN = 16  # pixels along one side of a token: 8 from the VAE, times a patch of 2
REDUCTION = 8  # how much smaller the low resolution is, down and across
HOLE_GREY = 0.5  # the flat value painted into the hole, on all three channels

TRAINING_SEEDS = range(0, 10_000_000)
HELD_OUT_SEEDS = range(10_000_000, 11_000_000)


@dataclass(frozen=True)
class Recipe:
    """What kind of scenes to draw. The presets below are the ones in use."""

    name: str
    object_tokens: tuple[int, int] = (4, 4)  # smallest and largest side of the object's box
    aligned: bool = True  # boxes start on a token; otherwise on any pixel
    blobs: float = 0.0  # share of wavy silhouettes; the others are superellipses
    distractors: int = 0  # at most this many other objects in the reference, where they find room
    photographs: float = 0.0  # share of scenes whose pictures and objects are cut from photographs
    # With objects that people recognise, in photographs; the rest is for the one in the reference.
    objects: bool = False
    scale: float = 1.0  # at most so many times as large, or as small
    turn: float = 0.0  # degrees, at most, either way
    mirrored: float = 0.0  # share of the scenes


PLAIN = Recipe("plain")
SIZES = Recipe("sizes", object_tokens=(3, 5))
UNALIGNED = Recipe("unaligned", aligned=False)
SHAPES = Recipe("shapes", blobs=1.0)
DISTRACTORS = Recipe("distractors", object_tokens=(3, 4), blobs=0.5, distractors=2)
PHOTOGRAPHS = Recipe("photographs", photographs=1.0)
EVERYTHING = Recipe(
    "everything",
    object_tokens=(3, 5),
    aligned=False,
    blobs=0.5,
    distractors=2,
    photographs=0.5,
)
OBJECTS = Recipe("objects", objects=True)
MOVED = Recipe("moved", objects=True, object_tokens=(3, 5), aligned=False, distractors=1)
TRANSFORMED = Recipe(
    "transformed",
    objects=True,
    object_tokens=(3, 5),
    aligned=False,
    distractors=1,
    scale=1.4,
    turn=30.0,
    mirrored=0.5,
)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        *(PLAIN, SIZES, UNALIGNED, SHAPES, DISTRACTORS, PHOTOGRAPHS, EVERYTHING),
        *(OBJECTS, MOVED, TRANSFORMED),
    )
}
