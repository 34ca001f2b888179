"""Do maps say what muting a reference changes? On the models for insertion and upscaling.

    python -m tools.tasks.muting

Each of the reference's 8×8 cells is muted alone by the pack's own Reference Strength, with the same
noise. The change is the mean squared difference of the result's latent. It is compared (Pearson,
mean over pictures with a 95 % bootstrap interval) with every definition's map over the reference,
and with guesses that never look into the model. The whole reference muted is compared likewise with
the maps over the result. `python dev.py fidelity` has the same for inpainting.

The second table is what Reference Influence's verdict says of the effect: how far attention's
output would move without the reference, when the reference is right, another picture's, or grey;
beside it the change of the picture that muting makes in truth.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.comfyui.in_process import import_comfyui, import_pack
from tools.demo.insertions import make_insertions
from tools.demo.scenes import HOLE_GREY, TOKEN, reduced
from tools.fidelity.causal import baselines, squared
from tools.fidelity.statistics import pearson
from tools.tasks.localisation import FIRST_SEED, Localisation
from tools.tasks.recorded_sampling import Conditions, Pack, interval, noise_of, sample
from tools.tasks.upscaling import Upscaling, held_out

STEPS = 4  # as in the same measurement for inpainting
DEFINITIONS = ("model", "paper", "effect")
WEIGHTS = ("mass", "equal")  # of the layers
Figures = dict[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """A model, the references of some pictures, and how it is asked to use some of them.

    without: the same model with all of the reference muted. part: (pictures, H, W), where the
    reference was meant to go; None for everywhere. conditions: for the pictures' numbers (B,) and a
    reference for each (B, H, W, 3).
    """

    name: str
    pack: Pack
    model: Any
    without: Any
    references: Tensor
    part: Tensor | None
    conditions: Callable[[Tensor, Tensor], Conditions]

    def measure(self) -> Figures:
        """One value for each picture, under the name of each row of the first table."""
        everything = torch.arange(len(self.references))
        conditions = self.conditions(everything, self.references)
        latent, record = self.pack.record(self.model, conditions, STEPS)
        noise = noise_of(conditions)
        alone = torch.stack([self._each_alone(n, latent, noise) for n in everything.tolist()])
        lost = sample(self.without, conditions, noise, STEPS) - latent
        grid = self.pack.maps(record, "model", "r2g").values.shape[-2:]
        where = F.adaptive_avg_pool2d(lost.square().mean(1), grid).flatten(1)
        rows: Figures = {}
        for definition, weight in product(DEFINITIONS, WEIGHTS):
            name = f"{definition}, layers by {weight}"
            g2r, r2g = (
                self.pack.maps(record, definition, direction, weight=weight).values.flatten(1)
                for direction in ("g2r", "r2g")
            )
            rows[f"G2R, {name}"] = pearson(g2r, alone).numpy()
            rows[f"R2G, {name}"] = pearson(r2g, where).nan_to_num().numpy()  # flat: no guess
        guesses = baselines(self.references, self.pack.decode(latent))
        for name, guess in (guesses | squared(guesses)).items():
            rows[f"guess, {name}"] = pearson(guess, alone).numpy()
        return rows

    def _each_alone(self, number: int, latent: Tensor, noise: Tensor) -> Tensor:
        """How much one picture changes with each cell muted alone, (cells,)."""
        down, across = (side // TOKEN for side in self.references.shape[1:3])
        cells = torch.eye(down * across).unflatten(1, (down, across))
        same = torch.full((len(cells),), number)
        conditions = self.conditions(same, self.references[same])
        muted = sample(muting(self.pack, self.model, cells), conditions, noise[same], STEPS)
        return (muted - latent[number]).square().mean((1, 2, 3))

    def verdicts(self) -> Figures:
        """One value for each picture, under the name of each row of the second table."""
        everything = torch.arange(len(self.references))
        given = {
            "right": self.references,
            "another's": self.references.roll(1, 0),
            "grey": torch.full_like(self.references, HOLE_GREY),
        }
        output_change = self.pack.module("i2am.scores.effect").output_change
        rows: Figures = {}
        for name, references in given.items():
            conditions = self.conditions(everything, references)
            latent, record = self.pack.record(self.model, conditions, STEPS)
            without = sample(self.without, conditions, noise_of(conditions), STEPS)
            rows[f"{name}: output, whole"] = output_change(record)[:, 0].numpy()
            if self.part is not None:
                rows[f"{name}: output, part"] = output_change(record, self.part)[:, 0].numpy()
                rows[f"{name}: output, rest"] = output_change(record, 1 - self.part)[:, 0].numpy()
            moved = (without - latent).square().mean((1, 2, 3)) / latent.square().mean((1, 2, 3))
            rows[f"{name}: latent, in truth"] = moved.sqrt().numpy()
        return rows


def muting(pack: Pack, model: Any, mask: Tensor | None = None) -> Any:
    """The model with the reference, or a part of it (1 or B, height, width), at strength 0."""
    steer = pack.module("i2am.attention").Steer(0, 0.0, reference_mask=mask)
    return pack.module("nodes.host.steering").steered(model, steer)


def insertion(pack: Pack, count: int) -> Task:
    """Its reference has softmaxes of its own, so muting it leaves no output of them."""
    scenes = make_insertions(count, FIRST_SEED)
    localisation = Localisation(pack, scenes)
    without = localisation.model.clone()
    without.set_model_attn2_patch(lambda n, keys, values, _: (n, keys, torch.zeros_like(values)))

    def conditions(numbers: Tensor, references: Tensor) -> Conditions:
        return localisation.conditions(references, numbers)

    model, references = localisation.model, scenes.reference
    return Task("insertion", pack, model, without, references, scenes.box_mask, conditions)


def upscaling(pack: Pack, count: int) -> Task:
    upscaling = Upscaling(pack)
    model, references = upscaling.model, reduced(held_out(count))

    def conditions(_: Tensor, references: Tensor) -> Conditions:
        return upscaling.conditions(references)

    return Task("upscaling", pack, model, muting(pack, model), references, None, conditions)


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
        for make in (insertion, upscaling):
            task = make(pack, options.pictures)
            rows = task.measure() | task.verdicts()
            figures[task.name] = {name: interval(row, options.seed) for name, row in rows.items()}
    print(f"{options.pictures} held-out pictures, {STEPS} steps; mean and its 95 % interval")
    for task_name, found in figures.items():
        print(task_name)
        for name, (mean, low, high) in found.items():
            print(f"  {name:40} {mean:7.3f}  {low:.3f} … {high:.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
