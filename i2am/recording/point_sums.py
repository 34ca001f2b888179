"""Running sums of the exact rows and columns of one run."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..attention import PointMarginals
from ..tokens import RESULT, Grid, PointQuery, spread
from ..tokens.architectures.base import Layer

_TINY = torch.finfo(torch.float32).tiny
POINT_BYTES = 128 * 2**20  # of a run; beyond it, neighbouring steps are kept together


class PointSums:
    """The looks of one run, added up: each layer by itself, each step, or as many as must be.

    planned: how many steps are to come. What the first step takes decides how many neighbouring
    ones are kept together, so that it all stays within POINT_BYTES, or one step's worth.
    """

    def __init__(self, places: tuple[PointQuery, ...], planned: int) -> None:
        self.places = places
        self._planned = planned
        self._together = 1  # steps to a group; told by the first that is finished
        self._open: dict[Layer, PointMarginals] = {}
        self._grids: dict[Layer, tuple[Grid, ...]] = {}  # of the result, and of each reference
        # By layer and group: the sums of its steps' means, and how many of them each is of.
        self._closed: dict[tuple[Layer, int], list[tuple[Tensor, Tensor]]] = {}

    def add(self, layer: Layer, found: PointMarginals) -> None:
        """Take in one call."""
        self._grids[layer] = (found.grid, *found.reference_grids)
        before = self._open.get(layer)
        if before is not None:
            found = PointMarginals(
                tuple(a + b for a, b in zip(before.rows, found.rows, strict=True)),
                before.row_weight + found.row_weight,
                tuple(a + b for a, b in zip(before.columns, found.columns, strict=True)),
                before.column_weight + found.column_weight,
                found.grid,
                found.reference_grids,
            )
        self._open[layer] = found

    def close(self, step: int) -> None:
        """The step of this number among those recorded is finished: to the CPU with it."""
        if not self._open:
            return
        if not self._closed:
            self._together = max(1, math.ceil(self._step_bytes() * self._planned / POINT_BYTES))
        for layer, found in self._open.items():
            key = layer, step // self._together
            means = [
                ((sums / weight.clamp(min=_TINY)).cpu(), (weight > 0).float().cpu())
                for sums, weight in zip(found.sums, found.weights, strict=True)
            ]
            before = self._closed.get(key)
            if before is not None:
                means = [(a + b, n + m) for (a, n), (b, m) in zip(before, means, strict=True)]
            self._closed[key] = means
        self._open = {}

    def _step_bytes(self) -> int:
        """What the open step takes in a recording, where its layers are on the finest grids."""
        finest, tracks = self.grids(), self._tracks()
        return sum(
            4 * sums.shape[:-1].numel() * finest[side].area
            for found in self._open.values()
            for sums, (_, _, side) in zip(found.sums, tracks, strict=True)
        )

    def _tracks(self) -> list[tuple[str, int, int]]:
        """What `Looks.sums` are, in order: direction, reference, and which of `grids` it is on."""
        references = range(len(self.grids()) - 1)
        on_result = any(place.reference == RESULT for place in self.places)
        rows = [("g2r", r, 1 + r) for r in references if on_result]
        return rows + [("r2g", r, 0) for r in references]

    def groups(self, steps: list[int]) -> tuple[int, ...]:
        """In which group each of the recorded steps is kept, from 0."""
        numbers = [step // self._together for step in steps]
        order = sorted(set(numbers))
        return tuple(order.index(number) for number in numbers)

    def grids(self) -> tuple[Grid, ...]:
        """The finest of any layer: of the result, and of each reference."""
        return tuple(
            max(grids, key=lambda grid: grid.area)
            for grids in zip(*self._grids.values(), strict=True)
        )

    def arrays(self, steps: list[int], layers: tuple[Layer, ...]) -> dict[str, Tensor]:
        """The arrays `point.…` of a Recording; of a layer and group not seen they are zero."""
        grids = self.grids()
        numbers = sorted({step // self._together for step in steps})
        kept: dict[str, Tensor] = {}
        for track, (direction, r, side) in enumerate(self._tracks()):
            table: list[Tensor] = []
            for number in numbers:
                for layer in layers:
                    found = self._closed.get((layer, number))
                    if found is None:
                        table.append(torch.zeros(()))
                        continue
                    sums, count = found[track]
                    mean = sums / count.clamp(min=1)
                    table.append(spread(mean, self._grids[layer][side], grids[side]))
            shape = max((one.shape for one in table), key=len)
            if shape[2] == 0:
                continue
            full = torch.stack([one.expand(shape) for one in table], 1)
            full = full.reshape(
                shape[0], len(numbers), len(layers), *shape[1:3], *grids[side].shape
            )
            for kind, definition in enumerate(("paper", "model")):
                kept[f"point.{definition}.{direction}.{r}"] = full[:, :, :, kind].contiguous()
        return kept
