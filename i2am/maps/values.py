"""Attribution maps and what their numbers mean: levels, weights, units, captions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ..recording import Definition, Direction
from ..tokens import Grid

FLAT = 1e-3  # of a map's level: a range narrower than this is rounding noise, not a pattern


def is_share(map: AttributionMap) -> bool:
    """Whether a map shows the part of each place's attention that the reference got."""
    return (
        map.definition is Definition.MODEL
        and map.direction is Direction.REFERENCE_TO_GENERATED
        and map.weight is LayerWeight.MASS
        and map.order is ResampleOrder.MASS_KEPT
    )


def unit(map: AttributionMap) -> str:
    """What the numbers of `display_values` count: "%" of attention or "×" an even spread."""
    return "%" if is_share(map) else "×"


def caption(map: AttributionMap) -> str:
    """What was measured, in short: "R2G · model · unified · layers by value"."""
    parts = ["R2G" if map.direction is Direction.REFERENCE_TO_GENERATED else "G2R"]
    parts += [map.definition.value, map.level.value]
    if map.weight is not LayerWeight.MASS:
        parts.append("layers equal" if map.weight is LayerWeight.EQUAL else "layers by value")
    if map.order is ResampleOrder.OFFICIAL:
        parts.append("official order")
    return " · ".join((*parts, *map.notes))


def display_values(map: AttributionMap) -> Tensor:
    """A map in numbers that mean something: (batch, maps, height, width).

    Model R2G: the share (0..1) of its attention that each place gives the reference. All others:
    1 is what each place would have if all the attention of an average map were spread evenly.
    Maps of one batch item keep their proportions: one that holds twice the attention is twice
    as high everywhere.
    """
    values = map.values.float() * map.grid.area
    if is_share(map):
        return values
    even = values.mean((1, 2, 3), keepdim=True)
    return values / torch.where(even > 0, even, 1)


# Which frames of a video a map is of, beside the number of one, from 0.
MEAN_FRAME, EVERY_FRAME = -1, -2


class Level(str, Enum):
    """What is not averaged away."""

    UNIFIED = "unified"
    TIME = "time"
    LAYER = "layer"
    HEAD = "head"


class LayerWeight(str, Enum):
    """How much a layer counts in a mean of layers: its map times a factor, on average one.

    Layers of one grid weigh the same by value as by mass; in the paper's definition every layer
    gives the same attention, so that equal is the same as by mass.
    """

    MASS = "mass"  # as recorded: by the attention it gave
    VALUE = "value"  # by the height of its values, attention per token: the authors' code
    EQUAL = "equal"  # all the same: each layer's map is first brought to the sum one


class ResampleOrder(str, Enum):
    """How a layer's map comes to the grid all layers share."""

    MASS_KEPT = "mass kept"  # each cell spread evenly over the place it covers
    OFFICIAL = "official"  # the authors' code: summed over steps, bicubic, no value below zero


@dataclass(frozen=True)
class AttributionMap:
    """Values over one grid, un-normalised: a share credited to each place.

    values: (batch, maps, height, width), float32, >= 0. `maps` is 1 at the unified level. In the
    paper definition each map sums to one, in the model definition to the attention it is made of.
    labels: one short name for each of `maps` ("steps 0-3", "double 2", "head 5", "frame 1").
    Of a video it is a map of one frame, or of each, and then their mean is what is said above.
    weight, order: how layers were averaged; with other than the first of each, the sums said above
    hold for the paper's definition by value, and by equal all maps of one layer sum to one.
    notes: what else was done to it, in words, for its caption.
    """

    values: Tensor
    labels: tuple[str, ...]
    grid: Grid
    definition: Definition
    direction: Direction
    level: Level
    weight: LayerWeight = LayerWeight.MASS
    order: ResampleOrder = ResampleOrder.MASS_KEPT
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """What to average over, as range texts (empty for all), and into how many groups of steps.

    weight, order: how layers are averaged.
    """

    steps: str = ""
    layers: str = ""
    heads: str = ""
    time_groups: int = 5
    weight: LayerWeight = LayerWeight.MASS
    order: ResampleOrder = ResampleOrder.MASS_KEPT


EVERYTHING = Selection()
