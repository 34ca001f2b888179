"""A recording's `Header` ↔ the metadata of its .safetensors file, checked field by field.

The metadata consists of two strings. `format` names the format and its version. `i2am` is the
header as JSON, with the scale of each array (`scales`) and its meaning (`definitions`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..tokens import RESULT, Grid, Picture, PointQuery, check_point_count
from ..tokens.architectures.base import Layer
from .plan import Plan
from .recording import Header, Run, definitions_of, map_grid

FORMAT = "i2am.attribution/1"
MAX_PICTURE_SIDE = 32768
MAX_LATENT_SIDE = MAX_PICTURE_SIDE // 8
MAX_FRAMES = 4096  # in a latent
MAX_HEADER = 16 * 2**20  # characters; hundreds of layers and steps take less than one million
_MAX_LENGTH = 10_000  # for any axis of an array except its cells
_MAX_CALLS = 10_000_000  # for one layer in one step

# What can be raised when arbitrary JSON is read as a header.
_NOT_A_HEADER = (
    *(LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError),
)


class FormatError(ValueError):
    """How a file breaks the format, as a clause: “it lacks …”."""


def metadata_of(header: Header, scales: Mapping[str, float]) -> dict[str, str]:
    """Header → the metadata of a file. scales: the number each written array was divided by."""
    values = asdict(header) | {"scales": scales, "definitions": definitions_of(header.plan)}
    return {"format": FORMAT, "i2am": json.dumps(values)}


def read_metadata(metadata: Mapping[str, str]) -> tuple[Header, dict[str, float]]:
    """A file's metadata → its header and scales. Raises FormatError."""
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "unknown")[:40]
        raise FormatError(f"its format is “{found}”, not “{FORMAT}”")
    if len(metadata.get("i2am", "")) > MAX_HEADER:
        raise FormatError("its header is longer than any recording's")
    try:
        values = json.loads(metadata["i2am"])
        scales = {str(name): float(scale) for name, scale in values["scales"].items()}
        if not all(0 < scale < math.inf for scale in scales.values()):
            raise ValueError("a scale is not a positive number")
        header = _header(values)
        _check_counts(header)
        _check_points(header)
        _check_pictures(header)
    except _NOT_A_HEADER as error:
        raise FormatError(f"its header cannot be read ({type(error).__name__}: {error})") from None
    return header, scales


def _header(values: dict[str, Any]) -> Header:
    """JSON → header. Fields that older files lack get their defaults."""
    return Header(
        run=_run(values["run"]),
        plan=_plan(values["plan"]),
        architecture=str(values["architecture"]),
        joint=bool(values["joint"]),
        steps=tuple(int(step) for step in values["steps"]),
        sigmas=tuple(_finite(sigma) for sigma in values["sigmas"]),
        layers=tuple(
            Layer(str(layer["block"]), int(layer["index"]), int(layer["sub"]))
            for layer in values["layers"]
        ),
        layer_grids=tuple(_grid(grid) for grid in values["layer_grids"]),
        heads=tuple(int(count) for count in values["heads"]),
        counts=tuple(tuple(int(count) for count in row) for row in values["counts"]),
        generated=_picture(values["generated"]),
        references=tuple(_picture(picture) for picture in values["references"]),
        evaluations=int(values["evaluations"]),
        expected_evaluations=int(values["expected_evaluations"]),
        expected_layers=int(values["expected_layers"]),
        seconds=_finite(values["seconds"]),
        keys=tuple(int(count) for count in values.get("keys", ())),
        ways={str(way): int(calls) for way, calls in values.get("ways", {}).items()},
        token_grids=tuple(_grid(grid) for grid in values.get("token_grids", ())),
        step_groups=tuple(int(group) for group in values.get("step_groups", ())),
        prompts=tuple(int(tokens) for tokens in values.get("prompts", ())),
        word_groups=tuple(int(group) for group in values.get("word_groups", ())),
        words_apart=bool(values.get("words_apart", False)),
    )


def _run(values: dict[str, Any]) -> Run:
    return Run(
        model=str(values["model"]),
        batch=int(values["batch"]),
        seed=None if values["seed"] is None else int(values["seed"]),
        schedule=tuple(_finite(sigma) for sigma in values["schedule"]),
        latent=_pair(values["latent"]),
        versions={str(name): str(version) for name, version in values["versions"].items()},
        steering=tuple(str(text) for text in values.get("steering", ())),
        probed=bool(values.get("probed", False)),
    )


def _plan(values: dict[str, Any]) -> Plan:
    return Plan(
        layers=tuple(_pair(pair) for pair in values["layers"]),
        steps=tuple(_pair(pair) for pair in values["steps"]),
        branch=str(values["branch"]),
        correspondence=bool(values["correspondence"]),
        within=bool(values.get("within", False)),
        budget=str(values.get("budget", "exact")),
        places=tuple(_point(point) for point in values.get("places", ())),
        definitions=str(values.get("definitions", "both")),
        words=bool(values.get("words", False)),
    )


def _point(values: dict[str, Any]) -> PointQuery:
    edges = [_finite(values[edge]) for edge in ("left", "top", "right", "bottom")]
    if not all(0 <= edge <= 1 for edge in edges):
        raise ValueError("a point lies outside its picture")
    return PointQuery(max(RESULT, int(values["reference"])), *edges)


def _picture(values: dict[str, Any]) -> Picture:
    return Picture(_grid(values["grid"]), _pair(values["latent"]), str(values["kind"]))


def _grid(values: dict[str, Any]) -> Grid:
    down, across = values["covered"]
    covered = float(down), float(across)
    return Grid(int(values["height"]), int(values["width"]), covered, int(values.get("frames", 1)))


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def _finite(value: Any) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError("a number is not finite")
    return number


def _check_counts(header: Header) -> None:
    """Raises ValueError unless there is one value for each step, layer and reference."""
    steps, layers = len(header.steps), len(header.layers)
    lengths = (header.run.batch, steps, layers, *header.heads, *header.prompts)
    # There is nothing to see without a reference, unless there are words.
    lengths = (*lengths, len(header.references) or len(header.prompts))
    if not all(0 < length < _MAX_LENGTH for length in lengths):
        raise ValueError(
            "the number of pictures, steps, layers, heads or references is out of range"
        )
    if len(header.sigmas) != steps:
        raise ValueError(f"{len(header.sigmas)} noise levels for {steps} steps")
    if len(header.heads) != layers or len(header.layer_grids) != layers:
        raise ValueError(
            f"{len(header.heads)} head counts and {len(header.layer_grids)} grids "
            f"for {layers} layers"
        )
    if len(header.counts) != steps or any(len(row) != layers for row in header.counts):
        raise ValueError("the call counts are not one for each step and layer")
    if header.keys and (len(header.keys) != 2 + len(header.references) or min(header.keys) < 0):
        raise ValueError("the key counts are not one for text, result and each reference")
    counts = [count for row in header.counts for count in row]
    if not any(counts) or not all(0 <= count < _MAX_CALLS for count in counts):
        raise ValueError("a call count is out of range")


def _check_points(header: Header) -> None:
    """Raises ValueError unless grids and groups of steps fit the plan's point queries."""
    check_point_count(header.plan.places)
    has_points, groups = bool(header.plan.places), header.step_groups
    if len(header.token_grids) != has_points * (1 + len(header.references)):
        raise ValueError("the token grids are not one for the result and each reference")
    if len(groups) != has_points * len(header.steps):
        raise ValueError("the step groups are not one for each step")
    if len(header.word_groups) != bool(header.prompts) * len(header.steps):
        raise ValueError("the step groups of words are not one for each step")
    for numbers in (groups, header.word_groups):
        if list(numbers) != sorted(numbers) or set(numbers) != set(range(len(set(numbers)))):
            raise ValueError("the step groups are not numbered in order")


def _check_pictures(header: Header) -> None:
    """Raises ValueError for a grid or latent that is larger than any recorded one."""
    for picture in (header.generated, *header.references):
        if picture.grid.frames > MAX_FRAMES or picture.grid != map_grid(picture.grid):
            raise ValueError("a map has more cells than are ever kept")
        if picture.latent != (0, 0) and not all(0 < n <= MAX_LATENT_SIDE for n in picture.latent):
            raise ValueError("the size of a latent is out of range")
