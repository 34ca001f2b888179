"""Recording → attribution map: pick a definition, a direction and a level, and average."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor

from .errors import I2AMError
from .geometry import Grid, Picture, frames_of, resample_cells, spread, unspread
from .ranges import pick
from .recording import Header, Recording, map_grid

# Which frames of a video a map is of, beside the number of one, from 0.
MEAN_FRAME, EVERY_FRAME = -1, -2

_MOST_PIXELS = 4096  # of one side of a picture


class Definition(str, Enum):
    """Which softmax a map is made of (`key_scope`)."""

    PAPER = "paper"  # over one side's tokens alone: I2AM section 3, M_g and M_r
    MODEL = "model"  # the model's own, over all of its keys


class Direction(str, Enum):
    """Which picture a map lies over."""

    REFERENCE_TO_GENERATED = "reference to generated"
    GENERATED_TO_REFERENCE = "generated to reference"


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


class Order(str, Enum):
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
    order: Order = Order.MASS_KEPT
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attribution:
    """A recording and the pictures to lay its maps over: what travels between the nodes.

    image: (batch, height, width, 3) in 0–1, the result. references: for each of them
    (1 or batch, height, width, 3) in 0–1, several where each batch item was given its own.
    mask: (1 or batch, height, width), 1 where the reference was meant to go. Each may be missing.
    mask_sampled: whether that mask is the inpainting mask of the run itself.
    All of a video's pictures stand for one: (batch × pictures, …), (pictures, …) for a reference.
    """

    recording: Recording
    image: Tensor | None = None
    references: tuple[Tensor | None, ...] = ()
    mask: Tensor | None = None
    mask_sampled: bool = False

    def picture(self, direction: Direction, reference: int) -> Tensor | None:
        """The pictures a direction's maps lie over: (1 or batch, height, width, 3)."""
        if direction is Direction.REFERENCE_TO_GENERATED:
            return self.image
        return self.references[reference] if reference < len(self.references) else None

    def frames(self, direction: Direction, reference: int) -> int:
        """How many latent frames a direction's maps have."""
        return _side(self.recording, direction, reference).grid.frames

    def video(self, direction: Direction, reference: int) -> Tensor | None:
        """The same with a video's pictures apart: (1 or batch, pictures, height, width, 3)."""
        picture = self.picture(direction, reference)
        if picture is None:
            return None
        if self.frames(direction, reference) == 1:
            return picture.unsqueeze(1)
        # A reference that is a video is one for all results.
        results = direction is Direction.REFERENCE_TO_GENERATED or self.recording.header.plan.within
        batch = self.recording.header.run.batch if results else 1
        return picture.reshape(batch, -1, *picture.shape[1:])

    def size(self, direction: Direction, reference: int) -> tuple[int, int]:
        """The (height, width) in pixels of that picture; of its latent × 8 where none was given.

        A latent that would be larger than any picture so is taken for one of pixels.
        """
        picture = self.picture(direction, reference)
        if picture is not None:
            return picture.shape[1], picture.shape[2]
        side = _side(self.recording, direction, reference)
        if side.latent == (0, 0):
            return side.grid.height * 16, side.grid.width * 16
        pixels = 8 if max(side.latent) * 8 <= _MOST_PIXELS else 1
        return side.latent[0] * pixels, side.latent[1] * pixels


def _side(recording: Recording, direction: Direction, reference: int) -> Picture:
    header = recording.header
    if direction is Direction.REFERENCE_TO_GENERATED:
        return header.generated
    return header.references[reference]


def fits_results(count: int, header: Header) -> bool:
    """Whether so many pictures are one for each result, or all of each result's video."""
    each, rest = divmod(count, header.run.batch)
    return rest == 0 and bool(frames_of(each, header.generated.grid.frames))


def fits_reference(count: int, header: Header, reference: int) -> bool:
    """Whether so many pictures are a reference: one for all results or for each, or a video's."""
    frames = header.references[reference].grid.frames
    return bool(frames_of(count, frames)) or (frames == 1 and count == header.run.batch)


def best_definition(recording: Recording) -> Definition:
    """The definition to look at first.

    Where text, result and references share one softmax, most layers hardly read the reference and
    the few that do must weigh more: the model's own attention. Elsewhere the paper's.
    """
    return Definition.MODEL if recording.header.joint else Definition.PAPER


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
    order: Order = Order.MASS_KEPT


def paper_selection(recording: Recording, selection: Selection) -> Selection:
    """The same steps, layers and heads, averaged as the authors' code does.

    Layers weigh by value, in the official order. Where no layers were picked, a UNet's middle
    block is left out.
    """
    layers = selection.layers
    if not layers.strip():
        kept = [n for n, layer in enumerate(recording.header.layers) if layer.block != "middle"]
        if 0 < len(kept) < len(recording.header.layers):
            layers = ",".join(map(str, kept))
    return replace(selection, layers=layers, weight=LayerWeight.VALUE, order=Order.OFFICIAL)


def check_reference(header: Header, reference: int, direction: Direction) -> None:
    """Raises I2AMError for a reference, from 0, that is not there or has no map in a direction."""
    if not 0 <= reference < len(header.references):
        raise I2AMError(
            f"Reference {reference + 1} does not exist: the model was given "
            f"{len(header.references)}. Choose 1 to {len(header.references)}."
        )
    over = header.references[reference]
    if direction is Direction.GENERATED_TO_REFERENCE and not over.has_places:
        raise I2AMError(
            f"There is no map over reference {reference + 1}: its tokens ({over.kind}) stand for "
            "the whole picture, not for places in it. Choose reference to generated, or read its "
            "share in Collect Attribution's report."
        )


def attribution_map(
    recording: Recording,
    definition: Definition,
    direction: Direction,
    level: Level = Level.UNIFIED,
    reference: int = 0,
    selection: Selection = Selection(),
    within: Tensor | None = None,
    frame: int = MEAN_FRAME,
) -> AttributionMap:
    """Average a recording down to a level: the paper's ULAM, TLAM, LLAM or HLAM.

    reference: from 0. Steps, layers and heads are numbered as they were recorded, from 0; every
    step and head weighs the same, and layers as `selection.weight` says. within: a mask over the
    result, (1 or batch, height, width); G2R then is of the places inside alone, which only the
    unified level over everything can tell, from the correspondence (the authors' generated-side
    mask). frame: of a video, the latent frame, MEAN_FRAME or EVERY_FRAME, which gives a map for
    each; a still picture has but one.

    Raises I2AMError for a reference, range or combination of ranges the recording cannot answer:
    it holds sums over steps × layers and layers × heads, so a range of heads cannot be joined with
    a range of steps.
    """
    header = recording.header
    check_reference(header, reference, direction)
    over = header.references[reference]
    steps = pick(selection.steps, len(header.steps), "steps")
    layers = pick(selection.layers, len(header.layers), "layers")
    heads = pick(selection.heads, max(header.heads), "heads")
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
        return _seen_from(recording, definition, reference, within)
    name = "r2g" if direction is Direction.REFERENCE_TO_GENERATED else "g2r"
    maps, seen = _table(recording, f"{definition.value}.{name}.{reference}", by_head)
    # One axis of the two, steps and heads, is averaged already.
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
    grid = _side(recording, direction, reference).grid
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


def _table(recording: Recording, name: str, by_head: bool) -> tuple[Tensor, Tensor]:
    """The maps of a name, (batch, steps, layers, heads, cells), and which of them were seen.

    Either the heads are one, their mean, or the steps are.
    """
    header, most = recording.header, max(recording.header.heads)
    if by_head:
        maps = recording.arrays[f"{name}.layer_head"].flatten(3).unsqueeze(1)
        has_head = [[head < count for head in range(most)] for count in header.heads]
        return maps, torch.tensor(has_head).unsqueeze(0)
    maps = recording.arrays[f"{name}.step_layer"].flatten(3).unsqueeze(3)
    return maps, (torch.tensor(header.counts) > 0).unsqueeze(2)


def _layer_grids(header: Header, direction: Direction, grid: Grid) -> tuple[Grid, ...]:
    """The grid each layer has over one side. Only a result that looks at itself has several over
    the reference: what a model is given comes as the same tokens to all of its layers."""
    if direction is Direction.REFERENCE_TO_GENERATED or header.plan.within:
        return header.layer_grids
    return (grid,) * len(header.layers)


def _layer_factors(
    maps: Tensor, seen: Tensor, grids: tuple[Grid, ...], layers: list[int], weight: LayerWeight
) -> Tensor:
    """What each layer's maps are multiplied by: (batch or 1, 1, layers, 1, 1)."""
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
    """The correspondence is a mean of all layers as they are, which is not every weighting."""
    grids = _layer_grids(header, Direction.GENERATED_TO_REFERENCE, over)
    as_recorded = selection.weight is LayerWeight.MASS or (
        definition is Definition.PAPER
        if selection.weight is LayerWeight.EQUAL
        else len(set(grids)) == 1
    )
    if not as_recorded or (selection.order is Order.OFFICIAL and len(set(grids)) > 1):
        raise I2AMError(
            "What a mask looked at is kept as the mean of all layers by mass alone. Choose "
            f"layer_weight mass instead of {selection.weight.value}, without a preset, or do "
            "without the mask."
        )


def _of_frames(
    values: Tensor, labels: tuple[str, ...], frame: int
) -> tuple[Tensor, tuple[str, ...]]:
    """The maps of one or every frame, or their mean: (batch, maps, frames, h, w) to (…, h, w).

    What a video's map adds up to is kept by the mean over its frames.
    """
    frames = values.shape[2]
    if frame == MEAN_FRAME:
        return values.sum(2), labels
    values = values * frames
    if frame == EVERY_FRAME:
        names = [f"frame {number}" for number in range(frames)]
        if len(labels) > 1:
            names = [f"{label}, {name}" for label in labels for name in names]
        return values.flatten(1, 2), tuple(names)
    if not 0 <= frame < frames:
        raise I2AMError(
            f"Frame {frame} does not exist: the latent has {frames}, numbered from 0. "
            f"Choose 0 to {frames - 1}, {MEAN_FRAME} for their mean or {EVERY_FRAME} for each."
        )
    return values[:, :, frame], labels


@dataclass(frozen=True)
class Pairs:
    """Which place of the result looked at which place of a reference, pooled.

    values: (batch, result cells, reference cells), mean over heads, layers and steps. Each row of
    the paper's definition sums to one, of the model's to its share. result, reference: the grids.
    """

    values: Tensor
    result: Grid
    reference: Grid

    @property
    def looks(self) -> Tensor:
        """Each row as a distribution over the reference: (batch, result cells, reference cells).

        A place that gave the reference no attention at all has a row of zeros.
        """
        total = self.values.sum(-1, keepdim=True)
        return torch.where(total > 0, self.values / total, 0)


def pairs_of(recording: Recording, definition: Definition, reference: int) -> Pairs:
    """The correspondence of a recording. Raises I2AMError if it was not recorded."""
    kind = "" if definition is Definition.PAPER else "model."
    values = recording.arrays.get(f"correspondence.{kind}{reference}")
    if values is None:
        raise I2AMError(
            "This needs the correspondence, which was not recorded. Turn it on in Capture "
            "Attention."
        )
    result = recording.header.generated.grid.one_frame
    over = recording.header.references[reference].grid.one_frame
    return Pairs(
        values.flatten(3).flatten(1, 2),
        result.with_cells(*values.shape[1:3]),
        over.with_cells(*values.shape[3:]),
    )


def _seen_from(
    recording: Recording, definition: Definition, reference: int, within: Tensor
) -> AttributionMap:
    """G2R of the places inside a mask: the mean of their rows of the correspondence."""
    pairs = pairs_of(recording, definition, reference)
    inside = coverage(within, pairs.result)  # (1 or batch, cells)
    if not bool((inside.sum(1) > 0).all()):
        raise I2AMError("The mask over the result is empty. Paint where the reference was meant.")
    weights = inside / inside.sum(1, keepdim=True)
    values = (weights.unsqueeze(1) @ pairs.values).squeeze(1)
    return AttributionMap(
        values.reshape(-1, 1, *pairs.reference.sides),
        ("unified",),
        pairs.reference,
        definition,
        Direction.GENERATED_TO_REFERENCE,
        Level.UNIFIED,
    )


def coverage(mask: Tensor, grid: Grid) -> Tensor:
    """How much of each cell a mask over the picture covers, 0 to 1: (batch, area)."""
    pixels = Grid(mask.shape[-2], mask.shape[-1])
    area = spread(mask.new_full((pixels.area,), 1.0), pixels, grid)
    return spread(mask.float().flatten(1), pixels, grid) / area


def _mean(
    maps: Tensor,
    seen: Tensor,
    grids: tuple[Grid, ...],
    grid: Grid,
    order: Order,
    steps: list[int],
    layers: list[int],
    heads: list[int],
) -> Tensor:
    """Mean of `_table`'s maps over the entries that were seen, (batch, …); the others are zero."""
    count = seen[steps][:, layers][:, :, heads].sum().clamp(min=1)
    some = maps[:, steps][:, :, layers][:, :, :, heads].sum(1)  # (batch, layers, heads, cells)
    if order is Order.OFFICIAL:
        for number, layer in enumerate(layers):
            own = map_grid(grids[layer])
            if own != grid:
                values = unspread(some[:, number], grid, own) * (own.area / grid.area)
                some[:, number] = resample_cells(values, own, grid).clamp(min=0)
    return (some.sum((1, 2)) / count).reshape(-1, *grid.shape)


def _split(numbers: list[int], groups: int) -> list[list[int]]:
    """Into so many groups in order, the first of them one longer where it does not come out."""
    shorter, longer = divmod(len(numbers), groups)
    sizes = [shorter + 1] * longer + [shorter] * (groups - longer)
    starts = [sum(sizes[:group]) for group in range(groups)]
    return [numbers[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def _steps_name(steps: tuple[int, ...], rows: list[int]) -> str:
    first, last = steps[rows[0]], steps[rows[-1]]
    return f"step {first}" if first == last else f"steps {first}-{last}"
