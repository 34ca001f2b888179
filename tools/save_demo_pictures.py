"""Save one held-out scene as the example pictures of the demo graph.

python tools/save_demo_pictures.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.demo_scenes import HELD_OUT_SEEDS, RECIPES, make_scenes  # noqa: E402

DEFAULT_FOLDER = ROOT / "example_workflows" / "inputs"
DEFAULT_SEED = HELD_OUT_SEEDS.start + 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--recipe", choices=RECIPES, default="plain")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--prefix", default="i2am_demo")
    options = parser.parse_args()
    scenes = make_scenes(1, options.seed, recipe=RECIPES[options.recipe])
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, values in (
        ("scene", scenes.scene),
        ("reference", scenes.reference),
        ("target", scenes.target),
        ("hole_mask", scenes.hole),
        ("object_mask", scenes.object),
    ):
        save(values[0], options.folder / f"{options.prefix}_{name}.png")


def save(values: Tensor, path: Path) -> None:
    """Write a picture (H, W, 3) or a mask (H, W), 0 to 1, as an RGB file."""
    eight_bit = np.floor(values.numpy() * 255 + 0.5).astype(np.uint8)  # HOLE_GREY becomes 128
    Image.fromarray(eight_bit).convert("RGB").save(path, optimize=True)


if __name__ == "__main__":
    main()
