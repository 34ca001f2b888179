"""Attribution → figures: the pack's scores for each picture of one run.

Same numbers as the nodes: IMACS with the node's own settings and masks, shares as in
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


@dataclass(frozen=True)
class Sides:
    """What the figures come from. over_result, over_reference: the node's sides, map and mask.

    reference: which one, counted from 0.
    """

    over_result: Any
    over_reference: Any
    reference: int


class Scores:
    """The pack's own functions, from the package that ComfyUI loaded."""

    def __init__(self, pack: Callable[[str], ModuleType]) -> None:
        names = SimpleNamespace()
        modules = ("i2am.recording", "i2am.maps", "i2am.scores", "nodes.inputs", "nodes.ask.imacs")
        for module in modules:
            vars(names).update(vars(pack(module)))
        names.entropy = pack("i2am.scores.imacs").entropy
        self._pack = names

    def figures(
        self, attribution: Any, given: dict[str, Any], points: bytes | None
    ) -> tuple[list[Figures], Sides]:
        """The figures of each picture of a run, and the maps and masks they come from.

        given: the values of the IMACS node's inputs. points: a correspondence, if known.
        """
        over_result, over_reference = self._pack.score_sides(attribution, **given)
        sides = Sides(over_result, over_reference, int(given.get("reference", 1)) - 1)
        columns = self._scores("generated", over_result)
        columns |= self._scores("reference", over_reference)
        columns |= self._shares(attribution, over_result.mask)
        columns |= self._box(over_result, attribution, bool(given.get("complement", False)))
        if points is not None:
            definition = given.get("definition", self._pack.AUTO)
            columns |= self._correspondence(attribution, definition, sides.reference, points)
        batch = attribution.recording.header.run.batch
        rows = [
            {name: float(values.expand(batch)[item]) for name, values in columns.items()}
            for item in range(batch)
        ]
        return rows, sides

    def _scores(self, name: str, side: Any) -> dict[str, Tensor]:
        """The figures for one side."""
        if side.map is None:
            return {}
        figures = {f"entropy_{name}": self._pack.entropy(side.map.values[:, 0])}
        if side.score is not None:
            figures |= {
                f"imacs_{name}": side.score.imacs,
                f"inside_{name}": side.score.share_inside,
                f"area_{name}": side.score.area,
                f"mean_inside_{name}": side.score.inside,
                f"mean_outside_{name}": side.score.outside,
            }
        return figures

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

    def _box(self, side: Any, attribution: Any, complement: bool) -> dict[str, Tensor]:
        """Overlap of the box found from the map over the result with the box around the mask."""
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
        self, attribution: Any, definition: str, reference: int, data: bytes
    ) -> dict[str, Tensor]:
        """The distance, in cells, from the best match of each known place to its true origin.

        Zero is the right cell, one a neighbour: the larger of the distances in rows and
        columns.
        """
        from ..plan.files import read_points

        pack = self._pack
        chosen = pack.choose_definition(attribution, definition)
        pairs = pack.correspondence_of(attribution.recording, chosen, reference)
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
    """The row, column and index of the cells that contain some places, given in 0 to 1."""
    height, width = grid.covered
    rows = (torch.tensor(down.to_numpy()) * height).floor().long().clamp(0, grid.height - 1)
    columns = (torch.tensor(across.to_numpy()) * width).floor().long().clamp(0, grid.width - 1)
    return rows, columns, rows * grid.width + columns
