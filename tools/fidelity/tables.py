"""Which map finds the truth? Every definition, layer, weighting, order and part of the sampling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tools.demo.scenes import Scenes, correspondence_distance, token_coverage
from tools.fidelity.host import OBJECT, STEPS, Host
from tools.fidelity.report import Table
from tools.fidelity.statistics import Estimate, mass, mean_of, pointing, ratio_of

COLUMNS = (
    "exact",
    "within one",
    "G2R mass",
    "G2R pointing",
    "G2R mass, from the hole",
    "R2G mass",
    "R2G pointing",
)
TIME_GROUPS = 5

Row = tuple[str, tuple[Estimate, ...]]


class Truth:
    """The known answers of some scenes, per token of the result and of the reference."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes
        self.hole = token_coverage(scenes.hole) >= 0.5  # (B, tokens)
        self.touched = (token_coverage(scenes.hole) > 0).float()
        self.object = (token_coverage(scenes.object) > 0).float()
        self.judged = self.hole & (scenes.correspondence >= 0)

    def row(self, g2r: Tensor, r2g: Tensor, pairs: Tensor) -> tuple[Estimate, ...]:
        """The table's columns from maps (B, cells) and pairs (B, result cells, reference cells)."""
        off = correspondence_distance(pairs.argmax(-1), self.scenes)
        counts = self.judged.sum(1)
        from_hole = (pairs * self.hole.unsqueeze(-1)).sum(1)
        return (
            ratio_of(((off == 0) & self.judged).sum(1), counts),
            ratio_of(((off <= 1) & self.judged).sum(1), counts),
            mean_of(mass(g2r, self.object)),
            mean_of(pointing(g2r, self.object)),
            mean_of(mass(from_hole, self.object)),
            mean_of(mass(r2g, self.touched)),
            mean_of(pointing(r2g, self.touched)),
        )


def tables(host: Host, scenes: Scenes, recipe: str) -> list[Table]:
    """Two tables: definitions, layers and weightings; parts of the sampling."""
    pack, truth = host.pack, Truth(scenes)
    latents = host.encoded(scenes)

    def record(**plan: Any) -> Any:
        chosen: dict[str, Any] = {"branch": "conditional", "definitions": "all"} | plan
        return host.sample(latents, len(scenes), **chosen)[1]

    everything = record()
    layers = [record(layers=((layer, layer),)) for layer in range(len(host.layers))]
    length = STEPS // TIME_GROUPS
    groups = [(start, start + length - 1) for start in range(0, STEPS, length)]
    times = [record(steps=(group,)) for group in groups]

    by_layer: list[Row] = []
    by_time: list[Row] = []
    for definition in pack.Definition:
        for name, g2r, r2g in _ways_to_average(pack, everything, definition):
            pairs = _pairs(pack, layers, definition, equal=name.startswith("equal"))
            row = truth.row(g2r, r2g, pairs)
            by_layer.append((f"{definition.value}, all layers: {name}", row))
        for name, layer in zip(host.layers, layers, strict=True):
            row = row_of(pack, truth, layer, definition)
            by_layer.append((f"{definition.value}, {name} alone", row))
        for (first, last), part in zip(groups, times, strict=True):
            row = row_of(pack, truth, part, definition)
            by_time.append((f"{definition.value}, steps {first} to {last}", row))
    even = (
        f"{len(scenes)} scenes. An even map would have {float(truth.object.mean()):.2f} of its "
        f"mass on the object and {float(truth.touched.mean()):.2f} in the hole."
    )
    return [
        Table(f"{name}-{recipe}", ("map", *COLUMNS), [(n, *map(str, row)) for n, row in rows], even)
        for name, rows in (("layers", by_layer), ("steps", by_time))
    ]


def row_of(pack: Any, truth: Truth, record: Any, definition: Any) -> tuple[Estimate, ...]:
    """The table's columns for the default maps of a recording."""
    return truth.row(*_maps(pack, record, definition), _pairs(pack, [record], definition))


def _maps(pack: Any, record: Any, definition: Any, **choice: Any) -> tuple[Tensor, Tensor]:
    """G2R and R2G, each (B, cells)."""
    selection = pack.Selection(**choice)
    directions = (pack.Direction.GENERATED_TO_REFERENCE, pack.Direction.REFERENCE_TO_GENERATED)
    g2r, r2g = (
        pack.attribution_map(record, definition, direction, reference=OBJECT, selection=selection)
        for direction in directions
    )
    return g2r.values.flatten(1), r2g.values.flatten(1)


def _ways_to_average(pack: Any, record: Any, definition: Any) -> list[tuple[str, Tensor, Tensor]]:
    """Every layer weight and order with its maps; those with the same maps share a name."""
    found: list[tuple[list[str], Tensor, Tensor]] = []
    for weight in pack.LayerWeight:
        for order in pack.ResampleOrder:
            g2r, r2g = (
                part / part.sum(1, keepdim=True)
                for part in _maps(pack, record, definition, weight=weight, order=order)
            )
            name = f"{weight.value} ({order.value})"
            for names, *known in found:
                if all(map(_same, (g2r, r2g), known)):
                    names.append(name)
                    break
            else:
                found.append(([name], g2r, r2g))
    return [(" = ".join(names), g2r, r2g) for names, g2r, r2g in found]


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-6)


def _pairs(pack: Any, records: list[Any], definition: Any, equal: bool = False) -> Tensor:
    """Correspondence of layers recorded apart, averaged: (B, result cells, reference cells).

    equal: every layer is first scaled to the same sum, as the equal layer weight does with maps.
    """
    pairs = [pack.correspondence_of(record, definition, OBJECT).values for record in records]
    if equal:
        pairs = [layer / layer.sum((1, 2), keepdim=True) for layer in pairs]
    return torch.stack(pairs).mean(0)
