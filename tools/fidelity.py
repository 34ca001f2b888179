"""Does the map tell the truth? The demo model's maps held against what is known of its scenes.

Every figure is taken through ComfyUI's own loaders and sampler and the pack's own capture, on
held-out scenes whose answer is known token by token: the demo model must copy the object of the
reference into the hole of the scene, and `Scenes.correspondence` says which token goes where.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from demo_flux import DemoFlux
from demo_scenes import (
    EVERYTHING,
    HELD_OUT_SEEDS,
    PLAIN,
    RECIPES,
    Scenes,
    correspondence_distance,
    make_scenes,
    token_coverage,
)
from fidelity_causal import curves, occlusion, sanity
from fidelity_host import LAST, MODEL, OBJECT, STEPS, Host, load, pack_names
from fidelity_imacs import clean_samples, degraded, over_training
from fidelity_report import Series, Table, plot, replaced
from fidelity_statistics import mass
from fidelity_tables import tables
from in_process import ROOT, import_comfyui, import_pack

DOCUMENT = ROOT / "docs" / "fidelity.md"
PLOTS = ROOT / "docs" / "fidelity"
TRAININGS = ROOT / "output" / "fidelity"
TRAINING_SEEDS = (7,)
TRAINING_STEPS, TRAINING_EVERY = 1000, 50
QUICK_SCENES = 8  # of the occlusions
CURVE_SCENES = 8
IMACS_SCENES = 16  # of every checkpoint
QUICK = ("known", "maps", "causes")
FULL = (*QUICK, "curves", "sanity", "imacs")
UNTRAINED_MODELS = 8  # freshly initialised: where one of them looks is chance
UNTRAINED_SCENES = 16

# The bar each figure must reach: (smallest, largest).
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
# The same for what takes a training, or long.
STUDY_BARS: dict[str, tuple[float, float]] = {
    "imacs_corr_checkpoints": (-1.0, -0.9),
    "imacs_corr_degraded": (-1.0, -0.85),
}
MEANINGS = {
    "corr_exact_last": "hole tokens whose strongest match is the true token, last block",
    "corr_exact_mean": "the same, all blocks averaged",
    "corr_within1": "hole tokens whose strongest match is the true token or beside it, last block",
    "g2r_mass_last": "attention of the hole on the object's tokens, last block",
    "g2r_mass_mean": "the same, all blocks averaged raw",
    "g2r_pointing": "scenes whose highest cell of that is on the object",
    "r2g_mass_last": "model R2G inside the hole, last block",
    "psnr_right": "dB in the hole, with the right reference",
    "psnr_wrong": "dB in the hole, with another scene's reference",
    "psnr_none": "dB in the hole, without the object's reference",
    "imacs_r_trained": "IMACS over the object, of what the hole looked at, all blocks",
    "imacs_r_untrained": "the same, mean of eight models before any training",
    "imacs_corr_checkpoints": "Pearson of IMACS over the object and the error, over checkpoints",
    "imacs_corr_degraded": "the same over samples, references degraded by noise in the latent",
    "occlusion_corr": "Pearson of the default G2R map and the change by muting each cell",
    "occlusion_rank_corr": "Spearman of the same",
    "occlusion_corr_grey": "Pearson of that map and the change by greying each cell",
    "occlusion_rank_corr_grey": "Spearman of the same",
}


def psnr(pictures: Tensor, scenes: Scenes) -> float:
    """Mean over scenes of the PSNR in dB inside the hole."""
    error = ((pictures.clamp(0, 1) - scenes.target) ** 2).mean(-1)
    inside = (error * scenes.hole).sum((1, 2)) / scenes.hole.sum((1, 2))
    return float((-10 * inside.log10()).mean())


def measure(host: Host, scenes: Scenes) -> dict[str, float]:
    """The figures of one set of scenes."""
    count = len(scenes)
    tokens = scenes.grid[0] * scenes.grid[1]
    scene, reference = host.vae.encode(scenes.scene), host.vae.encode(scenes.reference)
    right, recording = host.sample([scene, reference], count, branch="conditional")
    _, last = host.sample([scene, reference], count, layers=((LAST, LAST),))
    wrong, _ = host.sample([scene, reference.roll(1, 0)], count)
    none, _ = host.sample([scene], count)

    hole = token_coverage(scenes.hole) >= 0.5
    touched = (token_coverage(scenes.hole) > 0).float()
    on_object = (token_coverage(scenes.object) > 0).float()
    asked = hole & (scenes.correspondence >= 0)

    def matches(record: Any, kind: str = "model.") -> Tensor:
        return record.arrays[f"correspondence.{kind}{OBJECT}"].reshape(count, tokens, tokens)

    off_last = correspondence_distance(matches(last).argmax(-1), scenes)[asked]
    off_mean = correspondence_distance(matches(recording).argmax(-1), scenes)[asked]
    last_g2r = (matches(last) * hole[..., None]).sum(1)
    mean_g2r = (matches(recording) * hole[..., None]).sum(1)
    r2g = last.arrays[f"model.r2g.{OBJECT}.step_layer"].mean((1, 2)).flatten(1)
    figures = {
        "corr_exact_last": float((off_last == 0).float().mean()),
        "corr_exact_mean": float((off_mean == 0).float().mean()),
        "corr_within1": float((off_last <= 1).float().mean()),
        "g2r_mass_last": float(mass(last_g2r, on_object).mean()),
        "g2r_mass_mean": float(mass(mean_g2r, on_object).mean()),
        "g2r_pointing": float(on_object.gather(1, mean_g2r.argmax(1, keepdim=True)).mean()),
        "r2g_mass_last": float(mass(r2g, touched).mean()),
        "area_object": float(on_object.mean()),
        "area_hole": float(touched.mean()),
        "psnr_right": psnr(host.vae.decode(right), scenes),
        "psnr_wrong": psnr(host.vae.decode(wrong), scenes),
        "psnr_none": psnr(host.vae.decode(none), scenes),
        "imacs_r_trained": imacs_over_object(host, recording, scenes),
    }
    for other in ("wrong", "none"):
        figures[f"psnr_gain_over_{other}"] = figures["psnr_right"] - figures[f"psnr_{other}"]
    return figures


def imacs_over_object(host: Host, recording: Any, scenes: Scenes) -> float:
    """Mean over scenes of IMACS (paper preset) over the object, of what the hole looked at."""
    pack = host.pack
    maps = pack.attribution_map(
        recording,
        pack.Definition.MODEL,
        pack.Direction.GENERATED_TO_REFERENCE,
        reference=OBJECT,
        within=scenes.hole,
    )
    return float(pack.imacs(maps, scenes.object).imacs.mean())


def untrained(folder: Path, seed: int) -> Path:
    """The model before its training, as a file."""
    torch.manual_seed(seed)
    weights = DemoFlux().state_dict()
    path = folder / f"untrained_{seed}.safetensors"
    save_file({name: value.half().contiguous() for name, value in weights.items()}, path)
    return path


def imacs_untrained(pack: SimpleNamespace) -> float:
    """Mean IMACS over the object of several models that never learned to look there."""
    scenes = make_scenes(UNTRAINED_SCENES, HELD_OUT_SEEDS.start)
    found: list[float] = []
    both: list[Tensor] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(UNTRAINED_MODELS):
            host = load(pack, untrained(Path(folder), seed))
            both = both or [host.vae.encode(p) for p in (scenes.scene, scenes.reference)]
            _, recording = host.sample(both, len(scenes), branch="conditional")
            found.append(imacs_over_object(host, recording, scenes))
    return sum(found) / len(found)


def train(seed: int) -> Path:
    """Checkpoints of one plain training, made where they are missing: some ten minutes."""
    folder = TRAININGS / f"seed_{seed}"
    if not (folder / "last.safetensors").exists():
        words = ["--seed", seed, "--steps", TRAINING_STEPS, "--every", TRAINING_EVERY]
        words += ["--checkpoints", folder, "--output", folder / "last.safetensors", "--threads", 1]
        tool = ROOT / "tools" / "train_demo_model.py"
        subprocess.run([sys.executable, tool, *map(str, words)], check=True)
    return folder


class Study:
    """The tables, plots and figures made so far."""

    def __init__(self, pack: SimpleNamespace, options: argparse.Namespace) -> None:
        self.pack, self.options = pack, options
        self.host = load(pack, options.model)
        self.tables: list[Table] = []
        self.figures: dict[str, float] = {}
        self.plots: dict[str, tuple[str, str, str, list[Series]]] = {}

    def scenes(self, count: int, recipe: str = "") -> Scenes:
        """Of that recipe, or of the one asked for."""
        chosen = RECIPES[recipe or self.options.recipe]
        return make_scenes(count, HELD_OUT_SEEDS.start, recipe=chosen)

    def known(self) -> None:
        """The figures with a bar."""
        self.figures |= measure(self.host, self.scenes(self.options.scenes))
        self.figures["imacs_r_untrained"] = imacs_untrained(self.pack)

    def maps(self) -> None:
        """Which map finds the truth."""
        recipes = [self.options.recipe]
        if self.options.full and EVERYTHING.name not in recipes:
            recipes.append(EVERYTHING.name)
        for recipe in recipes:
            self.tables += tables(self.host, self.scenes(self.options.scenes, recipe), recipe)

    def causes(self) -> None:
        """Whether the result changes where the map says."""
        count = self.options.scenes if self.options.full else QUICK_SCENES
        found, figures = occlusion(self.host, self.scenes(count))
        self.tables += found
        self.figures |= figures

    def curves(self) -> None:
        """Deletion and insertion."""
        table, deletion, insertion = curves(self.host, self.scenes(CURVE_SCENES))
        self.tables.append(table)
        for name, series in (("deletion", deletion), ("insertion", insertion)):
            verb = "muted" if name == "deletion" else "given back"
            title = f"{name.capitalize()}: change of the result"
            axes = f"part of the reference {verb}", "change (all muted = 1)"
            self.plots[name] = (title, *axes, series)

    def sanity(self) -> None:
        """Whether maps change with the model and with the reference."""
        self.tables.append(sanity(self.host, self.scenes(self.options.scenes)))

    def imacs(self) -> None:
        """Whether IMACS follows the error."""
        scenes = self.scenes(IMACS_SCENES)
        folders = [train(seed) for seed in TRAINING_SEEDS]
        table, figures, series = over_training(self.pack, scenes, folders)
        self.tables.append(table)
        self.figures |= figures
        axes = "mean squared error in the hole", "IMACS over the reference"
        self.plots["training"] = ("Checkpoints of a training", *axes, series)
        found, figures, series = degraded(self.host, self.scenes(self.options.scenes))
        self.tables += found
        self.figures |= figures
        self.plots["degraded"] = ("Degraded references", *axes, series)
        self.tables.append(clean_samples(self.host, scenes))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--scenes", type=int, default=32, help="how many held-out scenes")
    parser.add_argument("--recipe", choices=list(RECIPES), default=PLAIN.name, help="which kind")
    parser.add_argument("--model", type=Path, default=MODEL, help="weights to measure")
    parser.add_argument(
        "--full",
        action="store_true",
        help="curves, sanity and IMACS too; trains the first time",
    )
    parser.add_argument("--parts", help=f"only these of {', '.join(FULL)}, with commas")
    parser.add_argument(
        "--write", action="store_true", help="put tables and plots into docs/fidelity.md"
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
        options.json.write_text(json.dumps(study.figures, indent=1) + "\n")
    if options.write:
        DOCUMENT.write_text(replaced(DOCUMENT.read_text("utf-8"), study.tables), "utf-8")
        for name, drawing in study.plots.items():
            plot(PLOTS / f"{name}.png", *drawing)


if __name__ == "__main__":
    main()
