"""Maps of one point or region: from the pooled correspondence, or exact if named in advance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..errors import I2AMError
from ..recording import Definition, Direction, Header, Recording, check_definition
from ..tokens import RESULT, Grid, PointQuery, mask_coverage, select_indices
from .correspondence import Correspondence
from .values import AttributionMap, Level, Selection


@dataclass(frozen=True)
class Location:
    """A point, as fractions of the picture from the top left, or a region.

    region: (1 or batch, height, width), 1 inside. A region replaces the point.
    """

    x: float = 0.5
    y: float = 0.5
    region: Tensor | None = None

    @property
    def name(self) -> str:
        """A short name for labels."""
        return "a region" if self.region is not None else f"{self.x:.2f}, {self.y:.2f}"

    def weights(self, grid: Grid) -> Tensor:
        """How much of each cell the place covers, 0 to 1: (1 or batch, area).

        Raises I2AMError for an empty region.
        """
        if self.region is None:
            weights = torch.zeros(1, grid.area)
            weights[0, grid.cell_at(self.x, self.y)] = 1
            return weights
        inside = mask_coverage(self.region, grid)
        if not bool((inside.sum(1) > 0).all()):
            raise I2AMError("The region is empty: nothing in it is painted. Paint what to ask of.")
        return inside


def point_map(
    pairs: Correspondence, definition: Definition, direction: Direction, place: Location
) -> AttributionMap:
    """A place → its map over the other picture.

    direction: generated to reference for a place of the result, the paper's SRAM: the mean of its
    rows over the reference. Reference to generated for a place of the reference, the inverse: the
    fraction of its attention that each place of the result gave to it. That is a fraction of all
    its attention in the model's definition, and of its attention to this reference in the paper's.
    """
    if direction is Direction.GENERATED_TO_REFERENCE:
        weights, grid = place.weights(pairs.result), pairs.reference
        weights = weights / weights.sum(1, keepdim=True)
        values = (weights.unsqueeze(1) @ pairs.values).squeeze(1)
        notes = f"from {place.name} of the result, pooled"
    else:
        weights, grid = place.weights(pairs.reference), pairs.result
        values = (pairs.values @ weights.unsqueeze(2)).squeeze(2) / grid.area
        notes = f"to {place.name} of the reference, pooled"
    values = rearrange(values, "b (h w) -> b 1 h w", h=grid.height)
    return AttributionMap(
        values, ("point",), grid, definition, direction, Level.UNIFIED, notes=(notes,)
    )


def check_pooled(header: Header, selection: Selection, place: Location) -> None:
    """Raises I2AMError for a selection of some steps or layers: the correspondence averages all."""
    layers = [layer.name for layer in header.layers]
    for name, text, count in (
        ("steps", selection.steps, len(header.steps)),
        ("layers", selection.layers, len(layers)),
    ):
        if len(select_indices(text, count, name, layers)) < count:
            raise I2AMError(
                f"{name} asks for “{text}”, but of {place.name} there is only the mean of all "
                f"{count} {name}. Write the place into Capture Attention's points or "
                f"reference_points and sample again, or clear {name}."
            )


def recorded_places(header: Header, reference: int) -> tuple[PointQuery, ...]:
    """The places named before sampling in one picture: a reference, from 0, or the RESULT."""
    return tuple(place for place in header.plan.places if place.reference == reference)


def recorded_point(header: Header, reference: int, x: float, y: float) -> int | None:
    """x, y → the number of the point recorded in that token, among its picture's, or None."""
    if not header.token_grids:
        return None
    grid = header.token_grids[0 if reference == RESULT else 1 + reference]
    cell = grid.cell_at(x, y)
    for number, place in enumerate(recorded_places(header, reference)):
        if place.is_point and grid.cell_at(place.left, place.top) == cell:
            return number
    return None


def exact_point_map(
    recording: Recording,
    definition: Definition,
    direction: Direction,
    reference: int,
    number: int,
    selection: Selection,
) -> AttributionMap:
    """A place named before sampling → its exact map, on the finest grid of tokens.

    direction: as in `point_map`. number: of the place among those recorded in its picture, from 0.
    selection: the steps and layers to average over. For a video the map is of the mean frame. Over
    the result, the paper's definition is the place's softmax over the whole result, M_g.

    Raises I2AMError if a selected step was recorded together with one that is not selected.
    """
    header = recording.header
    check_definition(header, definition)
    over_reference = direction is Direction.GENERATED_TO_REFERENCE
    name = "g2r" if over_reference else "r2g"
    place = recorded_places(header, RESULT if over_reference else reference)[number]
    kept = recording.arrays[f"point.{definition.value}.{name}.{reference}"][:, :, :, number]
    paper = recording.arrays[f"point.paper.{name}.{reference}"][:, :, :, number]
    names = [layer.name for layer in header.layers]
    layers = select_indices(selection.layers, len(names), "layers", names)
    groups = _groups(header, select_indices(selection.steps, len(header.steps), "steps"))
    counts = torch.tensor(header.counts) > 0
    of_group = torch.tensor(header.step_groups) == torch.tensor(groups)[:, None]
    seen = (of_group.float() @ counts.float())[:, layers]  # (groups, layers)
    values, paper = (maps[:, groups][:, :, layers].flatten(3) for maps in (kept, paper))
    # A conditioning that never acted at the place has no attention there: left out of the mean.
    weight = seen * (paper.sum(-1) > 0)
    mean = (weight.unsqueeze(-1) * values).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)[:, None]
    grid = header.token_grids[1 + reference if over_reference else 0]
    frames = rearrange(mean, "b (f h w) -> b f h w", f=grid.frames, h=grid.height)
    values = frames.sum(1, keepdim=True)
    whose = "of the result" if over_reference else "of the reference"
    notes = [f"{'from' if over_reference else 'to'} {place.name} {whose}, exact"]
    chosen = ("steps", selection.steps), ("layers", selection.layers)
    notes += [f"{name} {text.strip()}" for name, text in chosen if text.strip()]
    return AttributionMap(
        *(values, ("point",), grid.one_frame, definition, direction, Level.UNIFIED),
        notes=tuple(notes),
    )


def _groups(header: Header, steps: list[int]) -> list[int]:
    """Recorded steps → the groups that hold exactly these. Raises I2AMError if none do."""
    groups = sorted({header.step_groups[step] for step in steps})
    held = [step for step, group in enumerate(header.step_groups) if group in groups]
    if held != steps:
        every = [
            [step for step, one in enumerate(header.step_groups) if one == group]
            for group in range(header.step_groups[-1] + 1)
        ]
        raise I2AMError(
            "The recording holds these places for several steps together, and you asked for a part "
            f"of them. Choose whole groups: {', '.join(f'{g[0]}-{g[-1]}' for g in every)}; or ask "
            "about fewer places, or record fewer layers, with Capture Attention."
        )
    return groups
