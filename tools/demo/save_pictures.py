"""Save one held-out scene as the example pictures of a workflow.

python -m tools.demo.save_pictures
python -m tools.demo.save_pictures --recipe plain --seed 10000002 --prefix i2am_debug
python -m tools.demo.save_pictures --task try_on --seed 10000015 --prefix i2am_try_on
python -m tools.demo.save_pictures --task two_objects --seed 10000008 --prefix i2am_two
python -m tools.demo.save_pictures --task insertion --seed 10002004 --prefix i2am_insertion
python -m tools.demo.save_pictures --task upscale --seed 10000012 --prefix i2am_upscale
python -m tools.demo.save_pictures --task words --seed 10006003 --prefix i2am_words
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tools.demo.insertions import make_insertions
from tools.demo.scenes import (
    HELD_OUT_SEEDS,
    OBJECTS,
    RECIPES,
    Scenes,
    draw_try_on,
    draw_two_objects,
    make_scenes,
    reduced,
)
from tools.demo.scenes.photographs import crop
from tools.demo.words import draw_word_scenes
from tools.setup.paths import ROOT

DEFAULT_FOLDER = ROOT / "example_workflows" / "inputs"
DEFAULT_SEED = HELD_OUT_SEEDS.start + 260  # a slice of pizza


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--recipe", choices=RECIPES, default=OBJECTS.name)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--prefix", default="i2am_demo")
    parser.add_argument("--task", choices=PICTURES, default="inpaint")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, values in PICTURES[options.task](options.seed, options.recipe).items():
        save(values[0], options.folder / f"{options.prefix}_{name}.png")


def demo_scene() -> Scenes:
    """The scene of the demo workflow."""
    return make_scenes(1, DEFAULT_SEED, recipe=OBJECTS)


def inpaint(seed: int, recipe: str) -> dict[str, Tensor]:
    """A scene with a hole, the reference, what belongs there, and both masks."""
    return of_scenes(make_scenes(1, seed, recipe=RECIPES[recipe]))


def try_on(seed: int, _: str) -> dict[str, Tensor]:
    """A figure with a hole where a shirt goes, the shirt, and both masks."""
    return of_scenes(draw_try_on(seed))


def two_objects(seed: int, _: str) -> dict[str, Tensor]:
    """A scene of two objects with a hole for one, its reference, and both masks."""
    return of_scenes(draw_two_objects(seed))


def of_scenes(scenes: Scenes) -> dict[str, Tensor]:
    return {
        "scene": scenes.scene,
        "reference": scenes.reference,
        "target": scenes.target,
        "hole_mask": scenes.hole,
        "object_mask": scenes.object,
    }


def insertion(seed: int, _: str) -> dict[str, Tensor]:
    """A picture, the object of a box in it, and the box."""
    scenes = make_insertions(1, seed)
    return {"scene": scenes.scene, "reference": scenes.reference, "box_mask": scenes.box_mask}


def upscale(seed: int, _: str) -> dict[str, Tensor]:
    """A photograph, and the same at an eighth of its size, enlarged again."""
    rng = np.random.default_rng((seed, 5))
    target = torch.tensor(crop(rng, 128, held_out=True)).movedim(0, -1)[None]
    return {"low": reduced(target), "true": target}


def words(seed: int, _: str) -> dict[str, Tensor]:
    """A picture with two boxes to fill, the boxes, and the object for one of them."""
    scenes = draw_word_scenes(range(seed, seed + 1))
    return {"scene": scenes.scene, "box_mask": scenes.box_mask, "reference": scenes.reference}


PICTURES = {
    "inpaint": inpaint,
    "try_on": try_on,
    "two_objects": two_objects,
    "insertion": insertion,
    "upscale": upscale,
    "words": words,
}


def save(values: Tensor, path: Path) -> None:
    """Write a picture (H, W, 3) or a mask (H, W), 0 to 1, as an RGB file."""
    eight_bit = np.floor(values.numpy() * 255 + 0.5).astype(np.uint8)  # HOLE_GREY becomes 128
    Image.fromarray(eight_bit).convert("RGB").save(path, optimize=True)


if __name__ == "__main__":
    main()
