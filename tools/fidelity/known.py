"""The figures with a required range: of the demo model, of untrained models, of other trainings."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tools.comfyui.in_process import ROOT
from tools.demo.flux import DemoFlux
from tools.demo.scenes import (
    HELD_OUT_SEEDS,
    Scenes,
    correspondence_distance,
    make_scenes,
    token_coverage,
)
from tools.fidelity.errors import decibels
from tools.fidelity.host import OBJECT, Host, load
from tools.fidelity.report import Table
from tools.fidelity.statistics import mass

TRAININGS = ROOT / "output" / "fidelity"
TRAINING_SEEDS = (7, 8, 9)  # several, to show how much the figures depend on the seed
TRAINING_STEPS, TRAINING_EVERY = 2000, 100
TRAINING_BATCH = "plain=24"
UNTRAINED_MODELS = 8  # where a freshly initialised model attends is chance
UNTRAINED_SCENES = 16

# Columns of the table of trainings.
COMPARED = {
    "corr_exact_last": "exact, last layer",
    "corr_exact_mean": "exact, all layers",
    "corr_within1": "within one, last layer",
    "g2r_mass_last": "G2R mass from the hole, last layer",
    "g2r_mass_mean": "G2R mass from the hole, all layers",
    "r2g_mass_last": "R2G mass, last layer",
    "psnr_right": "dB in the hole",
    "psnr_wrong": "dB, wrong reference",
    "imacs_r_trained": "IMACS over the reference",
}
OVER_CHECKPOINTS = "IMACS and error over checkpoints, r"


def measure(host: Host, scenes: Scenes) -> dict[str, float]:
    """The figures of one set of scenes."""
    count = len(scenes)
    tokens = scenes.grid[0] * scenes.grid[1]
    scene, reference = host.encoded(scenes)
    right, recording = host.sample([scene, reference], count, branch="conditional")
    _, last = host.sample([scene, reference], count, layers=((host.last, host.last),))
    wrong, _ = host.sample([scene, reference.roll(1, 0)], count)
    none, _ = host.sample([scene], count)

    hole = token_coverage(scenes.hole) >= 0.5
    touched = (token_coverage(scenes.hole) > 0).float()
    on_object = (token_coverage(scenes.object) > 0).float()
    judged = hole & (scenes.correspondence >= 0)

    def matches(record: Any, kind: str = "model.") -> Tensor:
        return record.arrays[f"correspondence.{kind}{OBJECT}"].reshape(count, tokens, tokens)

    off_last = correspondence_distance(matches(last).argmax(-1), scenes)[judged]
    off_mean = correspondence_distance(matches(recording).argmax(-1), scenes)[judged]
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
        "imacs_r_trained": imacs_over_object(host, recording, scenes),
    }
    for name, latent in (("right", right), ("wrong", wrong), ("none", none)):
        made = host.vae.decode(latent).clamp(0, 1)
        figures[f"psnr_{name}"] = float(decibels(made, scenes.target, scenes.hole).mean())
    for other in ("wrong", "none"):
        figures[f"psnr_gain_over_{other}"] = figures["psnr_right"] - figures[f"psnr_{other}"]
    return figures


def imacs_over_object(host: Host, recording: Any, scenes: Scenes) -> float:
    """Mean over scenes of IMACS (paper preset) over the object, of what the hole attends to."""
    pack = host.pack
    maps = pack.attribution_map(
        recording,
        pack.Definition.MODEL,
        pack.Direction.GENERATED_TO_REFERENCE,
        reference=OBJECT,
        within=scenes.hole,
    )
    return float(pack.imacs_score(maps, scenes.object).imacs.mean())


def untrained(folder: Path, seed: int) -> Path:
    """The model before its training, as a file."""
    torch.manual_seed(seed)
    weights = DemoFlux().state_dict()
    path = folder / f"untrained_{seed}.safetensors"
    save_file({name: value.half().contiguous() for name, value in weights.items()}, path)
    return path


def imacs_untrained(pack: SimpleNamespace) -> float:
    """Mean IMACS over the object, of several models before any training."""
    scenes = make_scenes(UNTRAINED_SCENES, HELD_OUT_SEEDS.start)
    found: list[float] = []
    latents: list[Tensor] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(UNTRAINED_MODELS):
            host = load(pack, untrained(Path(folder), seed))
            latents = latents or host.encoded(scenes)
            _, recording = host.sample(latents, len(scenes), branch="conditional")
            found.append(imacs_over_object(host, recording, scenes))
    return sum(found) / len(found)


def train(seed: int) -> Path:
    """The folder of a plain training's checkpoints; without them, trains for some ten minutes."""
    folder = TRAININGS / f"seed_{seed}"
    if not (folder / "last.safetensors").exists():
        options = ["--seed", seed, "--steps", TRAINING_STEPS, "--every", TRAINING_EVERY]
        options += ["--checkpoints", folder, "--output", folder / "last.safetensors"]
        options += ["--batch", TRAINING_BATCH, "--state", folder / "state", "--threads", 1]
        command = [sys.executable, "-m", "tools.demo.train_model", *map(str, options)]
        subprocess.run(command, cwd=ROOT, check=True)
    return folder


def trainings(
    host: Host, scenes: Scenes, folders: Sequence[Path], over_checkpoints: Sequence[float]
) -> Table:
    """How much the figures depend on the seed of the training.

    over_checkpoints: of each training, Pearson's correlation of IMACS and the error.
    """
    rows: list[tuple[str, ...]] = [("the shipped model", *_row(measure(host, scenes)), "")]
    found: list[dict[str, float]] = []
    for number, (folder, correlation) in enumerate(zip(folders, over_checkpoints, strict=True), 1):
        figures = measure(load(host.pack, folder / "last.safetensors"), scenes)
        rows.append((f"training {number}", *_row(figures), _cell(correlation)))
        found.append(figures | {OVER_CHECKPOINTS: correlation})
    if len(found) > 1:
        ends = [
            f"{_cell(min(one[name] for one in found))} to {_cell(max(one[name] for one in found))}"
            for name in (*COMPARED, OVER_CHECKPOINTS)
        ]
        rows.append(("lowest to highest", *ends))
    note = f"{len(scenes)} scenes; trainings of {TRAINING_STEPS} steps on plain scenes."
    return Table("trainings", ("", *COMPARED.values(), OVER_CHECKPOINTS), rows, note)


def _row(figures: Mapping[str, float]) -> list[str]:
    return [_cell(figures[name]) for name in COMPARED]


def _cell(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
