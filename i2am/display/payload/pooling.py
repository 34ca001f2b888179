"""How much of a recording is sent: items, steps, layers and cells, reduced until they fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import torch
from torch import Tensor

from ...attention import CORRESPONDENCE_SIDE
from ...maps import correspondence_of
from ...recording import (
    MAP_SIDE,
    Attribution,
    Header,
    Word,
    correspondence_name,
    map_grid,
)
from ...tokens import Grid

MAX_WORDS = 96  # of a prompt; each is a map


@dataclass(frozen=True)
class Fit:
    """Upper limits on what is sent: items, groups of steps and layers, cells a side.

    head_bytes: bytes of one value of the layer × head maps; 0 leaves them out.
    """

    items: int
    steps: int
    layers: int
    map_side: int = MAP_SIDE
    match_side: int = CORRESPONDENCE_SIDE
    mask_side: int = 2**31
    head_bytes: int = 2

    def reduced(self, reduction: Mapping[str, int]) -> Fit:
        """The fit with those of these limits that are lower."""
        return replace(self, **{n: min(getattr(self, n), limit) for n, limit in reduction.items()})


# The reductions, applied in this order until the payload fits.
REDUCTIONS: tuple[dict[str, int], ...] = (
    {"mask_side": 1024},
    {"head_bytes": 1},
    {"steps": 10},
    {"map_side": 32},
    *({"layers": layers} for layers in (32, 24, 16, 12)),
    {"head_bytes": 0},
    *({"match_side": side} for side in (24, 20, 16)),
    *({"items": items} for items in (4, 2, 1)),
    {"mask_side": 256},
    {"map_side": 16},
    {"steps": 5},
    {"layers": 6},
    {"match_side": 8},
)


class PooledView:
    """An attribution under one fit: its groups of steps and layers, and its grids.

    steps, layers: groups of consecutive ones, each sent as one. counts: how many recorded (step,
    layer) maps each pair of groups is the mean of, (steps, layers). generated, references: the
    grids that maps are sent on. coarser: the layers' grids over the result that are coarser.
    official: for each group of layers, the number of its grid in `coarser`; None if it is not
    there.
    """

    def __init__(self, attribution: Attribution, masks: Mapping[str, Tensor], fit: Fit) -> None:
        self.fit = fit
        self.masks = masks
        self.attribution = attribution
        self.recorded = attribution.recording.arrays
        self.words = _first_prompt(attribution)
        self.header = header = attribution.recording.header
        self.generated = map_grid(header.generated.grid, fit.map_side)
        self.references = [map_grid(p.grid, fit.map_side) for p in header.references]
        self.steps = _even_groups(0, len(header.steps), fit.steps)
        self.layers = _layer_groups(header, fit.layers)
        recorded = (torch.tensor(header.counts) > 0).float()
        self.counts = group_sums(group_sums(recorded, self.steps, 0), self.layers, 1)
        over = [map_grid(header.layer_grids[group.start], fit.map_side) for group in self.layers]
        self.coarser = list(dict.fromkeys(own for own in over if own.area < self.generated.area))
        self.official = [self.coarser.index(own) if own in self.coarser else None for own in over]

    def correspondence_grids(self, r: int) -> tuple[Grid, Grid, Grid, Grid] | None:
        """The grids of a correspondence, as recorded (rows, columns) and as sent; None without."""
        definition = self.header.plan.recorded[0]  # all have the same grids
        recorded = correspondence_name(definition, r) in self.recorded
        if not recorded or not self.header.references[r].has_places:
            return None
        pairs = correspondence_of(self.attribution.recording, definition, r)
        rows, columns = pairs.result, pairs.reference
        side = self.fit.match_side
        return rows, columns, rows.shrunk_to(side), columns.shrunk_to(side)

    def pooled(self) -> list[str]:
        """What was reduced to fit, in words."""
        header, batch = self.header, self.header.run.batch
        said = [f"pictures {batch} → the first {self.fit.items}"] * (self.fit.items < batch)
        for name, all_of, groups in (
            ("steps", header.steps, self.steps),
            ("layers", header.layers, self.layers),
        ):
            if len(groups) < len(all_of):
                said.append(f"{name} {len(all_of)} → {len(groups)} groups")
        said += {2: [], 1: ["heads in 256 levels"], 0: ["heads left out"]}[self.fit.head_bytes]
        for name, was, now in self._grids():
            if was.sides != now.sides:
                said.append(f"{name} {_cells(was)} → {_cells(now)}")
        return said

    def _grids(self) -> Iterator[tuple[str, Grid, Grid]]:
        """What lies on a grid: its name, the grid it was recorded on, the grid it is sent on."""
        yield "maps over the result", self.header.generated.grid, self.generated
        for r, picture in enumerate(self.header.references):
            yield f"maps over reference {r + 1}", picture.grid, self.references[r]
            if grids := self.correspondence_grids(r):
                rows, columns, few_rows, few_columns = grids
                yield f"places of the result looking at reference {r + 1}", rows, few_rows
                yield f"places of reference {r + 1} looked at", columns, few_columns
        for name, mask in self.masks.items():
            grid = Grid(mask.shape[1], mask.shape[2])
            yield name.replace("_", " "), grid, grid.shrunk_to(self.fit.mask_side)


def _first_prompt(attribution: Attribution) -> tuple[Word, ...]:
    """The words of one prompt, at most MAX_WORDS."""
    words = attribution.words
    return tuple(word for word in words if word.prompt == words[0].prompt)[:MAX_WORDS]


def group_sums(values: Tensor, groups: Sequence[range], dim: int) -> Tensor:
    """Values → their sums within each group along an axis."""
    if len(groups) == values.shape[dim]:
        return values
    parts = [values.narrow(dim, group.start, len(group)).sum(dim) for group in groups]
    return torch.stack(parts, dim)


def _even_groups(start: int, count: int, most: int) -> list[range]:
    """`count` consecutive numbers → at most `most` groups, as equal as possible."""
    groups = min(count, most)
    edges = [start + count * group // groups for group in range(groups + 1)]
    return [range(first, stop) for first, stop in pairwise(edges)]


def _layer_groups(header: Header, most: int) -> list[range]:
    """Groups of consecutive layers with the same block, heads and grid; about `most` groups."""
    kinds = [
        (layer.block, heads, grid)
        for layer, heads, grid in zip(header.layers, header.heads, header.layer_grids, strict=True)
    ]
    each = -(-len(kinds) // most)
    groups: list[range] = []
    start = 0
    for _, same in groupby(kinds):
        count = len(list(same))
        groups += _even_groups(start, count, -(-count // each))
        start += count
    return groups


def _cells(grid: Grid) -> str:
    return f"{grid.height}×{grid.width}"
