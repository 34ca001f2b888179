"""Do the maps tell the truth? The demo model's maps, compared with what is known of its scenes.

Everything runs through ComfyUI's own loaders and sampler and the pack's own capture, on held-out
scenes where the answer is known for every token: the demo model must copy the object of the
reference into the hole of the scene, and `Scenes.correspondence` says which token goes where.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from tools.comfyui.in_process import ROOT, import_comfyui, import_pack
from tools.demo.scenes import (
    EVERYTHING,
    HELD_OUT_SEEDS,
    PHOTOGRAPHS,
    PLAIN,
    RECIPES,
    Scenes,
    make_scenes,
)
from tools.fidelity.budgets import budgets
from tools.fidelity.causal import curves, effect_and_guess, occlusion, sanity
from tools.fidelity.host import MODEL, STEPS, load, pack_names
from tools.fidelity.imacs import clean_samples, degraded, over_training
from tools.fidelity.known import TRAINING_SEEDS, imacs_untrained, measure, train, trainings
from tools.fidelity.recipes import by_recipe
from tools.fidelity.report import Series, Table, plot, replaced
from tools.fidelity.tables import tables

DOCUMENT = ROOT / "docs" / "fidelity.md"
PLOTS = ROOT / "docs" / "fidelity"
FIGURES = PLOTS / "figures.json"
SCENES = 16  # in each table
OCCLUDED_SCENES = 8  # whose references are taken away piece by piece
QUICK = ("known", "maps", "causes")
FULL = (*QUICK, "curves", "sanity", "recipes", "budgets", "imacs", "training")

# The range each figure must be in: (smallest, largest).
BARS: dict[str, tuple[float, float]] = {
    "corr_exact_last": (0.95, 1.0),
    "corr_exact_mean": (0.95, 1.0),
    "corr_within1": (0.99, 1.0),
    "g2r_mass_last": (0.98, 1.0),
    "g2r_mass_mean": (0.90, 1.0),
    "g2r_pointing": (0.98, 1.0),
    "r2g_mass_last": (0.65, 1.0),
    "psnr_right": (22.0, 99.0),
    "psnr_gain_over_wrong": (10.0, 99.0),
    "psnr_gain_over_none": (10.0, 99.0),
    "imacs_r_trained": (0.6, 1.0),
    "imacs_r_untrained": (-3.0, -0.4),
}
# The same for figures that need a training or much time.
STUDY_BARS: dict[str, tuple[float, float]] = {
    "occlusion_corr_effect": (0.90, 1.0),
    "occlusion_corr_effect_photographs": (0.75, 1.0),
    "imacs_corr_checkpoints": (-1.0, -0.9),
    "imacs_corr_degraded": (-1.0, -0.85),
}
MEANINGS = {
    "corr_exact_last": "hole tokens whose strongest match is the true token, last block",
    "corr_exact_mean": "the same, all blocks averaged",
    "corr_within1": "hole tokens whose strongest match is the true token or beside it, last block",
    "g2r_mass_last": "attention of the hole on the object's tokens, last block",
    "g2r_mass_mean": "the same, plain average of all blocks",
    "g2r_pointing": "scenes where the highest cell of that is on the object",
    "r2g_mass_last": "model R2G inside the hole, last block",
    "psnr_right": "dB in the hole, with the right reference",
    "psnr_wrong": "dB in the hole, with another scene's reference",
    "psnr_none": "dB in the hole, without the object's reference",
    "imacs_r_trained": "IMACS over the object, of what the hole attends to, all blocks",
    "imacs_r_untrained": "the same, mean of eight models before any training",
    "imacs_corr_checkpoints": "Pearson of IMACS over the object and the error, over checkpoints of "
    "one training, the weakest",
    "imacs_corr_trainings": "the same over the checkpoints of all trainings together",
    "imacs_corr_degraded": "the same over samples, references degraded by noise in the latent",
    "occlusion_corr": "Pearson of the default G2R map and the change from muting each cell",
    "occlusion_rank_corr": "Spearman of the same",
    "occlusion_corr_grey": "Pearson of that map and the change from greying each cell",
    "occlusion_rank_corr_grey": "Spearman of the same",
    "occlusion_corr_effect": "Pearson of the effect's G2R map and the change from muting each cell",
    "occlusion_corr_effect_photographs": "Pearson of the same on photographs",
    "occlusion_corr_best_baseline": "Pearson of the best guess without the model, squared ones too",
    "occlusion_corr_best_baseline_photographs": "Pearson of that on photographs",
}


class Study:
    """The tables, plots and figures made so far."""

    def __init__(self, pack: SimpleNamespace, options: argparse.Namespace) -> None:
        self.pack, self.options = pack, options
        self.host = load(pack, options.model)
        self.tables: list[Table] = []
        self.figures: dict[str, float] = {}
        self.plots: dict[str, tuple[str, str, str, list[Series]]] = {}

    def scenes(self, most: int, recipe: str = "") -> Scenes:
        """Held-out scenes, at most this many, of the given recipe or of the command's."""
        chosen = RECIPES[recipe or self.options.recipe]
        return make_scenes(self.count(most), HELD_OUT_SEEDS.start, recipe=chosen)

    def count(self, most: int) -> int:
        """This many scenes, but no more than the command's --scenes."""
        return min(most, self.options.scenes)

    def known(self) -> None:
        """The figures with a required range."""
        self.figures |= measure(self.host, self.scenes(self.options.scenes))
        self.figures["imacs_r_untrained"] = imacs_untrained(self.pack)

    def maps(self) -> None:
        """Which map finds the truth?"""
        recipes = [self.options.recipe]
        if self.options.full and EVERYTHING.name not in recipes:
            recipes.append(EVERYTHING.name)
        for recipe in recipes:
            self.tables += tables(self.host, self.scenes(SCENES, recipe), recipe)

    def causes(self) -> None:
        """Does the result change where the map says so?"""
        found, figures = occlusion(self.host, self.scenes(OCCLUDED_SCENES))
        self.tables += found
        self.figures |= figures
        if self.options.full or self.options.parts:
            for recipe, kind in ((PLAIN, ""), (PHOTOGRAPHS, "_photographs")):
                effect, guess = effect_and_guess(self.host, self.scenes(SCENES, recipe.name))
                self.figures[f"occlusion_corr_effect{kind}"] = effect
                self.figures[f"occlusion_corr_best_baseline{kind}"] = guess

    def curves(self) -> None:
        """Deletion and insertion."""
        table, deletion, insertion = curves(self.host, self.scenes(OCCLUDED_SCENES))
        self.tables.append(table)
        for name, series in (("deletion", deletion), ("insertion", insertion)):
            verb = "muted" if name == "deletion" else "given back"
            title = f"{name.capitalize()}: change of the result"
            axes = f"part of the reference {verb}", "change (all muted = 1)"
            self.plots[name] = (title, *axes, series)

    def sanity(self) -> None:
        """Do maps change with the model and with the reference?"""
        self.tables += sanity(self.host, self.scenes(SCENES))

    def recipes(self) -> None:
        """The same on harder scenes."""
        counts = self.count(SCENES), self.count(OCCLUDED_SCENES)
        self.tables += by_recipe(self.host, list(RECIPES), self.scenes, *counts)

    def budgets(self) -> None:
        """What does recording less change?"""
        self.tables.append(budgets(self.host, self.scenes(OCCLUDED_SCENES)))

    def imacs(self) -> None:
        """Does IMACS follow the error of one model?"""
        found, figures, series = degraded(self.host, self.scenes(SCENES))
        self.tables += found
        self.figures |= figures
        axes = "mean squared error in the hole", "IMACS over the reference"
        self.plots["degraded"] = ("Degraded references", *axes, series)
        self.tables.append(clean_samples(self.host, self.scenes(SCENES)))

    def training(self) -> None:
        """Does IMACS follow the error over trainings, and how much depends on their seed?"""
        scenes = self.scenes(SCENES)
        folders = [train(seed) for seed in TRAINING_SEEDS]
        table, (*each, together), series = over_training(self.pack, scenes, folders)
        self.tables += [table, trainings(self.host, scenes, folders, each)]
        self.figures["imacs_corr_checkpoints"] = max(each)  # the weakest
        self.figures["imacs_corr_trainings"] = together
        axes = "mean squared error in the hole", "IMACS over the reference"
        self.plots["training"] = ("Checkpoints of trainings", *axes, series)

    def write(self) -> None:
        """Put tables and plots into the document, and the figures next to those of other parts."""
        known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        FIGURES.write_text(as_json(known | self.figures))
        DOCUMENT.write_text(replaced(DOCUMENT.read_text("utf-8"), self.tables), "utf-8")
        for name, drawing in self.plots.items():
            plot(PLOTS / f"{name}.png", *drawing)


def as_json(figures: dict[str, float]) -> str:
    """One flat object, a figure in each line."""
    return json.dumps(figures, indent=1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--scenes", type=int, default=32, help="how many held-out scenes, at most")
    parser.add_argument(
        "--recipe", choices=list(RECIPES), default=PLAIN.name, help="which kind of scenes"
    )
    parser.add_argument("--model", type=Path, default=MODEL, help="weights to measure")
    parser.add_argument(
        "--full",
        action="store_true",
        help="every part; the first time, this trains three models",
    )
    parser.add_argument("--parts", help=f"only these, with commas between: {', '.join(FULL)}")
    parser.add_argument(
        "--write", action="store_true", help="put tables, plots and figures into docs/fidelity"
    )
    options = parser.parse_args()
    parts = options.parts.split(",") if options.parts else FULL if options.full else QUICK
    unknown = sorted(set(parts) - set(FULL))
    if unknown:
        parser.error(f"no part {unknown}; there are {', '.join(FULL)}")
    torch.set_num_threads(1)  # tensors this small only wait for a second one
    import_comfyui()
    study = Study(pack_names(import_pack().__name__), options)
    torch.manual_seed(0)
    with torch.inference_mode():
        for part in parts:
            started = time.perf_counter()
            getattr(study, part)()
            print(f"{part}: {time.perf_counter() - started:.0f} s", flush=True)
            if options.write:  # at once: a long run that ends early keeps what it has
                study.write()
    for table in study.tables:
        print(f"\n{table.name}\n\n{table}")
    print(f"\n{options.scenes} held-out scenes “{options.recipe}”, {STEPS} steps, cfg 1")
    for name, value in study.figures.items():
        low, high = (BARS | STUDY_BARS).get(name, (float("-inf"), float("inf")))
        verdict = ""
        if low > float("-inf") and options.recipe == PLAIN.name:
            verdict = "ok" if low <= value <= high else f"not in {low:g} … {high:g}"
        print(f"  {name:24} {value:8.3f}  {verdict:18}  {MEANINGS.get(name, '')}")
    if options.json:
        options.json.write_text(as_json(study.figures))


if __name__ == "__main__":
    main()
