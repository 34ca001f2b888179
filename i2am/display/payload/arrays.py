"""PooledView → the arrays of a payload. Their sizes are known before their values are computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...maps import correspondence_of, word_grid, word_maps
from ...recording import Definition, correspondence_name
from ...tokens import Grid, invert_spread, mean_over_cells, resample_cells, spread
from .pooling import PooledView, group_sums

ALIGNMENT = 8  # bytes
_HIGHEST = {"u1": 255, "u2": 65535}  # f4 is sent as it is


@dataclass(frozen=True)
class PayloadArray:
    """One array to be sent. `values` computes it; its size is known before.

    per: how many leading axes have one scale for each index; 0 for values from 0 to 1.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    per: int
    values: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        size = math.prod(self.shape) * int(self.dtype[1])
        return -(-size // ALIGNMENT) * ALIGNMENT

    def quantised(self) -> tuple[bytes, list[float]]:
        """The stored numbers, little-endian, and the scales."""
        if self.dtype == "f4":
            return self.values().numpy().astype("<f4").tobytes(), [1.0]
        highest = _HIGHEST[self.dtype]
        rows = self.values().reshape(math.prod(self.shape[: self.per]), -1)
        tops: list[float] = rows.amax(1).numpy().tolist() if self.per else [1.0]
        scales = [float(f"{top / highest:.7g}") for top in tops]
        divisors = torch.tensor([scale or 1.0 for scale in scales])[:, None]
        stored = (rows / divisors).round().clamp(0, highest)
        return stored.numpy().astype(f"<{self.dtype}").tobytes(), scales


def payload_arrays(view: PooledView) -> list[PayloadArray]:
    """All arrays of a view, in order."""
    return [
        *map_arrays(view),
        *correspondence_arrays(view),
        *mask_arrays(view),
        *official_arrays(view),
        *word_arrays(view),
    ]


def map_arrays(view: PooledView) -> Iterator[PayloadArray]:
    counts = view.fit.items, len(view.steps), len(view.layers)
    heads = view.fit.items, len(view.layers), max(view.header.heads)
    for r, picture in enumerate(view.header.references):
        sides = [("r2g", view.header.generated.grid, view.generated)]
        if picture.has_places:
            sides.append(("g2r", picture.grid, view.references[r]))
        for direction, grid, target in sides:
            for definition in view.header.plan.recorded:
                name = f"{definition.value}.{direction}.{r}"
                yield PayloadArray(
                    f"{name}.step_layer",
                    "u2",
                    (*counts, *target.shape),
                    3,
                    lambda name=name, g=grid, t=target: _step_layer(view, name, g, t),
                )
                if view.fit.head_bytes:
                    yield PayloadArray(
                        f"{name}.layer_head",
                        f"u{view.fit.head_bytes}",
                        (*heads, *target.shape),
                        3,
                        lambda name=name, g=grid, t=target: _layer_head(view, name, g, t),
                    )
    kinds = 2 + len(view.references)
    shape = (view.fit.items, kinds, *view.generated.shape)
    yield PayloadArray("share.map", "u2", shape, 2, lambda: _share_map(view))


def _step_layer(view: PooledView, name: str, grid: Grid, target: Grid) -> Tensor:
    """The mean of each group over its recorded maps; the others are zero in the recording."""
    maps = view.recorded[f"{name}.step_layer"][: view.fit.items].flatten(3)
    sums = group_sums(group_sums(maps, view.steps, 1), view.layers, 2)
    return spread(sums / view.counts.clamp(min=1)[..., None], grid, target)


def _layer_head(view: PooledView, name: str, grid: Grid, target: Grid) -> Tensor:
    """The mean over the layers of each group, which have the same number of heads."""
    maps = view.recorded[f"{name}.layer_head"][: view.fit.items].flatten(3)
    counts = torch.tensor([len(group) for group in view.layers])[:, None, None]
    return spread(group_sums(maps, view.layers, 1) / counts, grid, target)


def _share_map(view: PooledView) -> Tensor:
    """The shares at each place. Pooled places get the mean, since a share is a fraction."""
    shares = view.recorded["share.map"][: view.fit.items].flatten(2).mT
    return mean_over_cells(shares, view.header.generated.grid, view.generated).mT


def correspondence_arrays(view: PooledView) -> Iterator[PayloadArray]:
    for r in range(len(view.references)):
        grids = view.correspondence_grids(r)
        if grids is None:
            continue
        _, _, rows, columns = grids
        shape = (view.fit.items, *rows.sides, *columns.sides)
        for definition in view.header.plan.recorded:
            # Each place's own scale keeps its own distribution precise.
            yield PayloadArray(
                correspondence_name(definition, r),
                "u2",
                shape,
                3,
                lambda d=definition, r=r, few=(rows, columns): _correspondence(view, d, r, *few),
            )


def _correspondence(
    view: PooledView, definition: Definition, r: int, rows: Grid, columns: Grid
) -> Tensor:
    pairs = correspondence_of(view.attribution.recording, definition, r)
    pooled = spread(pairs.values[: view.fit.items], pairs.reference, columns)
    return mean_over_cells(pooled, pairs.result, rows)


def word_arrays(view: PooledView) -> Iterator[PayloadArray]:
    """The map of each word, 0 to 1, mean over all steps."""
    if view.words:
        grid = word_grid(view.attribution.recording, view.words[0].prompt)
        shape = (view.fit.items, len(view.words), *grid.sides)
        yield PayloadArray("words", "u2", shape, 2, lambda: _words(view))


def _words(view: PooledView) -> Tensor:
    maps = word_maps(view.attribution.recording, view.words)
    return maps.values[: view.fit.items] * maps.grid.area


def mask_arrays(view: PooledView) -> Iterator[PayloadArray]:
    for name, mask in view.masks.items():
        grid = Grid(mask.shape[1], mask.shape[2])
        target = grid.shrunk_to(view.fit.mask_side)
        shape = (min(len(mask), view.fit.items), *target.sides)
        yield PayloadArray(
            name, "u1", shape, 0, lambda m=mask, g=grid, t=target: _mask(view, m, g, t)
        )


def _mask(view: PooledView, mask: Tensor, grid: Grid, target: Grid) -> Tensor:
    cells = mask[: view.fit.items].float().clamp(0, 1).flatten(1)[..., None]
    return mean_over_cells(cells, grid, target)


def official_arrays(view: PooledView) -> Iterator[PayloadArray]:
    """The matrices of `ResampleOrder.OFFICIAL`, one for rows and one for columns of each grid."""
    target = view.generated
    for number, own in enumerate(view.coarser):
        for axis, side in enumerate(("down", "across")):
            cells = target.sides[axis]
            lines = Grid(cells, 1, (target.covered[axis], 1.0))
            few = Grid(own.sides[axis], 1, (own.covered[axis], 1.0))
            yield PayloadArray(
                f"official.{number}.{side}",
                "f4",
                (cells, cells),
                0,
                lambda lines=lines, few=few: _official(lines, few),
            )


def _official(line: Grid, few: Grid) -> Tensor:
    """The matrix that undoes the spreading of `few` cells and resamples them: (cells, cells)."""
    cells = torch.eye(line.area)
    values = invert_spread(cells, line, few) * (few.area / line.area)
    return resample_cells(values, few, line).mT.contiguous()
