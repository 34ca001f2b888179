"""Attribution → figures: what the pack's scores say of one run, for each of its pictures.

The numbers are those of the nodes: IMACS with the node's own settings and masks, shares as in
Reference Influence, the box of Locate Object. docs/evaluate.md defines every figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

Figures = dict[str, float]
SETTINGS = {  # of the IMACS node, and what it takes where nothing is set
    "reference": 1,
    "preset": "paper",
    "penalty": 3.0,
    "threshold": 0.4,
    "complement": False,
    "definition": "auto",
    "within_mask": False,
    "generated_mask": None,
    "reference_mask": None,
}


@dataclass(frozen=True)
class Side:
    """One side of the score: its map, its mask if there is one, and its figures by picture.

    reference: which one it is about, counted from 0.
    """

    map: Any
    reference: int
    mask: Tensor | None
    figures: dict[str, Tensor]


class Scores:
    """The pack's own functions, from the package that ComfyUI loaded."""

    def __init__(self, pack: Callable[[str], ModuleType]) -> None:
        names = SimpleNamespace()
        for module in ("i2am.recording", "i2am.maps", "i2am.scores", "nodes.inputs"):
            vars(names).update(vars(pack(module)))
        names.entropy = pack("i2am.scores.imacs").entropy
        self._pack = names

    def figures(
        self, attribution: Any, given: dict[str, Any], points: bytes | None
    ) -> tuple[list[Figures], list[Side]]:
        """The figures of each picture of a run, and the two sides: over the result, the reference.

        given: what the IMACS node's inputs hold. points: a correspondence, if the truth is known.
        """
        settings = SETTINGS | given
        sides = self._sides(attribution, settings)
        batch = attribution.recording.header.run.batch
        columns: dict[str, Tensor] = {}
        for name, side in zip(("generated", "reference"), sides, strict=True):
            columns |= {f"{figure}_{name}": values for figure, values in side.figures.items()}
        columns |= self._shares(attribution, sides[0].mask)
        columns |= self._box(sides[0], attribution, bool(settings["complement"]))
        if points is not None:
            columns |= self._correspondence(attribution, settings, points)
        rows = [
            {name: float(values.expand(batch)[item]) for name, values in columns.items()}
            for item in range(batch)
        ]
        return rows, sides

    def _sides(self, attribution: Any, settings: dict[str, Any]) -> list[Side]:
        """As the IMACS node makes them."""
        pack = self._pack
        masks = settings["generated_mask"], settings["reference_mask"]
        over_result = attribution.mask if masks[0] is None else masks[0]
        definition = pack.choose_definition(attribution, settings["definition"])
        reference = int(settings["reference"]) - 1
        sides: list[Side] = []
        for direction, mask, name in (
            (pack.Direction.REFERENCE_TO_GENERATED, over_result, "generated mask"),
            (pack.Direction.GENERATED_TO_REFERENCE, masks[1], "reference mask"),
        ):
            maps = pack.attribution_map(
                attribution.recording,
                definition,
                direction,
                reference=reference,
                within=pack.mask_within(attribution, settings["within_mask"]),
            )
            figures = {"entropy": pack.entropy(maps.values[:, 0])}
            if mask is not None:
                score = pack.imacs_score(
                    maps,
                    mask,
                    preset=pack.Preset(settings["preset"]),
                    penalty=settings["penalty"],
                    threshold=settings["threshold"],
                    complement=settings["complement"],
                    size=attribution.size(direction, reference),
                    name=name,
                )
                figures |= {
                    "imacs": score.imacs,
                    "inside": score.share_inside,
                    "area": score.area,
                    "mean_inside": score.inside,
                    "mean_outside": score.outside,
                }
            sides.append(Side(maps, reference, mask, figures))
        return sides

    def _shares(self, attribution: Any, mask: Tensor | None) -> dict[str, Tensor]:
        """Each source's share of the model's attention, over the result and inside the mask."""
        found = self._pack.measure_influence(attribution.recording, mask)
        parts = {"": found.whole} | ({} if mask is None else {"_inside": found.inside})
        columns: dict[str, Tensor] = {}
        for where, shares in parts.items():
            references = [f"reference_{n}" for n in range(1, shares.shape[1] - 1)]
            names = ["text", "self", *references]
            columns |= {
                f"share_{name}{where}": shares[:, number] for number, name in enumerate(names)
            }
        return columns

    def _box(self, side: Side, attribution: Any, complement: bool) -> dict[str, Tensor]:
        """Overlap of the box that the map over the result finds with the box around the mask."""
        if side.mask is None:
            return {}
        pack = self._pack
        size = attribution.size(pack.Direction.REFERENCE_TO_GENERATED, 0)
        boxes = pack.locate_object(side.map, size, complement=complement)
        masks = side.mask if side.mask.ndim == 3 else side.mask[None]
        overlaps: list[float] = []
        for item, box in enumerate(boxes):
            true = pack.box_around(masks[item if len(masks) > 1 else 0])
            overlaps.append(0.0 if box is None or true is None else box.overlap(true))
        return {"box_iou": torch.tensor(overlaps)}

    def _correspondence(
        self, attribution: Any, settings: dict[str, Any], data: bytes
    ) -> dict[str, Tensor]:
        """How far the best match of each known place is from where it came from, in cells.

        Zero is the right cell, one a neighbour of it: the larger of the distances in rows and
        columns.
        """
        from ..plan.files import read_points

        pack = self._pack
        definition = pack.choose_definition(attribution, settings["definition"])
        pairs = pack.correspondence_of(
            attribution.recording, definition, int(settings["reference"]) - 1
        )
        matches = pack.best_matches(pairs)
        points = read_points(data)
        _, _, of_result = _cells(points["result_y"], points["result_x"], pairs.result)
        rows, columns, _ = _cells(points["reference_y"], points["reference_x"], pairs.reference)
        best = matches.best[:, of_result]  # (batch, points)
        across = pairs.reference.width
        distance = torch.maximum((best // across - rows).abs(), (best % across - columns).abs())
        distance = distance.double()
        return {
            "match_exact": (distance == 0).double().mean(1),
            "match_near": (distance <= 1).double().mean(1),
            "match_distance": distance.mean(1),
        }


def _cells(down: Any, across: Any, grid: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The row, the column and the number of the cells that hold some places, given in 0 to 1."""
    height, width = grid.covered
    rows = (torch.tensor(down.to_numpy()) * height).floor().long().clamp(0, grid.height - 1)
    columns = (torch.tensor(across.to_numpy()) * width).floor().long().clamp(0, grid.width - 1)
    return rows, columns, rows * grid.width + columns
