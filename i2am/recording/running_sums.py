"""The sums of a run: the open step on the model's device, finished steps on the CPU.

The correspondence stays on the device until the end. Nothing is kept for each call, so memory grows
with layers, steps and cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..attention import Marginals, correspondence_grid
from ..tokens import (
    WHOLE_PICTURE,
    Grid,
    Rectangle,
    Region,
    TokenLayout,
    grid_of,
    mean_over_cells,
    spread,
)
from ..tokens.architectures.base import Layer
from .definitions import Definition
from .host_copy import HostCopy
from .recording import map_grid

_TINY = torch.finfo(torch.float32).tiny


def kind_of(definition: Definition, references: int) -> int:
    """A definition → the number of the kind (`StepSums`) for reference 0's map over the result."""
    order = (Definition.MODEL, Definition.PAPER, Definition.EFFECT)
    return 2 + references * order.index(definition)


@dataclass
class StepSums:
    """One layer's sums within the open step.

    generated: (batch, heads, kinds, cells) over the result. The kinds are text, self, each
    reference in the model's definition, each in the paper's; then, if recorded, each one's effect
    and the output. references: for each reference (batch, heads, definitions, cells). weight: the
    number of evaluations of the whole picture that the sums amount to; (batch,) if conditionings
    act on regions. count: the number of calls.
    """

    generated: Tensor
    references: tuple[Tensor, ...]
    weight: float | Tensor = 1.0
    count: int = 1

    def add(self, other: StepSums) -> None:
        """Add another call's sums in place."""
        self.generated += other.generated
        for total, new in zip(self.references, other.references, strict=True):
            total += new
        self.weight += other.weight
        self.count += other.count

    def split(self, layers: int) -> list[StepSums]:
        """Split the sums of `layers` layers, stacked along the batch, into those of each layer."""
        if layers == 1:
            return [self]
        chunks = (maps.chunk(layers) for maps in (self.generated, *self.references))
        return [StepSums(maps[0], maps[1:], self.weight) for maps in zip(*chunks, strict=True)]

    def mean(self, maps: Tensor) -> Tensor:
        """Sums over evaluations (batch, heads, kinds, cells) → their mean, of the same shape."""
        if isinstance(self.weight, Tensor):
            return maps / self.weight.clamp(min=_TINY)[:, None, None, None]
        return maps if self.weight == 1 else maps / self.weight


class LayerMaps:
    """The maps of one layer over one picture, from all finished steps, on the CPU."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.steps: dict[int, Tensor] = {}  # step → (batch, kinds, cells), mean over heads
        self._sum = torch.zeros(())  # (batch, heads, kinds, cells), added up over steps

    def close(self, step: int, maps: Tensor) -> None:
        """Add a finished step: (batch, heads, kinds, cells)."""
        self._sum = self._sum + maps
        self.steps[step] = maps.mean(1)

    @property
    def heads(self) -> Tensor:
        """Mean over steps: (batch, heads, kinds, cells)."""
        return self._sum / len(self.steps)


@dataclass
class RunningCorrespondence:
    """Correspondence between one pair of grids: the sums of the open step and of finished ones.

    Each row has its own mean: first over the calls, then over the steps, that attended from there.
    """

    open: Tensor = field(default_factory=lambda: torch.zeros(()))
    weight: float | Tensor = 0.0  # of the open step's calls, (batch, 1, generated cells, 1)
    closed: Tensor = field(default_factory=lambda: torch.zeros(()))
    steps: Tensor = field(default_factory=lambda: torch.zeros(()))
    layers: set[Layer] = field(default_factory=set[Layer])

    def add(self, match: Tensor, layers: tuple[Layer, ...], weight: float | Tensor) -> None:
        """Add the sum of calls: (batch, definitions, result cells, reference cells)."""
        if self.open.ndim:
            self.open += match
        else:
            self.open = match
        self.weight = self.weight + weight
        self.layers.update(layers)

    def close(self) -> None:
        """Finish the step. It counts once, however many calls it had."""
        if isinstance(self.weight, Tensor):
            self.closed = self.closed + self.open / self.weight.clamp(min=_TINY)
            self.steps = self.steps + (self.weight > 0)
        elif self.weight:
            self.closed = self.closed + self.open / self.weight
            self.steps = self.steps + 1
        self.open, self.weight = torch.zeros(()), 0.0

    @property
    def mean(self) -> Tensor:
        """Mean over steps, in the shape that was added, on the CPU; zero where none attended."""
        return (self.closed / self.steps.clamp(min=1)).cpu()


class RunningSums:
    """The sums of one run, by layer. Not safe across threads: the recorder holds the lock."""

    def __init__(self) -> None:
        self.generated: dict[Layer, LayerMaps] = {}
        self.references: dict[Layer, tuple[LayerMaps, ...]] = {}
        self.token_grids: dict[Layer, Grid] = {}  # of the whole result, as each layer attends
        self.reference_grids: dict[Layer, tuple[Grid, ...]] = {}
        # By reference and the two grids that its correspondence is pooled to.
        self.correspondence: dict[tuple[int, Grid, Grid], RunningCorrespondence] = {}
        self._open: dict[Layer, StepSums] = {}
        self._arriving: tuple[int, list[LayerMaps], HostCopy] | None = None

    @property
    def reference_count(self) -> int:
        """How many references the calls hold; 0 before the first."""
        return len(next(iter(self.reference_grids.values()), ()))

    def admit(self, layer: Layer, layout: TokenLayout, region: Region | None) -> bool:
        """Prepare for a layer's call; False if its references differ from earlier calls'."""
        grids = tuple(grid_of(span) for span in layout.references)
        if self.reference_grids.setdefault(layer, grids) != grids:
            return False
        if layer not in self.generated:
            tokens = grid_of(layout.generated)
            whole = tokens if region is None else region.part.whole_grid(tokens)
            self.token_grids[layer] = whole
            self.generated[layer] = LayerMaps(map_grid(whole))
            self.references[layer] = tuple(LayerMaps(map_grid(grid)) for grid in grids)
        return True

    def add(
        self,
        layers: tuple[Layer, ...],
        marginals: Marginals,
        layout: TokenLayout,
        region: Region | None,
        portions: Tensor,
    ) -> None:
        """Add one call of each of these layers, stacked along the batch. Call `admit` first."""
        tokens = grid_of(layout.generated)
        references = self.reference_grids[layers[0]]  # the same for all: they share a layout
        sums = to_map_grids(marginals, tokens, references, region, portions)
        for layer, one in zip(layers, sums.split(len(layers)), strict=True):
            if layer in self._open:
                self._open[layer].add(one)
            else:
                self._open[layer] = one
        whole = tokens if region is None else region.part.whole_grid(tokens)
        for index, match in enumerate(marginals.correspondences):
            key = (index, correspondence_grid(whole), correspondence_grid(references[index]))
            running = self.correspondence.setdefault(key, RunningCorrespondence())
            if region is None:
                count = len(layers)
                each = match.view(count, -1, *match.shape[1:])
                running.add(each.sum(0) if count > 1 else match, layers, float(count))
            else:
                match, weight = region_correspondence(match, tokens, key[1], region.part, portions)
                running.add(match, layers, weight)

    def close_step(self, step: int) -> dict[Layer, int]:
        """Send the open step's means to the CPU; return how many calls each layer had."""
        self.settle()
        sides: list[LayerMaps] = []
        means: list[Tensor] = []
        for layer, sums in self._open.items():
            sides += [self.generated[layer], *self.references[layer]]
            means += [sums.mean(maps) for maps in (sums.generated, *sums.references)]
        self._arriving = step, sides, HostCopy(means)
        counts = {layer: sums.count for layer, sums in self._open.items()}
        self._open = {}
        for running in self.correspondence.values():
            running.close()
        return counts

    def settle(self) -> None:
        """Wait for the means of the last step, if they are still on their way. Call before reading
        maps."""
        if self._arriving is None:
            return
        step, sides, means = self._arriving
        self._arriving = None
        for side, maps in zip(sides, means.arrived(), strict=True):
            side.close(step, maps)


def to_map_grids(
    marginals: Marginals,
    tokens: Grid,
    reference_grids: tuple[Grid, ...],
    region: Region | None,
    portions: Tensor,
) -> StepSums:
    """One call's marginals → its sums on the grids that maps are kept on. Mass is preserved.

    tokens: the grid of the generated tokens. portions: for a region, how much it counts at each
    token; the sums then count as the fraction of a whole-picture evaluation that the region makes
    up.
    """
    # A share is a fraction of one token's attention. Divided by the token count, shares sum to
    # their mean.
    over_result, paper = [marginals.share / tokens.area], marginals.paper_r2g
    if marginals.effects is not None:
        effects = marginals.effects.r2g, marginals.effects.output.unsqueeze(2)
        over_result.append(torch.cat(effects, 2) / tokens.area)
    over_references, weight, part = marginals.over_references, 1.0, WHOLE_PICTURE
    if region is not None:
        part = region.part
        weight = part.area * portions.mean(1).to(paper).expand(len(paper))
        each = weight[:, None, None, None]
        over_result, paper = [maps * part.area for maps in over_result], paper * each
        # The paper's maps sum to one; the others are already weighted by the portions.
        others = torch.full_like(each, part.area)
        over_references = tuple(
            maps * torch.cat((each, *(others,) * (maps.shape[2] - 1)), dim=2)
            for maps in over_references
        )
    kept = map_grid(part.whole_grid(tokens))
    return StepSums(
        spread(torch.cat((over_result[0], paper, *over_result[1:]), 2), tokens, kept, part),
        tuple(
            spread(maps, grid, map_grid(grid))
            for maps, grid in zip(over_references, reference_grids, strict=True)
        ),
        weight,
    )


def region_correspondence(
    match: Tensor, tokens: Grid, rows: Grid, part: Rectangle, portions: Tensor
) -> tuple[Tensor, Tensor]:
    """A region's correspondence → the same on `rows`, the grid of the whole picture.

    match: (batch, definitions, the region's cells, reference cells). Returns (batch, definitions,
    cells of `rows`, reference cells), and the weights to divide by once all regions are added up,
    (batch, 1, cells of `rows`, 1).
    """
    mean_portion = portions.to(match).mean(1)[:, None, None, None]
    # The paper's rows are weighted by their portion divided by the mean portion, the others' by
    # their portion.
    match = torch.cat((match[:, :1] * mean_portion, match[:, 1:]), 1)
    return on_whole_result(match, tokens, rows, part, portions)


def on_whole_result(
    match: Tensor, tokens: Grid, rows: Grid, part: Rectangle, portions: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows of a region, weighted by its portions → the same on the grid of the whole result.

    Shapes as in `region_correspondence`, with anything in the place of reference cells.
    """
    cells = correspondence_grid(tokens)
    portions = mean_over_cells(portions.to(match).mT, tokens, cells).mT.expand(len(match), -1)
    weight = spread(portions, cells, rows, part)
    return spread(match.mT, cells, rows, part).mT, weight[:, None, :, None]
