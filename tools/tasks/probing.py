"""Are the maps of a probed picture those of the run that made it? On the demo model.

    python -m tools.tasks.probing

Pictures are sampled and recorded, decoded, rounded to eight bits as in a file, encoded again and
given to the pack's node Probe a Picture, which adds noise to them and generates nothing. Its
unified maps over the result and over the object's reference are compared (Pearson, mean over
pictures with a 95 % bootstrap interval) with those of the run. Seeds are another than that of the
run unless stated.

The second table is whether a probe that is given the reference of another picture, or another
picture, is told apart: by its fit, the part of the picture that the model's guess gets right. "Of
all pairs" says how often a right one has the higher fit of any right and any wrong one, "each its
own" how often the right one of the same picture has.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.comfyui.in_process import import_comfyui, import_pack
from tools.demo.scenes import HELD_OUT_SEEDS, PHOTOGRAPHS, PLAIN, Recipe, Scenes, make_scenes
from tools.fidelity.host import MODEL, OBJECT
from tools.fidelity.statistics import pearson
from tools.tasks.recorded_sampling import SEED, Conditions, Pack, interval

FIRST_SEED = HELD_OUT_SEEDS.start + 6000
OTHER_SEED = SEED + 1
LEVELS = 4
COUNTS = (1, 2, 8, 16)  # of noise levels, besides
DEFINITIONS = ("model", "paper", "effect")
DIRECTIONS = ("r2g", "g2r")
RECIPES = (PLAIN, PHOTOGRAPHS)
Figures = dict[str, np.ndarray]


class Probing:
    """Pictures of some scenes and the runs that made them, to be probed."""

    def __init__(self, pack: Pack, scenes: Scenes) -> None:
        import comfy.sd

        self.pack = pack
        self.model = comfy.sd.load_diffusion_model(str(MODEL))
        self.references = [pack.vae.encode(one) for one in (scenes.scene, scenes.reference)]
        positive = conditioning(self.references)
        start = torch.zeros_like(self.references[0])
        latent, self.run = pack.record(self.model, Conditions(positive, positive, start))
        written = (pack.decode(latent) * 255).round() / 255
        self.pictures = pack.vae.encode(written)
        # Of another scene, which its own references do not fit.
        self.other_references = [self.references[0], self.references[1].roll(1, 0)]
        self.other_pictures = self.pictures.roll(1, 0)

    def probe(
        self,
        references: list[Tensor] | None = None,
        pictures: Tensor | None = None,
        levels: int = LEVELS,
        seed: int = OTHER_SEED,
    ) -> Any:
        """What the node records of pictures, and their fits. By default all is as it was."""
        plan = self.pack.module("i2am.recording").Plan(definitions="all")
        given = conditioning(self.references if references is None else references)
        latent = {"samples": self.pictures if pictures is None else pictures}
        node = self.pack.module("nodes.watch.probe")
        return node.probe(self.model, given, latent, plan, levels, seed)

    def agreement(self, probed: Any, definition: str, direction: str) -> np.ndarray:
        """The correlation of each picture's map with that of the run."""
        one, other = (
            self.pack.maps(record, definition, direction, reference=OBJECT).values.flatten(1)
            for record in (probed.readable(), self.run)
        )
        return pearson(one, other).numpy()

    def agreements(self) -> Figures:
        """One value for each picture, under the name of each row of the first table."""
        rows: Figures = {}
        for name, seed in (("another seed", OTHER_SEED), ("the run's seed", SEED)):
            probed = self.probe(seed=seed)
            for definition, direction in product(DEFINITIONS, DIRECTIONS):
                found = self.agreement(probed, definition, direction)
                rows[f"{direction.upper()}, {definition}, {name}"] = found
        for count in COUNTS:
            probed = self.probe(levels=count)
            for direction in DIRECTIONS:
                found = self.agreement(probed, "model", direction)
                rows[f"{direction.upper()}, model, levels: {count}"] = found
        return rows

    def told_apart(self) -> Figures:
        """One value for each picture, under the name of each row of the second table."""
        right = self.probe()
        wrong = {
            "another's reference": self.probe(references=self.other_references),
            "another's picture": self.probe(pictures=self.other_pictures),
        }
        fits = right.fits.mean(0)
        rows: Figures = {"fit, right": fits.numpy()}
        for name, probed in wrong.items():
            found = probed.fits.mean(0)
            rows[f"fit, {name}"] = found.numpy()
            rows[f"of all pairs, {name}"] = (fits[:, None] > found).float().mean(1).numpy()
            rows[f"each its own, {name}"] = (fits > found).float().numpy()
            for direction in DIRECTIONS:
                agreement = self.agreement(probed, "model", direction)
                rows[f"{direction.upper()}, model, {name}"] = agreement
        return rows


def conditioning(references: list[Tensor]) -> list[Any]:
    """No text, and these latents as references."""
    return [[torch.zeros(1, 1, 16), {"reference_latents": references}]]


def measured(pack: Pack, recipe: Recipe, count: int) -> Figures:
    """The rows of both tables on held-out scenes of one kind."""
    probing = Probing(pack, make_scenes(count, FIRST_SEED, recipe=recipe))
    return probing.agreements() | probing.told_apart()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the intervals")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small only wait for a second one
    import_comfyui()
    pack = Pack(import_pack().__name__)
    figures: dict[str, dict[str, tuple[float, float, float]]] = {}
    with torch.inference_mode():
        for recipe in RECIPES:
            rows = measured(pack, recipe, options.pictures)
            figures[recipe.name] = {n: interval(v, options.seed) for n, v in rows.items()}
            print(f"{options.pictures} held-out pictures, {recipe.name}; lowest of any picture")
            for name, (mean, low, high) in figures[recipe.name].items():
                line = f"{mean:7.3f}  {low:.3f} … {high:.3f}  {rows[name].min():7.3f}"
                print(f"  {name:40} {line}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
