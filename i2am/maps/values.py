"""Attribution maps and what their numbers mean: levels, weights, units, captions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ..recording import Definition, Direction
from ..tokens import Grid

FLAT = 1e-3  # of a map's highest value: a narrower range is rounding noise, not a pattern


def is_share(map: AttributionMap) -> bool:
    """Whether a map shows shares: the fraction of each place's attention given to the reference."""
    return (
        map.definition is Definition.MODEL
        and map.direction is Direction.REFERENCE_TO_GENERATED
        and map.weight is LayerWeight.MASS
        and map.order is ResampleOrder.MASS_KEPT
    )


def unit(map: AttributionMap) -> str:
    """The unit of `display_values`: "%" of attention or "×" an even spread."""
    return "%" if is_share(map) else "×"


def caption(map: AttributionMap) -> str:
    """What a map measures, in short: "R2G · model · unified · layers by value"."""
    if map.title:
        return " · ".join((map.title, *map.notes))
    parts = ["R2G" if map.direction is Direction.REFERENCE_TO_GENERATED else "G2R"]
    parts += [map.definition.value, map.level.value]
    if map.weight is not LayerWeight.MASS:
        parts.append("layers equal" if map.weight is LayerWeight.EQUAL else "layers by value")
    if map.order is ResampleOrder.OFFICIAL:
        parts.append("official order")
    return " · ".join((*parts, *map.notes))


def display_values(map: AttributionMap) -> Tensor:
    """A map → its values in the unit that `unit` names: (batch, maps, height, width).

    Model R2G: the share (0..1) of each place's attention that goes to the reference. All others:
    1 is what each place would have if the attention of an average map were spread evenly. Maps of
    one batch item keep their proportions: a map that holds twice the attention has values twice as
    high.
    """
    values = map.values.float() * map.grid.area
    if is_share(map):
        return values
    even = values.mean((1, 2, 3), keepdim=True)
    return values / torch.where(even > 0, even, 1)


# Special values of `frame`, beside a frame's number.
MEAN_FRAME, EVERY_FRAME = -1, -2


class Level(str, Enum):
    """What a map does not average away."""

    UNIFIED = "unified"
    TIME = "time"
    LAYER = "layer"
    HEAD = "head"


class LayerWeight(str, Enum):
    """How much a layer counts in a mean of layers. Its map is multiplied by a factor, 1 on average.

    Value and mass are the same for layers on one grid. Equal and mass are the same in the paper's
    definition, where all layers have the same mass.
    """

    MASS = "mass"  # as recorded: by the attention the layer gave
    VALUE = "value"  # by attention per token, as in the authors' code
    EQUAL = "equal"  # each layer's map is first scaled to sum to one


class ResampleOrder(str, Enum):
    """How a layer's map is resampled to the grid that all layers share."""

    MASS_KEPT = "mass kept"  # each cell is spread evenly over the area it covers
    OFFICIAL = "official"  # the authors' code: summed over steps, bicubic, clamped at zero


@dataclass(frozen=True)
class AttributionMap:
    """Values over one grid, not normalised: the attention credited to each place.

    values: (batch, maps, height, width), float32, >= 0. `maps` is 1 at the unified level. In the
    paper definition each map sums to one, in the model definition to the attention it is made of.
    For a video, a map shows one frame or every frame; the sums above then hold for the mean over
    frames.
    labels: one short name for each of `maps` ("steps 0-3", "double 2", "head 5", "frame 1").
    weight, order: how layers were averaged. The sums above are those of `MASS` and `MASS_KEPT`.
    With `VALUE` they hold in the paper's definition only. With `EQUAL` the maps of each layer sum
    to one.
    notes: what else was done to the map, in words, for its caption. title: what the map is, in
    short, if it is not of a reference.
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
    title: str = ""


@dataclass(frozen=True)
class Selection:
    """What to average over, as range texts (empty for all).

    time_groups: how many groups of steps the time level has. weight, order: how layers are
    averaged.
    """

    steps: str = ""
    layers: str = ""
    heads: str = ""
    time_groups: int = 5
    weight: LayerWeight = LayerWeight.MASS
    order: ResampleOrder = ResampleOrder.MASS_KEPT


EVERYTHING = Selection()
