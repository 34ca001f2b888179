"""What a recorder adds up: sums of the open step, maps of closed ones, correspondence of both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..attention import Marginals, correspondence_grid
from ..tokens import WHOLE_PICTURE, Grid, Rectangle, Region, mean_over_cells, spread
from ..tokens.architectures.base import Layer
from .recording import map_grid

_TINY = torch.finfo(torch.float32).tiny


@dataclass
class StepSums:
    """One layer's sums within the step that is being sampled, on the model's device.

    generated: (batch, heads, kinds, cells), kinds = text, self, references, references again in
    the paper's definition. references: each (batch, heads, 2, cells), paper and model. weight: how
    many evaluations of the whole picture that is, (batch,) where conditionings act in regions.
    """

    generated: Tensor
    references: tuple[Tensor, ...]
    weight: float | Tensor = 1.0
    count: int = 1

    def add(self, other: StepSums) -> None:
        self.generated += other.generated
        for total, new in zip(self.references, other.references, strict=True):
            total += new
        self.weight += other.weight
        self.count += other.count

    def split(self, layers: int) -> list[StepSums]:
        """The sums of so many layers, which are one after the other in the batch."""
        if layers == 1:
            return [self]
        sides = (maps.chunk(layers) for maps in (self.generated, *self.references))
        return [StepSums(maps[0], maps[1:], self.weight) for maps in zip(*sides, strict=True)]

    def mean(self, maps: Tensor) -> Tensor:
        """Sums of so many evaluations (batch, heads, kinds, cells) as one's."""
        if isinstance(self.weight, Tensor):
            return maps / self.weight.clamp(min=_TINY)[:, None, None, None]
        return maps if self.weight == 1 else maps / self.weight


class LayerMaps:
    """The maps of one layer over one picture, on the CPU, over all steps so far."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.steps: dict[int, Tensor] = {}  # each (batch, kinds, cells), mean over heads
        self._sum = torch.zeros(())  # (batch, heads, kinds, cells), added over steps

    def close(self, step: int, maps: Tensor) -> None:
        """Take in a finished step: (batch, heads, kinds, cells)."""
        self._sum = self._sum + maps
        self.steps[step] = maps.mean(1)

    @property
    def heads(self) -> Tensor:
        """Mean over steps: (batch, heads, kinds, cells)."""
        return self._sum / len(self.steps)


@dataclass
class RunningCorrespondence:
    """Correspondence between one pair of grids: within the open step, and over closed ones.

    Each row is a mean of its own: of the calls, and then of the steps, that looked from there.
    """

    open: Tensor = field(default_factory=lambda: torch.zeros(()))
    weight: float | Tensor = 0.0  # of the open step's calls, (batch, 1, generated cells, 1)
    closed: Tensor = field(default_factory=lambda: torch.zeros(()))
    steps: Tensor = field(default_factory=lambda: torch.zeros(()))
    layers: set[Layer] = field(default_factory=set[Layer])

    def add(self, match: Tensor, layers: tuple[Layer, ...], weight: float | Tensor) -> None:
        """Take in calls' correspondence, added up: (batch, 2, generated cells, reference cells)."""
        if self.open.ndim:
            self.open += match
        else:
            self.open = match
        self.weight = self.weight + weight
        self.layers.update(layers)

    def close(self) -> None:
        """The step is finished: it counts once, however many calls it had."""
        if isinstance(self.weight, Tensor):
            self.closed = self.closed + (self.open / self.weight.clamp(min=_TINY)).cpu()
            self.steps = self.steps + (self.weight > 0).cpu()
        elif self.weight:
            self.closed = self.closed + (self.open / self.weight).cpu()
            self.steps = self.steps + 1
        self.open, self.weight = torch.zeros(()), 0.0

    @property
    def mean(self) -> Tensor:
        """Over the steps: (batch, 2, generated cells, reference cells), zero where none looked."""
        return self.closed / self.steps.clamp(min=1)


def to_map_grids(
    marginals: Marginals,
    tokens: Grid,
    pictures: tuple[Grid, ...],
    region: Region | None,
    portions: Tensor,
) -> StepSums:
    """A call's sums as maps on the grids that are kept, mass kept.

    Of a region, whose tokens have these portions, they are the sums of the whole picture's
    evaluation that it takes part in, by the area and the portion it has in it.
    """
    # A share is of one place's attention; over all places it is mass, which adds up to the mean.
    over_result, paper = marginals.share / tokens.area, marginals.paper_r2g
    over_references, weight, part = marginals.g2r, 1.0, WHOLE_PICTURE
    if region is not None:
        part = region.part
        weight = part.area * portions.mean(1).to(paper).expand(len(paper))
        each = weight[:, None, None, None]
        over_result, paper = over_result * part.area, paper * each
        # The paper's sum to one, the model's to what the portions left of them.
        kinds = torch.cat((each, torch.full_like(each, part.area)), dim=2)
        over_references = tuple(maps * kinds for maps in over_references)
    return StepSums(
        spread(torch.cat((over_result, paper), dim=2), tokens, map_grid(part.whole(tokens)), part),
        tuple(
            spread(maps, picture, map_grid(picture))
            for maps, picture in zip(over_references, pictures, strict=True)
        ),
        weight,
    )


def finest_grid(grids: Iterable[Grid]) -> Grid:
    """The one of the most cells."""
    return max(grids, key=lambda grid: grid.area)


def stack_layers(steps: list[int], sides: list[LayerMaps], grid: Grid) -> tuple[Tensor, Tensor]:
    """Layers side by side on one grid: (B, S, L, kinds, h, w) and (B, L, H, kinds, h, w).

    A video has its frames before h, w.
    A step a layer was not seen in, and a head a layer does not have, are zero.
    """
    some = sides[0].heads
    batch, _, kinds, _ = some.shape
    heads = max(side.heads.shape[1] for side in sides)
    shape = (kinds, *grid.shape)
    step_layer = some.new_zeros(batch, len(steps), len(sides), *shape)
    layer_head = some.new_zeros(batch, len(sides), heads, *shape)
    for number, side in enumerate(sides):
        mean = spread(side.heads, side.grid, grid)
        layer_head[:, number, : mean.shape[1]] = mean.reshape(*mean.shape[:-1], *shape[1:])
        rows = [row for row, step in enumerate(steps) if step in side.steps]
        maps = torch.stack([side.steps[steps[row]] for row in rows], 1)
        maps = spread(maps, side.grid, grid)
        step_layer[:, rows, number] = maps.reshape(*maps.shape[:-1], *shape[1:])
    return step_layer, layer_head


def region_correspondence(
    match: Tensor, tokens: Grid, rows: Grid, part: Rectangle, portions: Tensor
) -> tuple[Tensor, Tensor]:
    """A region's correspondence among the rows of the whole picture's, and the rows' weights.

    (batch, 2, cells of `rows`, reference cells) and (batch, 1, cells of `rows`, 1), to be divided
    by when all regions are added up.
    """
    cells = correspondence_grid(tokens)
    portions = portions.to(match)
    level = portions.mean(1)[:, None, None, None]
    # The paper's rows count by their portion relative to the mean portion, the model's by it.
    match = torch.cat((match[:, :1] * level, match[:, 1:]), 1)
    portions = mean_over_cells(portions.mT, tokens, cells).mT.expand(len(match), -1)
    weight = spread(portions, cells, rows, part)
    return spread(match.mT, cells, rows, part).mT, weight[:, None, :, None]
