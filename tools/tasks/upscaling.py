"""What is a low-resolution reference used for? Super-resolution on the demo model trained for it.

    python -m tools.tasks.upscaling

The paper shows that in super-resolution the maps gather on detail, for example on print, but gives
no figure. This measures it: the rank correlation (Spearman) of each map with the local detail of
the true picture over its 8×8 tokens, in both directions, over time, by layer and by head, on
held-out pictures, with a bootstrap interval over the pictures. Detail is the mean squared
difference of neighbouring pixels in a token. The same is measured for what the low resolution
lacks, the squared difference of the true picture and the enlarged one. Maps are in the model
definition, the unified ones in the effect's, too.

Everything goes through ComfyUI's loader and sampler and the pack's own capture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.comfyui.in_process import import_comfyui, import_pack
from tools.demo.scenes import (
    HELD_OUT_SEEDS,
    PHOTOGRAPHS,
    Recipe,
    make_scenes,
    reduced,
    token_coverage,
)
from tools.fidelity.statistics import spearman
from tools.setup.paths import ROOT
from tools.tasks.recorded_sampling import STEPS, Conditions, Pack, interval, save_rows

MODEL = ROOT / "models" / "diffusion_models" / "i2am_demo_upscale.safetensors"
FIRST_SEED = HELD_OUT_SEEDS.start + 4000
LEVELS = ("unified", "time", "layer", "head")


def detail(pictures: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels in each token: (B, H, W, 3) to (B, tokens)."""
    down = pictures.diff(dim=1, append=pictures[:, -1:]).square().mean(-1)
    across = pictures.diff(dim=2, append=pictures[:, :, -1:]).square().mean(-1)
    return token_coverage(down + across)


def lacking(pictures: Tensor) -> Tensor:
    """Mean squared error of the enlarged low resolution in each token, (B, tokens)."""
    return token_coverage((pictures - reduced(pictures)).square().mean(-1))


def rank_correlation(one: Tensor, other: Tensor) -> np.ndarray:
    """Spearman's correlation of (B, places) twice, (B,); ties share their mean rank."""
    return spearman(one, other).numpy()


class Upscaling:
    """The model and its sampling."""

    def __init__(self, pack: Pack, model: Path = MODEL) -> None:
        import comfy.sd

        self.pack = pack
        self.model = comfy.sd.load_diffusion_model(str(model))

    def conditions(self, low: Tensor) -> Conditions:
        """To make pictures from enlarged low resolutions."""
        latents = self.pack.vae.encode(low)
        prompt = [[torch.zeros(1, 1, 16), {"reference_latents": [latents]}]]
        return Conditions(prompt, prompt, torch.zeros_like(latents))

    def upscale(self, low: Tensor) -> tuple[Tensor, Any]:
        """The pictures made from enlarged low resolutions, and the recording."""
        latent, record = self.pack.record(self.model, self.conditions(low))
        return self.pack.decode(latent), record

    def measure(self, pictures: Tensor) -> dict[str, np.ndarray]:
        """One value for each picture, under the name of each row of the tables."""
        low = reduced(pictures)
        made, record = self.upscale(low)
        other, _ = self.upscale(low.roll(1, 0))
        rows = {
            "dB, made": decibels(made, pictures),
            "dB, enlarged": decibels(low, pictures),
            "dB, made above enlarged": decibels(made, pictures) - decibels(low, pictures),
            "dB, made from another picture": decibels(other, pictures),
            "detail, made / true": (detail(made).mean(1) / detail(pictures).mean(1)).numpy(),
            "detail, enlarged / true": (detail(low).mean(1) / detail(pictures).mean(1)).numpy(),
        }
        for direction in ("r2g", "g2r"):
            for level in LEVELS:
                maps = self.pack.maps(record, "model", direction, level)
                for n, label in enumerate(maps.labels):
                    values = maps.values[:, n].flatten(1)
                    name = f"{direction} {label}"
                    rows[f"{name}: detail"] = rank_correlation(values, detail(pictures))
                    rows[f"{name}: lacking"] = rank_correlation(values, lacking(pictures))
                    if direction == "r2g":
                        rows[f"{name}: share of the attention"] = values.sum(1).numpy()
            effect = self.pack.maps(record, "effect", direction).values.flatten(1)
            rows[f"{direction} effect: detail"] = rank_correlation(effect, detail(pictures))
            rows[f"{direction} effect: lacking"] = rank_correlation(effect, lacking(pictures))
        return rows

    def figure(self, pictures: Tensor, path: Path) -> None:
        """Rows: enlarged, made, true, detail, and the unified maps in both directions."""
        low = reduced(pictures)
        made, record = self.upscale(low)
        size = pictures.shape[1], pictures.shape[2]
        maps = [self.pack.maps(record, "model", direction) for direction in ("r2g", "g2r")]
        grid = maps[0].values.shape[-2:]
        amount = detail(pictures).sqrt().unflatten(1, grid)
        rows = [low, made, pictures, grey(amount, size)]
        save_rows([*rows, *(self.pack.heatmaps(one, size)[:, 0] for one in maps)], path)

    def figure_of_levels(self, pictures: Tensor, path: Path) -> None:
        """One picture's maps over time, then by layer: R2G above, G2R below."""
        _, record = self.upscale(reduced(pictures))
        size = pictures.shape[1], pictures.shape[2]
        rows = [
            self.pack.heatmaps(self.pack.maps(record, "model", direction, level), size)[0]
            for level in ("time", "layer")
            for direction in ("r2g", "g2r")
        ]
        save_rows(rows, path)


def decibels(made: Tensor, pictures: Tensor) -> np.ndarray:
    """PSNR of each picture."""
    return (-10 * (made - pictures).square().mean((1, 2, 3)).log10()).numpy()


def grey(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Values (B, rows, columns) as grey pictures, each in its own range: black is the lowest."""
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    cell = size[0] // values.shape[1]
    scaled = ((values - low) / (high - low)).repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    return scaled[..., None].expand(-1, -1, -1, 3)


def held_out(count: int, recipe: Recipe = PHOTOGRAPHS) -> Tensor:
    """Pictures never trained on."""
    return make_scenes(count, FIRST_SEED, recipe=recipe).target


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the intervals")
    parser.add_argument("--model", type=Path, default=MODEL, help="weights to measure")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--figures", type=Path, help="folder to draw some pictures into")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small only wait for a second one
    import_comfyui()
    upscaling = Upscaling(Pack(import_pack().__name__), options.model)
    with torch.inference_mode():
        rows = upscaling.measure(held_out(options.pictures))
        if options.figures:
            upscaling.figure(held_out(8), options.figures / "upscaling.png")
            upscaling.figure_of_levels(held_out(1), options.figures / "upscaling_levels.png")
    figures = {name: interval(values, options.seed) for name, values in rows.items()}
    print(f"{options.pictures} held-out pictures, {STEPS} steps; mean and its 95 % interval")
    for name, (mean, low, high) in figures.items():
        print(f"  {name:44} {mean:7.3f}  {low:.3f} … {high:.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
