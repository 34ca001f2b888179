"""The exact rows and columns of one run's point queries, added up."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ..attention import PointMarginals
from ..tokens import RESULT, Grid, PointQuery, spread
from ..tokens.architectures.base import Layer
from .definitions import Definition, number_of
from .host_copy import HostCopy

_TINY = torch.finfo(torch.float32).tiny
POINT_BYTES = 128 * 2**20  # for a run; beyond it, neighbouring steps are summed together


class _Track(NamedTuple):
    """One entry of `PointMarginals.sums`: what it holds for a call's points."""

    direction: str  # g2r: rows over a reference; r2g: columns over the result
    reference: int
    picture: int  # the picture with its grid: 0 the result, then each reference


class PointSums:
    """One run's rows and columns: means over the calls of a step, summed over groups of steps.

    Layers are kept apart. planned: how many steps will be recorded. The size of the first step
    decides how many neighbouring steps form a group: all groups together take at most POINT_BYTES,
    or the size of one step if that is more.
    """

    def __init__(self, points: tuple[PointQuery, ...], planned: int) -> None:
        self._points = points
        self._planned = planned
        self._group_size = 1  # steps; known once the first step is finished
        self._open: dict[Layer, PointMarginals] = {}
        self._grids: dict[Layer, tuple[Grid, ...]] = {}  # of the result and of each reference
        # By layer and group, for each track: the sum of the steps' means, and the number of steps.
        self._closed: dict[tuple[Layer, int], list[tuple[Tensor, Tensor]]] = {}
        self._arriving: tuple[list[tuple[Layer, int]], HostCopy] | None = None

    def add(self, layer: Layer, marginals: PointMarginals) -> None:
        """Add one call to the open step."""
        self._grids[layer] = (marginals.grid, *marginals.reference_grids)
        before = self._open.get(layer)
        self._open[layer] = marginals if before is None else _sum(before, marginals)

    def close(self, step: int) -> None:
        """Finish the open step, the recorded step number `step`: send its means to the CPU."""
        self.settle()
        if not self._open:
            return
        if not self._closed:
            run_bytes = self._step_bytes() * self._planned
            self._group_size = max(1, math.ceil(run_bytes / POINT_BYTES))
        means = [
            mean
            for marginals in self._open.values()
            for sums, weight in zip(marginals.sums, marginals.weights, strict=True)
            for mean in (sums / weight.clamp(min=_TINY), (weight > 0).float())
        ]
        keys = [(layer, step // self._group_size) for layer in self._open]
        self._arriving = keys, HostCopy(means)
        self._open = {}

    def settle(self) -> None:
        """Wait for the last step's means, if they are still on their way. Call before reading."""
        if self._arriving is None:
            return
        keys, copies = self._arriving
        self._arriving = None
        numbers = copies.arrived()
        each = len(numbers) // len(keys)
        for place, key in enumerate(keys):
            own = iter(numbers[place * each : (place + 1) * each])
            means = list(zip(own, own, strict=True))
            before = self._closed.get(key)
            if before is not None:
                means = [(a + b, n + m) for (a, n), (b, m) in zip(before, means, strict=True)]
            self._closed[key] = means

    def groups(self, steps: list[int]) -> tuple[int, ...]:
        """Recorded steps → for each, the number of its group, from 0."""
        numbers = [step // self._group_size for step in steps]
        order = sorted(set(numbers))
        return tuple(order.index(number) for number in numbers)

    def grids(self) -> tuple[Grid, ...]:
        """The finest token grid of any layer, for the result and for each reference."""
        return tuple(
            max(grids, key=lambda grid: grid.area)
            for grids in zip(*self._grids.values(), strict=True)
        )

    def arrays(
        self, steps: list[int], layers: tuple[Layer, ...], definitions: tuple[Definition, ...]
    ) -> dict[str, Tensor]:
        """The arrays `point.…` of a `Recording`; zero where a layer was not recorded in a group."""
        grids = self.grids()
        groups = sorted({step // self._group_size for step in steps})
        arrays: dict[str, Tensor] = {}
        for index, track in enumerate(self._tracks()):
            grid = grids[track.picture]
            means = [
                self._mean(layer, group, index, track, grid) for group in groups for layer in layers
            ]
            shape = max((mean.shape for mean in means), key=len)  # (B, definitions, points, cells)
            if shape[2] == 0:
                continue
            stacked = torch.stack([mean.expand(shape) for mean in means], 1)
            by_definition = rearrange(
                stacked, "b (t l) definition p cells -> definition b t l p cells", t=len(groups)
            )
            for definition in definitions:
                cells = by_definition[number_of(definition)]
                name = f"point.{definition.value}.{track.direction}.{track.reference}"
                arrays[name] = cells.reshape(*cells.shape[:-1], *grid.shape).contiguous()
        return arrays

    def _mean(self, layer: Layer, group: int, index: int, track: _Track, grid: Grid) -> Tensor:
        """A track's mean over a group's steps, on `grid`: (B, definitions, points, cells).

        () if there is none.
        """
        closed = self._closed.get((layer, group))
        if closed is None:
            return torch.zeros(())
        sums, count = closed[index]
        return spread(sums / count.clamp(min=1), self._grids[layer][track.picture], grid)

    def _step_bytes(self) -> int:
        """The bytes of the open step in a recording, with its layers on the finest grids."""
        finest, tracks = self.grids(), self._tracks()
        return sum(
            4 * sums.shape[:-1].numel() * finest[track.picture].area
            for marginals in self._open.values()
            for sums, track in zip(marginals.sums, tracks, strict=True)
        )

    def _tracks(self) -> list[_Track]:
        """The tracks of every call, in the order of `PointMarginals.sums`."""
        references = range(len(self.grids()) - 1)
        on_result = any(point.reference == RESULT for point in self._points)
        rows = [_Track("g2r", r, 1 + r) for r in references if on_result]
        return rows + [_Track("r2g", r, 0) for r in references]


def _sum(a: PointMarginals, b: PointMarginals) -> PointMarginals:
    """Two calls of one layer → their sum."""
    return PointMarginals(
        tuple(x + y for x, y in zip(a.rows, b.rows, strict=True)),
        a.row_weight + b.row_weight,
        tuple(x + y for x, y in zip(a.columns, b.columns, strict=True)),
        a.column_weight + b.column_weight,
        b.grid,
        b.reference_grids,
    )
