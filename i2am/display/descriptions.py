"""Map → full sentences: what it shows, what it is a mean of, what numbers and colours mean."""

from __future__ import annotations

from ..maps import (
    AttributionMap,
    Correspondence,
    LayerWeight,
    Level,
    ResampleOrder,
    Selection,
    is_share,
)
from ..recording import (
    DEFINITIONS,
    Definition,
    Direction,
    Header,
)
from .render import Scale

_WEIGHTS = {
    LayerWeight.MASS: "each layer counts by the attention it gave",
    LayerWeight.VALUE: "each layer counts by its attention per token, so coarse layers count most",
    LayerWeight.EQUAL: "each layer counts the same",
}
_SCALES = {
    Scale.PER_MAP: "each map's lowest value to its highest",
    Scale.SHARED: "the lowest value of all maps to the highest",
    Scale.ABSOLUTE: "zero to a fixed end, the same for every run",
    Scale.PAPER: "min-max before and after resizing; values up to 0.4 count as nothing",
    Scale.PAPER_COMPLEMENT: "one minus the map after min-max before and after resizing; "
    "values up to 0.4 count as nothing",
}


def describe(
    map: AttributionMap, header: Header, reference: int, selection: Selection, scale: Scale
) -> str:
    """A map → text: what it is a mean of, and what its numbers and colours mean."""
    arrow = "r2g" if map.direction is Direction.REFERENCE_TO_GENERATED else "g2r"
    side = "result" if map.direction is Direction.REFERENCE_TO_GENERATED else "reference"
    definition = DEFINITIONS[f"{map.definition.value}.{arrow}"]
    which = [
        f"{name} {text.strip() or 'all'}"
        for name, text in (
            *(("steps", selection.steps), ("layers", selection.layers)),
            ("heads", selection.heads),
        )
    ]
    many = "" if map.level is Level.UNIFIED else f", {len(map.labels)} maps"
    lines = [
        f"{map.direction.value.capitalize()} (over the {side}), reference {reference + 1}, "
        f"{map.definition.value} definition: {definition}.",
        f"Level {map.level.value}{many}: mean over {', '.join(which)}, of "
        f"{_steps(header)} and {len(header.layers)} layers recorded; "
        f"{_WEIGHTS[map.weight]}.",
    ]
    if map.order is ResampleOrder.OFFICIAL:
        resized = len(set(header.layer_grids)) > 1
        lines.append(
            "Official order: summed over steps, resized by bicubic, nothing below zero, then "
            + (
                "averaged. Reference tokens are averaged before resizing and not after, which "
                "differs where bicubic goes below zero."
                if resized
                else "averaged. All layers have one grid, so nothing had to be resized."
            )
        )
    if map.notes:
        lines.append(f"Also: {'; '.join(map.notes)}.")
    lines.append(_colours(map, scale))
    return "\n".join(lines)


_LOOKS = {
    (Definition.PAPER, Direction.GENERATED_TO_REFERENCE): "the picked point's "
    "softmax over the reference's tokens (SRAM)",
    (Definition.MODEL, Direction.GENERATED_TO_REFERENCE): "the model's own "
    "attention of the picked point",
    (Definition.PAPER, Direction.REFERENCE_TO_GENERATED): "of the attention each place of the "
    "result gives this reference, the part that goes to the picked point",
    (Definition.MODEL, Direction.REFERENCE_TO_GENERATED): "of all the attention of each place "
    "of the result, the part that goes to the picked point",
    (Definition.EFFECT, Direction.GENERATED_TO_REFERENCE): "how far the output of attention moves "
    "at the picked point with each place of the reference left out, squared",
    (Definition.EFFECT, Direction.REFERENCE_TO_GENERATED): "how far the output of attention moves "
    "at each place of the result with the picked point left out, squared",
}
_COLUMN = "softmax over the result's places for the picked point (SRAM the other way round)"


def describe_point(
    map: AttributionMap, reference: int, made_of: str, scale: Scale, *, exact: bool
) -> str:
    """A point map → text: what it shows, what it was made from, what numbers and colours mean."""
    side = "result" if map.direction is Direction.REFERENCE_TO_GENERATED else "reference"
    shown = map.definition, map.direction
    paper_column = (Definition.PAPER, Direction.REFERENCE_TO_GENERATED)
    what = _COLUMN if exact and shown == paper_column else _LOOKS[shown]
    return "\n".join(
        (
            f"Over the {side}, reference {reference + 1}, {map.definition.value} definition: "
            f"{what} ({'; '.join(map.notes)}).",
            made_of,
            _colours(map, scale),
        )
    )


def describe_pooled(pairs: Correspondence, header: Header) -> str:
    """A sentence: the map was made from the correspondence, and what that is a mean of."""
    result, over = (
        "×".join(str(n) for n in grid.sides) for grid in (pairs.result, pairs.reference)
    )
    return (
        f"From the correspondence, pooled to {result} places of the result and {over} of the "
        f"reference: mean over all {_steps(header)}, {len(header.layers)} layers and "
        "all heads recorded."
    )


def describe_exact(map: AttributionMap, header: Header, selection: Selection) -> str:
    """A sentence: the map is exact, of a point named before sampling, and what it is a mean of."""
    grid = "×".join(str(n) for n in map.grid.sides)
    steps, layers = (text.strip() or "all" for text in (selection.steps, selection.layers))
    return (
        f"Exact, since this point was named before sampling, at {grid} tokens: mean over steps "
        f"{steps} and layers {layers}, of {_steps(header)} and {len(header.layers)} "
        "layers recorded, and over all heads."
    )


def _steps(header: Header) -> str:
    """How many steps there are, and what they are in a picture that was probed."""
    return f"{len(header.steps)} {'probed noise levels' if header.run.probed else 'steps'}"


def _colours(map: AttributionMap, scale: Scale) -> str:
    unit = "percent of a place's attention" if is_share(map) else "times an even spread"
    if scale in (Scale.PAPER, Scale.PAPER_COMPLEMENT):
        unit = "fractions of the map's own range"
    return f"Numbers: {unit}. Colours: {_SCALES[scale]}."
