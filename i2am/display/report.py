"""Recording → words and numbers: what was recorded, of what, and how completely."""

from __future__ import annotations

from typing import Any

from ..attention import SCRATCH_BYTES
from ..maps import (
    SINK_LEVEL,
    SINK_PART,
    AttributionMap,
    Correspondence,
    LayerWeight,
    Level,
    ResampleOrder,
    Selection,
    correspondence_of,
    find_sinks,
    is_share,
    mean_shares,
    recording_coverage,
    sink_mass,
)
from ..recording import (
    BUDGETS,
    DEFINITIONS,
    Definition,
    Direction,
    Header,
    Recording,
    best_definition,
    planned_steps,
)
from ..tokens import RESULT
from .render import Scale


def recording_summary(recording: Recording) -> dict[str, Any]:
    """The recording in plain values, fit for JSON."""
    header = recording.header
    return {
        "model": header.run.model,
        "architecture": header.architecture,
        "seed": header.run.seed,
        "batch": header.run.batch,
        "branch": header.plan.branch,
        "budget": header.plan.budget,
        "steps": len(header.steps),
        "share": mean_shares(recording),
        "coverage": recording_coverage(recording),
        "sampling_seconds": header.seconds,
        "mebibytes": recording.bytes / 2**20,
        "definition": best_definition(recording).value,
        "versions": dict(header.run.versions),
    }


def _plan_line(header: Header) -> str:
    """What was planned, before anything was seen."""
    plan, steps = header.plan, len(header.run.schedule) - 1
    scratch = SCRATCH_BYTES // 2**20
    side = BUDGETS[plan.budget].side
    thin = f", one of {side}×{side} places of large results" if side > 1 else ""
    return (
        f"Planned ({plan.budget}): {len(planned_steps(plan, steps))} of {steps} steps, "
        f"{header.expected_layers} layers{thin}, at most {scratch} MiB of working memory"
    )


def recording_report(recording: Recording) -> str:
    """The recording in an artist's words."""
    header, mean = recording.header, mean_shares(recording)
    frames = header.generated.grid.frames
    made = "pictures" if header.run.batch > 1 else "picture"
    if frames > 1:
        made += f" of {frames} latent frames"
    lines = [
        f"{header.run.model} ({header.architecture}), seed {header.run.seed}, "
        f"{header.run.batch} {made}, "
        f"{header.plan.branch} branch",
        _coverage_line(recording),
        _plan_line(header),
        "Share of the model's attention, mean over the result, all recorded layers and steps:",
        f"  text {mean['text']:.1%} · the picture itself {mean['self']:.1%}",
    ]
    for number, (share, picture) in enumerate(
        zip(mean["references"], header.references, strict=True), start=1
    ):
        grid = "×".join(map(str, picture.grid.shape))
        cells = f"{grid} cells" if picture.has_places else "no map over it"
        lines.append(f"  reference {number} {share:.1%} ({picture.kind}, {cells})")
    lines += [f"Steered while it was sampled: {text}" for text in header.run.steering]
    lines += _place_lines(recording)
    return "\n".join(lines + _warnings(recording) + _sink_lines(recording))


def support_lines(recording: Recording) -> list[str]:
    """What helps others to help: of which model, and how completely. No seed, picture or word."""
    header = recording.header
    references = [
        f"{picture.kind} {'×'.join(map(str, picture.grid.shape))}" for picture in header.references
    ]
    result = "×".join(map(str, header.generated.grid.shape))
    lines = [
        f"Model: {header.run.model} ({header.architecture}), {header.run.batch} × {result} cells, "
        f"{header.plan.branch} branch; references: {', '.join(references)}",
        _coverage_line(recording),
        _plan_line(header),
    ]
    steered = ["The model's attention was steered."] if header.run.steering else []
    found = [*_warnings(recording), *steered]
    return [*lines, *(f"Warning: {warning}" for warning in found or ["none"])]


def _coverage_line(recording: Recording) -> str:
    header, found = recording.header, recording_coverage(recording)
    return (
        f"Recorded {found['evaluations']} of {found['expected_evaluations']} model evaluations in "
        f"{len(header.steps)} steps, {found['layers']} of {found['expected_layers']} layers, up to "
        f"{max(header.heads)} heads; {recording.bytes / 2**20:.1f} MiB"
    )


def _warnings(recording: Recording) -> list[str]:
    """What was planned and not seen."""
    found, warnings = recording_coverage(recording), list[str]()
    if found["evaluations"] < found["expected_evaluations"]:
        warnings.append("Some evaluations were not seen: another node skips or replaces them.")
    if found["layers"] < found["expected_layers"]:
        warnings.append("Some layers were not seen: another node replaces their attention.")
    return warnings


_WEIGHTS = {
    LayerWeight.MASS: "each layer counts by the attention it gave",
    LayerWeight.VALUE: "each layer counts by its attention per token, so coarse layers count most",
    LayerWeight.EQUAL: "each layer counts the same",
}
_SCALES = {
    Scale.PER_MAP: "each map's lowest value to its highest",
    Scale.SHARED: "the lowest value of all maps to the highest",
    Scale.ABSOLUTE: "nothing to a fixed end, the same for every run",
    Scale.PAPER: "min-max before and after resizing; what is not above 0.4 counts as nothing",
    Scale.PAPER_COMPLEMENT: "one minus the map after min-max before and after resizing; what is "
    "not above 0.4 counts as nothing",
}


def describe(
    map: AttributionMap, header: Header, reference: int, selection: Selection, scale: Scale
) -> str:
    """What a map is a mean of and what its numbers and colours mean, in full sentences."""
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
        f"{len(header.steps)} steps and {len(header.layers)} layers recorded; "
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
    (Definition.PAPER, Direction.GENERATED_TO_REFERENCE): "softmax over the reference's tokens of "
    "what was asked about, its SRAM",
    (Definition.MODEL, Direction.GENERATED_TO_REFERENCE): "the model's own attention of what was "
    "asked about",
    (Definition.PAPER, Direction.REFERENCE_TO_GENERATED): "of what each place of the result gives "
    "this reference, the part that goes to what was asked about",
    (Definition.MODEL, Direction.REFERENCE_TO_GENERATED): "of all its attention, the part that "
    "each place of the result gives to what was asked about",
}
_COLUMN = "softmax over the result's places of what was asked about, its SRAM the other way round"


def describe_point(
    map: AttributionMap, reference: int, made_of: str, scale: Scale, *, exact: bool
) -> str:
    """What a point's map shows, of what it was made, and what its numbers and colours mean."""
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
    """That a map is made of the correspondence, and of what that is a mean."""
    result, over = (
        "×".join(str(n) for n in grid.sides) for grid in (pairs.result, pairs.reference)
    )
    return (
        f"From the correspondence, pooled to {result} places of the result and {over} of the "
        f"reference: mean over all {len(header.steps)} steps, {len(header.layers)} layers and "
        "all heads recorded."
    )


def describe_exact(map: AttributionMap, header: Header, selection: Selection) -> str:
    """That a map is made of a place asked about before sampling, and of what it is a mean."""
    grid = "×".join(str(n) for n in map.grid.sides)
    steps, layers = (text.strip() or "all" for text in (selection.steps, selection.layers))
    return (
        f"Exact, as this place was asked about before sampling, at {grid} tokens: mean over steps "
        f"{steps} and layers {layers}, of {len(header.steps)} steps and {len(header.layers)} "
        "layers recorded, and over all heads."
    )


def _colours(map: AttributionMap, scale: Scale) -> str:
    unit = "the part of a place's attention, in %" if is_share(map) else "× an even spread"
    if scale in (Scale.PAPER, Scale.PAPER_COMPLEMENT):
        unit = "parts of the map's own range"
    return f"Numbers: {unit}. Colours: {_SCALES[scale]}."


def _place_lines(recording: Recording) -> list[str]:
    """What was asked about before sampling, and how it was kept."""
    header = recording.header
    places = header.plan.places
    if not places:
        return []
    size = sum(4 * a.numel() for name, a in recording.arrays.items() if name.startswith("point."))
    together = max(header.step_groups.count(group) for group in header.step_groups)
    steps = "each step by itself" if together == 1 else f"up to {together} steps together"
    lines = [f"Exact places, {steps}, {size / 2**20:.1f} MiB:"]
    for reference in range(RESULT, max(place.reference for place in places) + 1):
        mine = "; ".join(place.name for place in places if place.reference == reference)
        whose = "result" if reference == RESULT else f"reference {reference + 1}"
        if mine and reference < len(header.references):
            lines.append(f"  {whose}: {mine}")
        elif mine:
            lines.append(f"  {whose}: {mine} not recorded, the model was given no such reference")
    return lines


def _sink_lines(recording: Recording) -> list[str]:
    """One line for each reference of which some places are looked at from everywhere."""
    lines: list[str] = []
    for number, picture in enumerate(recording.header.references):
        if not recording.header.plan.correspondence or not picture.has_places:
            continue
        pairs = correspondence_of(recording, best_definition(recording), number)
        found = find_sinks(pairs)
        if not bool(found.any()):
            continue
        counts = ", ".join(str(int(count)) for count in found.sum(-1))
        parts = ", ".join(f"{float(part):.0%}" for part in sink_mass(pairs, found))
        lines.append(
            f"Sinks: {counts} of {pairs.reference.area} places of reference {number + 1} get "
            f"{SINK_LEVEL:g} times an even spread or more from {SINK_PART:.0%} of the result, "
            f"whatever it shows there: {parts} of what the reference gets."
        )
    return lines
