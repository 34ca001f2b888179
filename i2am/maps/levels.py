"""Recording → attribution map: pick a definition, a direction and a level, and average."""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from ..errors import I2AMError
from ..recording import (
    Definition,
    Direction,
    Header,
    Recording,
    check_definition,
    check_reference,
    map_grid,
    side_of,
)
from ..tokens import Grid, invert_spread, mask_coverage, resample_cells, select_indices
from .correspondence import correspondence_of
from .values import (
    EVERY_FRAME,
    EVERYTHING,
    MEAN_FRAME,
    AttributionMap,
    LayerWeight,
    Level,
    ResampleOrder,
    Selection,
)


def paper_selection(recording: Recording, selection: Selection) -> Selection:
    """A selection → the same steps, layers and heads, averaged as in the authors' code.

    Layers are weighted by value and resampled in the official order. If no layers were picked, a
    UNet's middle block is left out.
    """
    layers = selection.layers
    if not layers.strip():
        kept = [n for n, layer in enumerate(recording.header.layers) if layer.block != "middle"]
        if 0 < len(kept) < len(recording.header.layers):
            layers = ",".join(map(str, kept))
    return replace(selection, layers=layers, weight=LayerWeight.VALUE, order=ResampleOrder.OFFICIAL)


def attribution_map(
    recording: Recording,
    definition: Definition,
    direction: Direction,
    level: Level = Level.UNIFIED,
    reference: int = 0,
    selection: Selection = EVERYTHING,
    within: Tensor | None = None,
    frame: int = MEAN_FRAME,
) -> AttributionMap:
    """Recording → its map at one level: the paper's ULAM, TLAM, LLAM or HLAM.

    reference: from 0. Steps, layers and heads are numbered as they were recorded, from 0. All
    steps weigh the same, and so do all heads; `selection.weight` sets the weight of layers.
    within: a mask over the result, (1 or batch, height, width), the authors' generated-side mask.
    It limits G2R to the places inside. That needs the correspondence, so it works only at the
    unified level, over all steps, layers and heads. frame: for a video, a latent frame,
    MEAN_FRAME, or EVERY_FRAME for one map a frame. A still picture has a single frame.

    Raises I2AMError for a reference, range or combination of ranges that was not recorded. A
    recording holds sums over steps × layers and over layers × heads, so a range of heads cannot be
    combined with a range of steps.
    """
    header = recording.header
    check_definition(header, definition)
    check_reference(header, reference, direction)
    over = header.references[reference]
    steps = select_indices(selection.steps, len(header.steps), "steps")
    names = [layer.name for layer in header.layers]
    layers = select_indices(selection.layers, len(names), "layers", names)
    heads = select_indices(selection.heads, max(header.heads), "heads")
    by_head = level is Level.HEAD or len(heads) < max(header.heads)
    some_steps = len(steps) < len(header.steps)
    if by_head and (level is Level.TIME or some_steps):
        raise I2AMError(
            "Heads and steps cannot be picked together: a recording keeps each step over all "
            "heads, and each head over all steps. Clear one of the two, or record fewer steps "
            "with Capture Attention."
        )
    if within is not None and direction is Direction.GENERATED_TO_REFERENCE:
        if level is not Level.UNIFIED or by_head or len(layers) < len(header.layers) or some_steps:
            raise I2AMError(
                "Only the unified map of all steps, layers and heads can be limited to a mask. "
                "Choose the unified level and clear the ranges, or record fewer steps and layers "
                "with Capture Attention."
            )
        _check_weight_from_a_mask(header, definition, over.grid, selection)
        return _g2r_within(recording, definition, reference, within)
    name = "r2g" if direction is Direction.REFERENCE_TO_GENERATED else "g2r"
    maps, seen = _map_table(recording, f"{definition.value}.{name}.{reference}", by_head)
    # Either steps or heads are already averaged.
    steps, heads = ([0], heads) if by_head else (steps, [0])
    match level:
        case Level.UNIFIED:
            parts = [("unified", steps, layers, heads)]
        case Level.TIME:
            groups = _split(steps, min(selection.time_groups, len(steps)))
            parts = [(_steps_name(header.steps, group), group, layers, heads) for group in groups]
        case Level.LAYER:
            parts = [(header.layers[layer].name, steps, [layer], heads) for layer in layers]
        case Level.HEAD:
            parts = [(f"head {head}", steps, layers, [head]) for head in heads]
    grid = side_of(recording, direction, reference).grid
    grids = _layer_grids(header, direction, grid)
    if selection.weight is not LayerWeight.MASS:
        maps = maps * _layer_factors(maps, seen, grids, layers, selection.weight)
    values = torch.stack(
        [_mean(maps, seen, grids, grid, selection.order, *part[1:]) for part in parts], dim=1
    )
    labels = tuple(label for label, *_ in parts)
    if grid.frames > 1:
        values, labels = _of_frames(values, labels, frame)
    return AttributionMap(
        values,
        labels,
        grid.one_frame,
        definition,
        direction,
        level,
        selection.weight,
        selection.order,
    )


def _map_table(recording: Recording, name: str, by_head: bool) -> tuple[Tensor, Tensor]:
    """An array's name → its maps, (batch, steps, layers, heads, cells), and which were recorded.

    One axis has length 1 and holds a mean: steps if `by_head`, heads otherwise.
    """
    header, most = recording.header, max(recording.header.heads)
    if by_head:
        maps = recording.arrays[f"{name}.layer_head"].flatten(3).unsqueeze(1)
        has_head = [[head < count for head in range(most)] for count in header.heads]
        return maps, torch.tensor(has_head).unsqueeze(0)
    maps = recording.arrays[f"{name}.step_layer"].flatten(3).unsqueeze(3)
    return maps, (torch.tensor(header.counts) > 0).unsqueeze(2)


def _layer_grids(header: Header, direction: Direction, grid: Grid) -> tuple[Grid, ...]:
    """The grid of each layer over one side.

    All layers receive the same tokens of a reference, so they share its grid. Only when the result
    attends to itself do the layers have different grids over the reference.
    """
    if direction is Direction.REFERENCE_TO_GENERATED or header.plan.within:
        return header.layer_grids
    return (grid,) * len(header.layers)


def _layer_factors(
    maps: Tensor, seen: Tensor, grids: tuple[Grid, ...], layers: list[int], weight: LayerWeight
) -> Tensor:
    """The factor for each layer's maps: (batch or 1, 1, layers, 1, 1)."""
    if weight is LayerWeight.VALUE:
        factors = torch.tensor([[1 / grid.area for grid in grids]])
        factors = factors / factors[:, layers].mean()
    else:
        mass = maps.sum((1, 3, 4)) / seen.sum((0, 2)).clamp(min=1)
        factors = torch.where(mass > 0, 1 / mass, 0)
    return factors[:, None, :, None, None]


def _check_weight_from_a_mask(
    header: Header, definition: Definition, over: Grid, selection: Selection
) -> None:
    """Raises I2AMError for a layer weight or order that the correspondence cannot give.

    It is the mean of all layers as recorded.
    """
    grids = _layer_grids(header, Direction.GENERATED_TO_REFERENCE, over)
    as_recorded = selection.weight is LayerWeight.MASS or (
        definition is Definition.PAPER
        if selection.weight is LayerWeight.EQUAL
        else len(set(grids)) == 1
    )
    if not as_recorded or (selection.order is ResampleOrder.OFFICIAL and len(set(grids)) > 1):
        raise I2AMError(
            "What a mask looked at is kept as the mean of all layers by mass alone. Choose "
            f"layer_weight mass instead of {selection.weight.value}, without a preset, or do "
            "without the mask."
        )


def _of_frames(
    values: Tensor, labels: tuple[str, ...], frame: int
) -> tuple[Tensor, tuple[str, ...]]:
    """(batch, maps, frames, h, w) → the maps of one frame, of every frame, or their mean.

    The mean over frames keeps the sum of the video's map.
    """
    frames = values.shape[2]
    if frame == MEAN_FRAME:
        return values.sum(2), labels
    values = values * frames
    if frame == EVERY_FRAME:
        names = [f"frame {number}" for number in range(frames)]
        if len(labels) > 1:
            names = [f"{label}, {name}" for label in labels for name in names]
        return rearrange(values, "b maps frames h w -> b (maps frames) h w"), tuple(names)
    if not 0 <= frame < frames:
        raise I2AMError(
            f"Frame {frame} does not exist: the latent has {frames}, numbered from 0. "
            f"Choose 0 to {frames - 1}, {MEAN_FRAME} for their mean or {EVERY_FRAME} for each."
        )
    return values[:, :, frame], labels


def _g2r_within(
    recording: Recording, definition: Definition, reference: int, within: Tensor
) -> AttributionMap:
    """A mask over the result → G2R of the places inside: the mean of their correspondence rows."""
    pairs = correspondence_of(recording, definition, reference)
    inside = mask_coverage(within, pairs.result)  # (1 or batch, cells)
    if not bool((inside.sum(1) > 0).all()):
        raise I2AMError("The mask over the result is empty. Paint where the reference was meant.")
    weights = inside / inside.sum(1, keepdim=True)
    values = (weights.unsqueeze(1) @ pairs.values).squeeze(1)
    return AttributionMap(
        rearrange(values, "b (h w) -> b 1 h w", h=pairs.reference.height),
        ("unified",),
        pairs.reference,
        definition,
        Direction.GENERATED_TO_REFERENCE,
        Level.UNIFIED,
    )


def _mean(
    maps: Tensor,
    seen: Tensor,
    grids: tuple[Grid, ...],
    grid: Grid,
    order: ResampleOrder,
    steps: list[int],
    layers: list[int],
    heads: list[int],
) -> Tensor:
    """`_map_table`'s maps → their mean over the recorded entries, (batch, …). The rest are zero."""
    count = seen[steps][:, layers][:, :, heads].sum().clamp(min=1)
    some = maps[:, steps][:, :, layers][:, :, :, heads].sum(1)  # (batch, layers, heads, cells)
    if order is ResampleOrder.OFFICIAL:
        for number, layer in enumerate(layers):
            own = map_grid(grids[layer])
            if own != grid:
                values = invert_spread(some[:, number], grid, own) * (own.area / grid.area)
                some[:, number] = resample_cells(values, own, grid).clamp(min=0)
    return (some.sum((1, 2)) / count).reshape(-1, *grid.shape)


def _split(numbers: list[int], groups: int) -> list[list[int]]:
    """Numbers → consecutive groups, as equal as possible, longer ones first."""
    shorter, longer = divmod(len(numbers), groups)
    sizes = [shorter + 1] * longer + [shorter] * (groups - longer)
    starts = [sum(sizes[:group]) for group in range(groups)]
    return [numbers[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def _steps_name(steps: tuple[int, ...], rows: list[int]) -> str:
    first, last = steps[rows[0]], steps[rows[-1]]
    return f"step {first}" if first == last else f"steps {first}-{last}"
