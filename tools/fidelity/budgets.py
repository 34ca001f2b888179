"""What Capture Attention's `budget` changes in the maps, compared with recording everything."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.demo.scenes import Scenes
from tools.fidelity.host import OBJECT, SCENE, Host
from tools.fidelity.report import Table
from tools.fidelity.statistics import pearson

EXACT = "exact"
SIZES = (1, 4)  # times the scenes' own; places are left out only from 32 tokens a side on
BATCH = 4  # scenes at once


def budgets(host: Host, scenes: Scenes) -> Table:
    """How well unified maps and shares agree with those of `exact`, scene by scene."""
    rows: list[tuple[str, ...]] = []
    for size in SIZES:
        pictures = [_enlarged(p, size) for p in (scenes.scene, scenes.reference)]
        pieces = [[p[i : i + BATCH] for p in pictures] for i in range(0, len(scenes), BATCH)]
        latents = [[host.vae.encode(picture) for picture in piece] for piece in pieces]
        exact = [_recorded(host, piece, EXACT) for piece in latents]
        for name in host.pack.BUDGETS:
            if name == EXACT:
                continue
            cheaper = [_recorded(host, piece, name) for piece in latents]
            pairs = list(zip(exact, cheaper, strict=True))
            same = exact[0].header.generated.grid == cheaper[0].header.generated.grid
            share = max(float((_shares(a) - _shares(b)).abs().max()) for a, b in pairs)
            for where in ("",) if same else (", on the grid of exact", ", on its own grid"):
                maps = [_agreement(host, pairs, *kind, "own" in where) for kind in _kinds(host)]
                cells = (f"{float(r.mean()):.4f} ({float(r.min()):.4f})" for r in maps)
                side = pictures[0].shape[1]
                rows.append((f"{name}, {side} × {side}{where}", *cells, f"{100 * share:.2f}"))
    columns = (f"{d.name.lower()}, {way.value}" for d, way in _kinds(host))
    return Table(
        "budgets",
        ("budget, pixels", *columns, "share"),
        rows,
        f"{len(scenes)} scenes. Maps: Pearson's r with the map of `exact`, mean over scenes and "
        "both references (smallest). Share: the largest difference, in percentage points.",
    )


def _kinds(host: Host) -> list[tuple[Any, Any]]:
    """Every definition that is recorded by default, with every direction."""
    return list(itertools.product(host.pack.Plan().recorded, host.pack.Direction))


def _recorded(host: Host, latents: list[Tensor], budget: str) -> Any:
    return host.sample(latents, len(latents[0]), branch="conditional", budget=budget)[1]


def _shares(record: Any) -> Tensor:
    return record.arrays["share.step_layer"].mean((1, 2))


def _agreement(
    host: Host, pairs: list[tuple[Any, Any]], definition: Any, direction: Any, own: bool
) -> Tensor:
    """r of every scene and reference. own: on the second recording's grid, else on the first's."""
    found: list[Tensor] = []
    for pair, reference in itertools.product(pairs, (SCENE, OBJECT)):
        maps = [
            host.pack.attribution_map(record, definition, direction, reference=reference)
            for record in pair
        ]
        grid = maps[own].grid
        found.append(pearson(*(host.pack.spread(m.values.flatten(1), m.grid, grid) for m in maps)))
    return torch.cat(found)


def _enlarged(pictures: Tensor, size: int) -> Tensor:
    """Pictures (count, height, width, 3), enlarged `size` times."""
    channels = pictures.movedim(-1, 1)
    return F.interpolate(channels, scale_factor=size, mode="bicubic").clamp(0, 1).movedim(1, -1)
