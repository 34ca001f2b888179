"""Photographs that ship inside Python packages, for the harder scenes and for the decoder.

They come with scikit-image (`skimage.data`, whose folder documents the source and licence of each)
and scikit-learn (`china.jpg` and `flower.jpg`, CC BY). Some are never trained on.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

TRAINING = (
    "skimage/data/astronaut.png",
    "skimage/data/brick.png",
    "skimage/data/coffee.png",
    "skimage/data/color.png",
    "skimage/data/grass.png",
    "skimage/data/gravel.png",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/ihc.png",
    "skimage/data/motorcycle_left.png",
    "skimage/data/retina.jpg",
    "sklearn/datasets/images/china.jpg",
)
HELD_OUT = (
    "skimage/data/chelsea.png",
    "skimage/data/rocket.jpg",
    "sklearn/datasets/images/flower.jpg",
)


@cache
def photographs(held_out: bool) -> tuple[np.ndarray, ...]:
    """The photographs to train on, or those never trained on: (H, W, 3) uint8 each."""
    return tuple(_open(name) for name in (HELD_OUT if held_out else TRAINING))


def crop(rng: np.random.Generator, size: int, held_out: bool) -> np.ndarray:
    """A random square of a random photograph, mirrored at random: (3, size, size), 0 to 1.

    The square is between `size` and the whole photograph, so the same things come small and large.
    """
    pool = photographs(held_out)
    levels = _pyramid(held_out, int(rng.integers(len(pool))))
    shortest = min(levels[0].size)
    side = int(np.exp(rng.uniform(np.log(size), np.log(max(size, shortest)))))
    top = int(rng.integers(levels[0].height - side + 1))
    left = int(rng.integers(levels[0].width - side + 1))
    # the smallest level that still has the detail: large photographs are slow to shrink
    level = max(n for n in range(len(levels)) if side >> n >= size)
    box = tuple(edge / 2**level for edge in (left, top, left + side, top + side))
    square = levels[level].resize((size, size), Image.Resampling.BILINEAR, box=box)
    picture = np.asarray(square)
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    return np.moveaxis(picture, -1, 0).astype(np.float32) / 255


@cache
def _pyramid(held_out: bool, number: int) -> tuple[Image.Image, ...]:
    """A photograph at full, half and quarter size, cut to a multiple of four pixels."""
    photograph = photographs(held_out)[number]
    height, width = (length // 4 * 4 for length in photograph.shape[:2])
    picture = Image.fromarray(np.ascontiguousarray(photograph[:height, :width]))
    return picture, picture.reduce(2), picture.reduce(4)


def _open(name: str) -> np.ndarray:
    package, _, inside = name.partition("/")
    module = __import__(package)
    with Image.open(Path(module.__file__).parent / inside) as picture:
        return np.asarray(picture.convert("RGB"))
