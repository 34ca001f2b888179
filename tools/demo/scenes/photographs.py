"""Photographs that ship inside Python packages, for the harder scenes and for the decoder.

They come with scikit-image (`skimage.data`, whose folder documents the source and licence of each),
scikit-learn (`china.jpg` and `flower.jpg`, CC BY) and Debian's packages of wallpapers. Some are
never trained on.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from tools.setup.pictures import WALLPAPERS, get_wallpapers

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
    "lomiri-wallpapers-16.04/Bridge_by_Sander_Klootwijk.jpg",
    "lomiri-wallpapers-16.04/Dragonfly_by_Bolly.jpg",
    "lomiri-wallpapers-16.04/Picture_0B_by_freespace.jpg",
    "lomiri-wallpapers-16.04/Picture_1A_by_freespace.jpg",
    "lomiri-wallpapers-16.04/Wine_by_Jakkub_Mede.jpg",
    "lomiri-wallpapers-16.04/aitzgorri_by_Aitzol_Berasategi.jpg",
    "lomiri-wallpapers-16.04/free_by_Peter_Nerlich.jpg",
    "lomiri-wallpapers-16.04/friends_by_Aitzol_Berasategi.jpg",
    "lomiri-wallpapers-16.04/life_by_Aitzol_Berasategi.jpg",
    "lomiri-wallpapers-16.04/picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "lomiri-wallpapers-16.04/seeding_by_Clements_Engelhardt.jpg",
    "lomiri-wallpapers-16.04/sunset_by_Aitzol_Berasategi.jpg",
    "lomiri-wallpapers-20.04/Kleiber_by_Lukas_Baubkus.jpg",
    "mate-backgrounds/mate/nature/Dune.jpg",
    "mate-backgrounds/mate/nature/FreshFlower.jpg",
    "mate-backgrounds/mate/nature/Garden.jpg",
    "mate-backgrounds/mate/nature/GreenMeadow.jpg",
    "mate-backgrounds/mate/nature/LadyBird.jpg",
    "mate-backgrounds/mate/nature/RainDrops.jpg",
    "mate-backgrounds/mate/nature/Storm.jpg",
    "mate-backgrounds/mate/nature/TwoWings.jpg",
    "mate-backgrounds/mate/nature/Wood.jpg",
    "mate-backgrounds/mate/nature/YellowFlower.jpg",
)
LONGEST = 2048  # pixels a side; larger ones are shrunk
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
    if package in WALLPAPERS:
        folder = get_wallpapers(package)
    else:
        folder = Path(__import__(package).__file__).parent
    with Image.open(folder / inside) as picture:
        picture.thumbnail((LONGEST, LONGEST))
        return np.asarray(picture.convert("RGB"))
