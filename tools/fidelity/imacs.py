"""Does IMACS follow the error of the picture? Over training, spoiled references, seeds and cfg.

Points are (conditions, scenes): a condition is a checkpoint, a way to spoil a reference, a seed or
a cfg scale. IMACS has the paper's preset and the model definition, over all layers. Over the
reference it scores the hole's map against the object, over the result the map against the hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.demo.scenes import Scenes, make_scenes
from tools.fidelity.errors import ERRORS
from tools.fidelity.host import OBJECT, Host, load
from tools.fidelity.report import Series, Table
from tools.fidelity.statistics import (
    Estimate,
    correlation_of_means,
    correlation_of_samples,
    mean_of,
    pearson,
    spearman,
)

STEPS = 4
SIDES = ("reference", "result")
LATENT_NOISE = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)  # sigma, where the latent's is about one
PIXEL_NOISE = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # sigma, of 0 to 1
BLUR = (0.0, 1.0, 2.0, 4.0, 8.0)  # sigma in pixels
SEEDS = range(1, 7)
CFG_SCALES = (1.0, 2.0, 3.0, 5.0)
OTHER_SCENES = 10_500_000  # seed of the first of the held-out scenes no other table uses
MAIN_ERROR = "mean squared"


@dataclass(frozen=True)
class Points:
    """IMACS by side and error by name, each (conditions, scenes)."""

    imacs: dict[str, Tensor]
    errors: dict[str, Tensor]

    @classmethod
    def of(cls, parts: Sequence[Points]) -> Points:
        """The conditions of all parts, one part after the other."""
        return cls(
            {side: torch.cat([part.imacs[side] for part in parts]) for side in SIDES},
            {name: torch.cat([part.errors[name] for part in parts]) for name in ERRORS},
        )

    def series(self, name: str, joined: bool = False) -> Series:
        """Each condition's mean over scenes, for a plot."""
        ends = self.errors[MAIN_ERROR].mean(1).tolist(), self.imacs["reference"].mean(1).tolist()
        return Series(name, list(zip(*ends, strict=True)), joined)


def points(
    host: Host,
    scenes: Scenes,
    latents: list[Tensor],
    seed: int = 1,
    cfg: float = 1.0,
    object_at: Tensor | None = None,
) -> Points:
    """One condition. object_at: the object's mask, if it is not the one of the scenes."""
    pack = host.pack
    latent, recording = host.sample(
        latents, len(scenes), sampled=STEPS, seed=seed, cfg=cfg, branch="conditional"
    )
    scores: dict[str, Tensor] = {}
    for side, direction, mask in (
        ("reference", pack.Direction.GENERATED_TO_REFERENCE, object_at),
        ("result", pack.Direction.REFERENCE_TO_GENERATED, scenes.hole),
    ):
        within = scenes.hole if side == "reference" else None
        maps = pack.attribution_map(
            recording, pack.Definition.MODEL, direction, reference=OBJECT, within=within
        )
        mask = scenes.object if mask is None else mask
        scores[side] = pack.imacs_score(maps, mask).imacs.unsqueeze(0)
    pictures = host.vae.decode(latent).clamp(0, 1)
    errors = {
        name: error(pictures, scenes.target, scenes.hole).unsqueeze(0)
        for name, error in ERRORS.items()
    }
    return Points(scores, errors)


def over_training(
    pack: SimpleNamespace, scenes: Scenes, folders: Sequence[Path]
) -> tuple[Table, list[float], list[Series]]:
    """Checkpoints of several trainings, each a condition.

    The numbers are Pearson's correlation with the main error: of each training, then of all.
    """
    latents: list[Tensor] = []
    runs: list[Points] = []
    for folder in folders:
        found: list[Points] = []
        for path in sorted(folder.glob("step_*.safetensors")):
            host = load(pack, path)
            latents = latents or host.encoded(scenes)
            found.append(points(host, scenes, latents))
        if len(found) < 6:
            raise SystemExit(f"{folder} holds {len(found)} checkpoints; six are needed at least.")
        runs.append(Points.of(found))
    rows: list[tuple[str, ...]] = []
    names = [f"training {number}" for number in range(1, len(runs) + 1)]
    together = [("all", Points.of(runs))] if len(runs) > 1 else []
    for name, run in [*zip(names, runs, strict=True), *together]:
        count = len(run.errors[MAIN_ERROR])
        rows += _rows(f"{name}: {count} checkpoints", run, correlation_of_means)
    note = f"Means over {len(scenes)} scenes; correlations over checkpoints."
    figures = [
        pearson(run.imacs["reference"].mean(1), run.errors[MAIN_ERROR].mean(1)).item()
        for run in (*runs, Points.of(runs))
    ]
    series = [run.series(name, joined=True) for name, run in zip(names, runs, strict=True)]
    table = Table("imacs-training", _COLUMNS, rows, note)
    return table, figures, series


def degraded(host: Host, scenes: Scenes) -> tuple[list[Table], dict[str, float], list[Series]]:
    """References spoiled more and more, and those of another scene."""
    scene, reference = host.encoded(scenes)
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(reference.shape, generator=random)
    grain = torch.randn(scenes.reference.shape, generator=random)
    spread = reference.std()
    families = {
        "noise in the latent": [reference + sigma * spread * noise for sigma in LATENT_NOISE],
        "noise in the pixels": [
            host.vae.encode((scenes.reference + sigma * grain).clamp(0, 1)) for sigma in PIXEL_NOISE
        ],
        "blur": [host.vae.encode(blurred(scenes.reference, sigma)) for sigma in BLUR],
    }
    amounts = dict(zip(families, (LATENT_NOISE, PIXEL_NOISE, BLUR), strict=True))
    rows: list[tuple[str, ...]] = []
    levels: list[tuple[str, ...]] = []
    series: list[Series] = []
    figures: dict[str, float] = {}
    for name, references in families.items():
        each = [points(host, scenes, [scene, spoiled]) for spoiled in references]
        found = Points.of(each)
        rows += _rows(f"{name}: {len(each)} levels", found, correlation_of_samples)
        series.append(found.series(name, joined=True))
        if not figures:
            value = correlation_of_samples(
                found.imacs["reference"], found.errors[MAIN_ERROR], pearson
            ).value
            figures = {"imacs_corr_degraded": value}
        levels += [
            _level(f"{name}, σ {amount:g}", one)
            for amount, one in zip(amounts[name], each, strict=True)
        ]
    wrong = points(host, scenes, [scene, reference.roll(1, 0)], object_at=scenes.object.roll(1, 0))
    levels.append(_level("another scene's reference, scored against its own object", wrong))
    series.append(wrong.series("another scene's reference"))
    note = f"{len(scenes)} scenes at each level; correlations over all samples together."
    return (
        [
            Table("imacs-degraded", _COLUMNS, rows, note),
            Table("imacs-levels", _LEVEL_COLUMNS, levels, f"{len(scenes)} scenes each."),
        ],
        figures,
        series,
    )


def clean_samples(host: Host, scenes: Scenes) -> Table:
    """Samples of one finished model from whole references: seeds, scenes and cfg scales."""
    latents = host.encoded(scenes)
    seeds = Points.of([points(host, scenes, latents, seed=seed) for seed in SEEDS])
    scales = Points.of([points(host, scenes, latents, cfg=scale) for scale in CFG_SCALES])
    others = make_scenes(len(scenes) * 3, OTHER_SCENES)
    many = points(host, others, host.encoded(others))
    rows = _rows(f"{len(SEEDS)} seeds × {len(scenes)} scenes", seeds, correlation_of_samples)
    rows += _rows(
        f"{len(SEEDS)} seeds, each scene's mean subtracted",
        Points(_centred(seeds.imacs), _centred(seeds.errors)),
        correlation_of_samples,
    )
    rows += _rows(f"{len(others)} other scenes, one seed", many, correlation_of_samples)
    names = ", ".join(f"{scale:g}" for scale in CFG_SCALES)
    rows += _rows(f"cfg {names}", scales, correlation_of_samples)
    rows += _rows(
        f"cfg {names}, each scene's mean subtracted",
        Points(_centred(scales.imacs), _centred(scales.errors)),
        correlation_of_samples,
    )
    return Table("imacs-clean", _COLUMNS, rows, "Correlations over all samples together.")


def _centred(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value - value.mean(0) for name, value in values.items()}


def blurred(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, H, W, 3), edges repeated; sigma in pixels, 0 for none."""
    if sigma == 0:
        return pictures
    radius = int(3 * sigma + 0.5)
    line = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    line = (line / line.sum()).expand(3, 1, 1, -1)
    found = F.pad(pictures.movedim(-1, 1), (radius,) * 4, mode="replicate")
    found = F.conv2d(F.conv2d(found, line, groups=3), line.mT, groups=3)
    return found.movedim(1, -1)


_COLUMNS = ("conditions", "IMACS over", *(f"{name}, r; ρ" for name in ERRORS))
_LEVEL_COLUMNS = ("references", *(f"IMACS over the {side}" for side in SIDES), *ERRORS)


def _rows(name: str, found: Points, correlate: object) -> list[tuple[str, ...]]:
    """One row for each side: Pearson's and Spearman's correlation with every error."""
    rows: list[tuple[str, ...]] = []
    for side in SIDES:
        cells: list[str] = []
        for error in found.errors.values():
            both: list[Estimate] = [
                correlate(found.imacs[side], error, kind)  # pyright: ignore[reportCallIssue]
                for kind in (pearson, spearman)
            ]
            cells.append("; ".join(map(str, both)))
        rows.append((name, side, *cells))
    return rows


def _level(name: str, one: Points) -> tuple[str, ...]:
    values = (*one.imacs.values(), *one.errors.values())
    return (name, *(_fine(mean_of(value[0])) for value in values))


def _fine(estimate: Estimate) -> str:
    return f"{estimate.value:.3f}".replace("-", "−")
