"""Writes tables of pairs for the demo models: held-out scenes, with the truth of each.

    python -m tools.evaluate.example --out output/pairs --count 200

The columns are the titles of the template i2am_01_demo. `--column NAME=VALUE,VALUE,…` repeats every
scene for each value, `--checkpoints FOLDER` for each model of each training in a folder, such as
`dev.py fidelity --full` keeps in output/fidelity; `--every 500` takes those of every 500 steps.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from tools.demo.save_pictures import save
from tools.demo.scenes import HELD_OUT_SEEDS, RECIPES, Scenes, make_scenes

from .plan.files import POINTS

Cells = dict[str, str]
PICTURES = {
    "The scene, with a hole": "scene",
    "The reference, with the object": "reference",
    "Where the hole is": "hole",
    "Where the object is": "object",
    "target": "target",
}


def write_pairs(
    folder: Path, count: int, recipe: str = "plain", variants: Sequence[Cells] = ({},)
) -> Path:
    """Writes pictures, points and pairs.csv, each scene once per variant; returns the table."""
    for name in (*PICTURES.values(), "points"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    for number in range(count):
        seed = HELD_OUT_SEEDS.start + number
        scenes = make_scenes(1, seed, recipe=RECIPES[recipe])
        file = f"{number + 1:04}"
        for name in PICTURES.values():
            save(getattr(scenes, name)[0], folder / name / f"{file}.png")
        points(scenes).to_csv(folder / "points" / f"{file}.csv", index=False)
        row = {column: f"{name}/{file}.png" for column, name in PICTURES.items()}
        row |= {"correspondence": f"points/{file}.csv", "KSampler.seed": str(seed)}
        rows += [{"name": file, **row, **variant} for variant in variants]
    table = folder / "pairs.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    return table


def points(scenes: Scenes) -> pd.DataFrame:
    """The middle of each token of the hole, and where it comes from in the reference."""
    across = scenes.grid[1]
    truth = scenes.correspondence[0]
    result = (truth >= 0).nonzero().squeeze(1)
    columns: list[torch.Tensor] = []
    for tokens in (result, truth[result]):
        columns += [(tokens % across + 0.5) / across, (tokens // across + 0.5) / scenes.grid[0]]
    return pd.DataFrame(torch.stack(columns, 1).numpy(), columns=list(POINTS))


def checkpoints(folder: Path, every: int) -> list[Cells]:
    """One variant per checkpoint `folder`/<training>/step_<number>.safetensors."""
    found: list[Cells] = []
    for path in sorted(folder.glob("*/step_*.safetensors")):
        step = int(path.stem.removeprefix("step_"))
        if step % every == 0:
            training = path.parent.name
            cells = {"label.training": training, "label.step": str(step)}
            found.append({"unet_name": f"{training}/{path.name}", **cells})
    if not found:
        raise SystemExit(f"There are no checkpoints in {folder}. Train: dev.py fidelity --full")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--recipe", choices=RECIPES, default="plain")
    parser.add_argument("--column", action="append", default=[], metavar="NAME=VALUE,…")
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--every", type=int, default=100)
    options = parser.parse_args()
    parts: list[list[Cells]] = [
        [{name: value} for value in values.split(",")]
        for name, _, values in (text.partition("=") for text in options.column)
    ]
    if options.checkpoints:
        parts.append(checkpoints(options.checkpoints, options.every))
    variants = [
        {name: value for part in chosen for name, value in part.items()}
        for chosen in itertools.product(*parts)
    ]
    print(write_pairs(options.out, options.count, options.recipe, variants))


if __name__ == "__main__":
    main()
