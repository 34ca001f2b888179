"""Running sums, log and points of a run → its frozen `Recording`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from einops import rearrange
from torch import Tensor

from ..errors import I2AMError
from ..tokens import Grid, Picture, mean_over_cells, spread
from ..tokens.architectures.base import Layer
from .definitions import Definition, number_of
from .plan import Plan
from .point_sums import PointSums
from .recording import Header, Recording, Run, correspondence_name
from .run_log import RunLog
from .running_sums import LayerMaps, RunningSums, kind_of
from .word_sums import WordSums


def freeze(
    sums: RunningSums,
    log: RunLog,
    points: PointSums | None,
    words: WordSums | None,
    header: Header,
    rows: list[int],
) -> Recording:
    """The sums of a run → its recording. rows: the recorded steps' rows in the log.

    Raises I2AMError if the model's attention held values that are not numbers.
    """
    arrays = map_arrays(sums, rows, header.layers, header.plan.recorded)
    arrays |= correspondence_arrays(sums, header.plan.recorded)
    if points is not None:
        arrays |= points.arrays(rows, header.layers, header.plan.recorded)
    if words is not None and words.prompts:
        arrays |= words.arrays(rows, header.layers)
    if not all(bool(array.isfinite().all()) for array in arrays.values()):
        raise I2AMError(
            "The model's attention held values that are not numbers, so there is no map. "
            "Sample in a precision the model can bear (fp32 or bf16 instead of fp16)."
        )
    return Recording(header, arrays)


def header_of(
    run: Run,
    plan: Plan,
    architecture: str,
    asked: tuple[Layer, ...],
    sums: RunningSums,
    log: RunLog,
    points: PointSums | None,
    words: WordSums | None,
    rows: list[int],
    references: tuple[Picture, ...],
    seconds: float,
) -> Header:
    """The facts of a run → the header of its recording.

    asked: the layers the plan asks for. rows: the recorded steps' rows in the log. references: what
    the model was given, on the grids of its tokens.
    """
    layers = tuple(layer for layer in asked if layer in sums.generated)
    grid, reference_grids = picture_grids(sums, layers)
    return Header(
        run=run,
        plan=plan,
        architecture=architecture,
        joint=log.joint,
        steps=tuple(log.steps[row][0] for row in rows),
        sigmas=tuple(log.steps[row][1] for row in rows),
        layers=layers,
        layer_grids=tuple(sums.token_grids[layer] for layer in layers),
        heads=tuple(sums.generated[layer].heads.shape[1] for layer in layers),
        counts=tuple(tuple(log.counts[row].get(layer, 0) for layer in layers) for row in rows),
        generated=Picture(grid, run.latent, "result"),
        references=tuple(
            Picture(over, given.latent, given.kind)
            for over, given in zip(reference_grids, references, strict=True)
        ),
        evaluations=log.recorded,
        expected_evaluations=log.expected,
        # Without references, layers without text have nothing to record.
        expected_layers=len(asked) if references else len(layers),
        seconds=seconds,
        keys=log.keys,
        ways=dict(log.ways),
        token_grids=() if points is None else points.grids(),
        step_groups=() if points is None else points.groups(rows),
        prompts=() if words is None else tuple(prompt.tokens for prompt in words.prompts),
        word_groups=() if words is None or not words.prompts else words.groups(rows),
        words_apart=words is not None and words.apart,
    )


def finest_grid(grids: Iterable[Grid]) -> Grid:
    """The grid with the most cells."""
    return max(grids, key=lambda grid: grid.area)


def picture_grids(sums: RunningSums, layers: tuple[Layer, ...]) -> tuple[Grid, list[Grid]]:
    """The finest grid of any layer: over the result, and over each reference."""
    over_references = [
        finest_grid(sums.references[layer][r].grid for layer in layers)
        for r in range(sums.reference_count)
    ]
    return finest_grid(sums.generated[layer].grid for layer in layers), over_references


def map_arrays(
    sums: RunningSums,
    steps: list[int],
    layers: tuple[Layer, ...],
    definitions: tuple[Definition, ...],
) -> dict[str, Tensor]:
    """Running sums → the maps of all definitions and directions, and the shares, on one grid."""
    grid, reference_grids = picture_grids(sums, layers)
    generated = [sums.generated[layer] for layer in layers]
    count = sums.reference_count
    step_layer, layer_head = _stack_layers(steps, generated, grid)
    arrays: dict[str, Tensor] = {}
    for r in range(count):
        over_reference = [sums.references[layer][r] for layer in layers]
        stacked = _stack_layers(steps, over_reference, reference_grids[r])
        for definition in definitions:
            number = number_of(definition)
            kind = kind_of(definition, count) + r
            for name, over_result, maps in zip(
                ("step_layer", "layer_head"), (step_layer, layer_head), stacked, strict=True
            ):
                arrays[f"{definition.value}.r2g.{r}.{name}"] = over_result[:, :, :, kind]
                arrays[f"{definition.value}.g2r.{r}.{name}"] = maps[:, :, :, number]
    shares = slice(0, 2 + count)  # text, self, each reference
    arrays["share.step_layer"] = step_layer[:, :, :, shares].flatten(4).sum(-1)
    arrays["share.map"] = _mean_map(generated, grid, shares)
    if Definition.EFFECT in definitions:
        output = slice(2 + 3 * count, 3 + 3 * count)
        arrays["output.step_layer"] = step_layer[:, :, :, output].flatten(3).sum(-1)
        arrays["output.map"] = _mean_map(generated, grid, output)[:, 0]
    return {name: array.contiguous() for name, array in arrays.items()}


def correspondence_arrays(
    sums: RunningSums, definitions: tuple[Definition, ...]
) -> dict[str, Tensor]:
    """Running sums → the correspondence of each reference, with all layers on the finest grid."""
    arrays: dict[str, Tensor] = {}
    for r in range(sums.reference_count) if sums.correspondence else ():
        pairs = {key[1:]: running for key, running in sums.correspondence.items() if key[0] == r}
        rows = finest_grid(pair[0] for pair in pairs)
        columns = finest_grid(pair[1] for pair in pairs)
        total = torch.zeros(())
        for (result, reference), running in pairs.items():
            match = spread(running.mean, reference, columns)
            total = total + len(running.layers) * mean_over_cells(match, result, rows)
        mean = total / sum(len(running.layers) for running in pairs.values())
        by_definition = rearrange(
            mean,
            "b definition (hg wg) (hr wr) -> definition b hg wg hr wr",
            hg=rows.height,
            hr=columns.height,
        )
        for definition in definitions:
            values = by_definition[number_of(definition)]
            arrays[correspondence_name(definition, r)] = values.contiguous()
    return arrays


def _mean_map(generated: list[LayerMaps], grid: Grid, kinds: slice) -> Tensor:
    """Maps of some kinds, mean over layers, heads, steps and a cell's tokens: (B, kinds, h, w)."""
    total = torch.zeros(())
    for side in generated:
        mean = side.heads[:, :, kinds].mean(1)
        even = mean.new_full((side.grid.area,), 1 / side.grid.area)
        total = total + spread(mean, side.grid, grid) / spread(even, side.grid, grid)
    mean = total / len(generated)
    return mean.reshape(*mean.shape[:-1], *grid.shape)


def _stack_layers(steps: list[int], sides: list[LayerMaps], grid: Grid) -> tuple[Tensor, Tensor]:
    """The maps of layers → on one grid: (B, S, L, kinds, h, w) and (B, L, H, kinds, h, w).

    A video has its frames before h, w. Steps in which a layer was not recorded, and heads it does
    not have, are zero.
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
