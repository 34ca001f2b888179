"""Where did the object go? The I2AM paper's object localisation, on the demo insertion model.

    python -m tools.tasks.localisation

A box is cut out of every held-out picture, and the model puts the object back from a picture of
what was in the box. The paper's recipe turns the map over the result (reference to generated) into
a box, which is compared with the one that was cut out: mean intersection over union, with a
bootstrap interval over the pictures. As in the paper, the model is given the box as the place to
fill, so the question is whether the map follows the reference, not whether an object is detected.

Everything goes through ComfyUI's sampler and the pack's own nodes and capture.
"""

from __future__ import annotations

import argparse
import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.comfyui.in_process import import_comfyui, import_pack
from tools.demo.insertions import Insertions, make_insertions, random_box
from tools.demo.scenes import HELD_OUT_SEEDS
from tools.fidelity.errors import decibels
from tools.tasks.recorded_sampling import STEPS, Conditions, Pack, interval, save_rows

PAPER_THRESHOLD = 0.4  # of a map's range; lower values count as nothing
GUIDANCE = 3.0  # cfg of the one row with guidance
RANDOM_BOXES = 100  # for each picture
FIRST_SEED = HELD_OUT_SEEDS.start + 2000
WHITE, YELLOW = (1.0, 1.0, 1.0), (1.0, 0.8, 0.0)


class Localisation:
    """The model, its sampling, and the boxes found in its maps."""

    def __init__(self, pack: Pack, scenes: Insertions) -> None:
        self.pack, self.scenes = pack, scenes
        self.size = (scenes.scene.shape[1], scenes.scene.shape[2])
        self.demo = pack.module("nodes.prepare.demo")
        self.maps, self.masks = pack.module("i2am.maps.levels"), pack.module("i2am.scores")
        self.locate, self.box = (
            pack.module("i2am.scores").locate_object,
            pack.module("i2am.scores").Box,
        )
        self.model = self.demo.load_insertion_model(self.demo.INSERTION_MODEL)
        self.true = [self.box(*box) for box in scenes.boxes]
        self.whole = self.box(0, 0, self.size[1], self.size[0])

    def untrained(self) -> Any:
        """The model with initial weights, as before training."""
        from tools.demo.train_unet import UNET, new_unet

        torch.manual_seed(0)
        model = self.demo.load_insertion_model(self.demo.INSERTION_MODEL)
        heads = self.demo.InsertionUNet.unet_extra_config["num_heads"]
        model.model.diffusion_model.load_state_dict(new_unet(UNET, heads).state_dict())
        return model

    def conditions(self, reference: Tensor, numbers: Tensor | None = None) -> Conditions:
        """To fill boxes from these pictures. numbers: of the scenes; all of them by default."""
        chosen = slice(None) if numbers is None else numbers
        nodes: Any = importlib.import_module("nodes")  # ComfyUI's: its folder comes first
        positive = self.demo.ReferenceTokens.execute(reference, self.pack.vae).args[0]
        positive, negative, latent = nodes.InpaintModelConditioning().encode(
            positive,
            nodes.ConditioningZeroOut().zero_out(positive)[0],
            self.scenes.target[chosen],
            self.pack.vae,
            self.scenes.box_mask[chosen],
            noise_mask=False,
        )
        return Conditions(positive, negative, latent["samples"])

    def insert(self, reference: Tensor, model: Any = None, cfg: float = 1.0) -> tuple[Tensor, Any]:
        """Fill the boxes: the pictures (B, H, W, 3), and the recording."""
        conditions = self.conditions(reference)
        latent, record = self.pack.record(model or self.model, conditions, cfg=cfg)
        return self.pack.decode(latent), record

    def r2g(self, record: Any, level: str = "unified", definition: str = "paper") -> Any:
        """A map over the result, averaged as the paper does."""
        at = self.maps
        selection = at.Selection()
        if definition == "paper" and level == "unified":
            selection = at.paper_selection(record, selection)
        return at.attribution_map(
            record,
            at.Definition(definition),
            at.Direction.REFERENCE_TO_GENERATED,
            at.Level(level),
            selection=selection,
        )

    def found(self, maps: Any) -> list[Any]:
        """The box of each picture's map by the paper's recipe.

        A map that singles out no place answers "somewhere in the picture": the whole of it.
        """
        boxes = self.locate(maps, self.size, threshold=PAPER_THRESHOLD)
        return [box or self.whole for box in boxes]

    def found_by_otsu(self, maps: Any) -> list[Any]:
        """The box around the brighter of Otsu's two classes, which needs no threshold."""
        masks = self.masks.mask_of(maps, self.size, self.masks.Method.OTSU, 0)
        around = self.pack.module("i2am.scores").box_around
        return [around(mask) or self.whole for mask in masks]

    def overlaps(self, boxes: list[Any]) -> np.ndarray:
        """Intersection over union with the true boxes."""
        return np.array([box.overlap(t) for box, t in zip(boxes, self.true, strict=True)])

    def random_boxes(self, seed: int) -> np.ndarray:
        """The mean overlap of boxes drawn like the true ones, misses included."""
        rng = np.random.default_rng(seed)
        draws = [
            self.overlaps([self.box(*random_box(rng, self.size[0])) for _ in self.true])
            for _ in range(RANDOM_BOXES)
        ]
        return np.mean(draws, axis=0)

    def decibels(self, pictures: Tensor) -> np.ndarray:
        """PSNR inside the box, for each picture."""
        return decibels(pictures, self.scenes.target, self.scenes.box_mask).numpy()

    def measure(self, seed: int) -> dict[str, np.ndarray]:
        """One value for each picture, under the name of each row of the table."""
        reference = self.scenes.reference
        pictures, record = self.insert(reference)
        others, other = self.insert(reference.roll(1, 0))
        _, guided = self.insert(reference, cfg=GUIDANCE)
        _, before = self.insert(reference, model=self.untrained())
        boxes = {
            "whole picture": [self.whole] * len(self.true),
            "DAAM's reduction": self.found(self.r2g(record, definition="model")),
            "R2G, model before training": self.found(self.r2g(before)),
            "R2G, another object's picture": self.found(self.r2g(other)),
            "R2G": self.found(self.r2g(record)),
            f"R2G, cfg {GUIDANCE:g}": self.found(self.r2g(guided)),
            "R2G, effect": self.found(self.r2g(record, definition="effect")),
            "R2G, Otsu's box": self.found_by_otsu(self.r2g(record)),
        }
        for level in ("time", "layer", "head"):
            maps = self.r2g(record, level)
            for n, label in enumerate(maps.labels):
                alone = replace(maps, values=maps.values[:, n : n + 1], labels=(label,))
                boxes[f"R2G, {label}"] = self.found(alone)
        return {
            "random box": self.random_boxes(seed),
            **{name: self.overlaps(found) for name, found in boxes.items()},
            "dB in the box": self.decibels(pictures),
            "dB in the box, another object's picture": self.decibels(others),
        }

    def figure(self, path: Path) -> None:
        """Scene, reference, result, map, and both boxes: the true one white, the found yellow."""
        pictures, record = self.insert(self.scenes.reference)
        maps = self.r2g(record)
        boxed = pictures.clone()
        for picture, found, true in zip(boxed, self.found(maps), self.true, strict=True):
            for box, colour in ((true, WHITE), (found, YELLOW)):
                inside = box.mask(self.size)
                picture[inside > self.masks.grow(inside[None], -2)[0]] = torch.tensor(colour)
        heat = self.pack.heatmaps(maps, self.size)[:, 0]
        save_rows([self.scenes.scene, self.scenes.reference, pictures, heat, boxed], path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of random boxes and intervals")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--figure", type=Path, help="draw the first eight pictures into this file")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small only wait for a second one
    import_comfyui()
    pack = Pack(import_pack().__name__)
    with torch.inference_mode():
        scenes = make_insertions(options.pictures, FIRST_SEED)
        rows = Localisation(pack, scenes).measure(options.seed)
        if options.figure:
            Localisation(pack, make_insertions(8, FIRST_SEED)).figure(options.figure)
    figures = {name: interval(values, options.seed) for name, values in rows.items()}
    print(f"{options.pictures} held-out pictures, {STEPS} steps; mean IoU and its 95 % interval")
    for name, (mean, low, high) in figures.items():
        print(f"  {name:40} {mean:7.3f}  {low:.3f} … {high:.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
