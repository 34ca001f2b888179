"""The file format `i2am.attribution/1`: one .safetensors file, arrays and a JSON header.

Nothing in a file is executed and no path in it is used. What does not have exactly the shapes its
own header implies is refused.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..attention import CORRESPONDENCE_SIDE
from ..errors import I2AMError
from ..tokens import RESULT, Grid, Picture, PointQuery, check_point_count
from ..tokens.architectures.base import Layer
from .attribution import Attribution, fits_reference, fits_results
from .plan import Plan
from .recording import DEFINITIONS, Header, Recording, Run, map_grid

FORMAT = "i2am.attribution/1"
MAX_PICTURE_SIDE = 32768
MAX_LATENT_SIDE = MAX_PICTURE_SIDE // 8
MAX_FRAMES = 4096  # of a latent
MAX_BYTES = 16 * 2**30  # of all arrays and pictures, as float32 in memory
MAX_HEADER = 16 * 2**20  # characters; of hundreds of layers and steps it is not one million
_TOO_LARGE = "it would take more memory than any recording"


# What reading JSON of any shape as a header can raise.
_NO_HEADER = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)


def save_attribution(path: Path, attribution: Attribution) -> None:
    """Write an attribution, pictures included; all of it or nothing.

    Maps are rounded to float16, each array scaled by its largest value. Raises OSError.
    """
    tensors: dict[str, Tensor] = {}
    scales: dict[str, float] = {}
    for name, array in attribution.recording.arrays.items():
        if name == "share.step_layer":
            tensors[name] = array
            continue
        scales[name] = float(array.max()) or 1.0
        tensors[name] = (array / scales[name]).half()
    if attribution.image is not None:
        tensors["image"] = _bytes(attribution.image)
    if attribution.mask is not None:
        tensors["mask"] = _bytes(attribution.mask)
    for number, picture in enumerate(attribution.references):
        if picture is not None:
            # One picture for all batch items needs no batch axis.
            tensors[f"reference.{number}"] = _bytes(picture[0] if len(picture) == 1 else picture)
    _write(path, tensors, attribution.recording.header, scales)


def save_recording(path: Path, recording: Recording) -> None:
    """Write a recording alone, exactly as it is (float32). Raises OSError."""
    _write(path, dict(recording.arrays), recording.header, {})


def load_attribution(path: Path) -> Attribution:
    """Read what `save_attribution` wrote. Raises I2AMError for anything else, OSError."""
    if path.stat().st_size > MAX_BYTES:
        raise _refused(_TOO_LARGE)
    try:
        with safe_open(path, framework="pt") as file:  # pyright: ignore[reportUnknownVariableType]
            reader = cast(Any, file)
            header, scales = _read_header(reader.metadata() or {})
            expected = _expected(header)
            pictures = _check_tensors(reader, expected, header)
            arrays = {
                name: _number(name, reader.get_tensor(name), scales.get(name, 1.0))
                for name in expected
            }
            shown = {name: reader.get_tensor(name).float() / 255 for name in pictures}
    except SafetensorError as error:
        raise _refused(f"it is not a whole .safetensors file ({error})") from None
    except (RuntimeError, MemoryError) as error:  # of torch, which could not get it
        raise I2AMError(f"There is not enough memory to load this file: {error}.") from None
    references = [shown.get(f"reference.{r}") for r in range(len(header.references))]
    return Attribution(
        Recording(header, arrays),
        shown.get("image"),
        tuple(r[None] if r is not None and r.ndim == 3 else r for r in references),
        shown.get("mask"),
    )


def load_recording(path: Path) -> Recording:
    """Read what `save_recording` wrote. Raises I2AMError for anything else, OSError."""
    return load_attribution(path).recording


def _refused(reason: str) -> I2AMError:
    return I2AMError(
        f"This file is not an attribution that can be loaded: {reason}. "
        "Choose a file written by Save Attribution."
    )


def _bytes(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()


def _write(
    path: Path, tensors: dict[str, Tensor], header: Header, scales: dict[str, float]
) -> None:
    metadata = {
        "format": FORMAT,
        "i2am": json.dumps(asdict(header) | {"scales": scales, "definitions": DEFINITIONS}),
    }
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        # Written by ourselves: save_file would leave a file that only its owner may read.
        part.write_bytes(save({name: tensor.clone() for name, tensor in tensors.items()}, metadata))
        os.replace(part, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        part.unlink(missing_ok=True)


def _read_header(metadata: Mapping[str, str]) -> tuple[Header, dict[str, float]]:
    if metadata.get("format") != FORMAT:
        raise _refused(f"its format is “{metadata.get('format', 'unknown')[:40]}”, not “{FORMAT}”")
    if len(metadata.get("i2am", "")) > MAX_HEADER:
        raise _refused("its header is longer than any recording's")
    try:
        values = json.loads(metadata["i2am"])
        scales = {str(name): float(scale) for name, scale in values["scales"].items()}
        if not all(0 < scale < math.inf for scale in scales.values()):
            raise ValueError("a scale is not a positive number")
        return _header(values), scales
    except _NO_HEADER as error:
        raise _refused(f"its header cannot be read ({type(error).__name__}: {error})") from None


def _header(values: dict[str, Any]) -> Header:
    """A Header from its JSON. Raises KeyError, TypeError or ValueError if it is not one."""
    run, plan = values["run"], values["plan"]
    header = Header(
        run=Run(
            model=str(run["model"]),
            batch=int(run["batch"]),
            seed=None if run["seed"] is None else int(run["seed"]),
            schedule=tuple(_real(sigma) for sigma in run["schedule"]),
            latent=_pair(run["latent"]),
            versions={str(name): str(version) for name, version in run["versions"].items()},
            steering=tuple(str(text) for text in run.get("steering", ())),
        ),
        plan=Plan(
            layers=tuple(_pair(pair) for pair in plan["layers"]),
            steps=tuple(_pair(pair) for pair in plan["steps"]),
            branch=str(plan["branch"]),
            correspondence=bool(plan["correspondence"]),
            within=bool(plan.get("within", False)),
            budget=str(plan.get("budget", "exact")),
            places=tuple(_asked(place) for place in plan.get("places", ())),
        ),
        architecture=str(values["architecture"]),
        joint=bool(values["joint"]),
        steps=tuple(int(step) for step in values["steps"]),
        sigmas=tuple(_real(sigma) for sigma in values["sigmas"]),
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
        seconds=_real(values["seconds"]),
        keys=tuple(int(count) for count in values.get("keys", ())),
        token_grids=tuple(_grid(grid) for grid in values.get("token_grids", ())),
        step_groups=tuple(int(group) for group in values.get("step_groups", ())),
    )
    steps, layers = len(header.steps), len(header.layers)
    sizes = (header.run.batch, steps, layers, len(header.references), *header.heads)
    if not all(0 < size < 10_000 for size in sizes):
        raise ValueError("a count is out of range")
    if len(header.sigmas) != steps:
        raise ValueError("not one noise level for each step")
    if len(header.heads) != layers or len(header.layer_grids) != layers:
        raise ValueError("not one head count and grid for each layer")
    if len(header.counts) != steps or any(len(row) != layers for row in header.counts):
        raise ValueError("not one count for each step and layer")
    if header.keys and (len(header.keys) != 2 + len(header.references) or min(header.keys) < 0):
        raise ValueError("not one count of tokens for text, picture and each reference")
    counts = [count for row in header.counts for count in row]
    if not any(counts) or not all(0 <= count < 10_000_000 for count in counts):
        raise ValueError("a count is out of range")
    _check_places(header)
    for picture in (header.generated, *header.references):
        if picture.grid.frames > MAX_FRAMES or picture.grid != map_grid(picture.grid):
            raise ValueError("a map has more cells than are ever kept")
        if picture.latent != (0, 0) and not all(0 < n <= MAX_LATENT_SIDE for n in picture.latent):
            raise ValueError("the size of a latent is out of range")
    return header


def _check_places(header: Header) -> None:
    """Raises ValueError if what is said of places asked about does not fit together."""
    check_point_count(header.plan.places)
    asked, groups = bool(header.plan.places), header.step_groups
    if len(header.token_grids) != asked * (1 + len(header.references)):
        raise ValueError("not one grid of tokens for each picture")
    if len(groups) != asked * len(header.steps):
        raise ValueError("not one group for each step")
    if list(groups) != sorted(groups) or set(groups) != set(range(len(set(groups)))):
        raise ValueError("the groups of steps are not in order")


def _asked(values: dict[str, Any]) -> PointQuery:
    sides = [_real(values[side]) for side in ("left", "top", "right", "bottom")]
    if not all(0 <= side <= 1 for side in sides):
        raise ValueError("a place is outside of its picture")
    return PointQuery(max(RESULT, int(values["reference"])), *sides)


def _real(value: Any) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError("a number is not finite")
    return number


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def _grid(values: dict[str, Any]) -> Grid:
    down, across = values["covered"]
    covered = float(down), float(across)
    return Grid(int(values["height"]), int(values["width"]), covered, int(values.get("frames", 1)))


def _picture(values: dict[str, Any]) -> Picture:
    return Picture(_grid(values["grid"]), _pair(values["latent"]), str(values["kind"]))


def _expected(header: Header) -> dict[str, tuple[int, ...]]:
    """The shape of every array, by name; sides of a correspondence, 0, are free up to a limit."""
    batch, references = header.run.batch, len(header.references)
    steps, layers, heads = len(header.steps), len(header.layers), max(header.heads)
    result = header.generated.grid.shape
    shapes: dict[str, tuple[int, ...]] = {
        "share.step_layer": (batch, steps, layers, 2 + references),
        "share.map": (batch, 2 + references, *result),
    }
    for r, picture in enumerate(header.references):
        sides = {"r2g": result, "g2r": picture.grid.shape}
        for definition in ("paper", "model"):
            for direction, side in sides.items():
                name = f"{definition}.{direction}.{r}"
                shapes[f"{name}.step_layer"] = (batch, steps, layers, *side)
                shapes[f"{name}.layer_head"] = (batch, layers, heads, *side)
        if header.plan.correspondence:
            shapes[f"correspondence.{r}"] = (batch, 0, 0, 0, 0)
            shapes[f"correspondence.model.{r}"] = (batch, 0, 0, 0, 0)
        for definition in ("paper", "model"):
            for name, whose, grid in (("g2r", RESULT, 1 + r), ("r2g", r, 0)):
                if asked := [p for p in header.plan.places if p.reference == whose]:
                    side = header.token_grids[grid].shape
                    groups = header.step_groups[-1] + 1
                    shape = (batch, groups, layers, len(asked), *side)
                    shapes[f"point.{definition}.{name}.{r}"] = shape
    return shapes


def _check_tensors(reader: Any, expected: dict[str, tuple[int, ...]], header: Header) -> list[str]:
    """Refuse a missing, unknown or wrongly shaped tensor before reading any; name the pictures."""
    names = set(reader.keys())
    if missing := expected.keys() - names:
        raise _refused(f"it lacks “{min(missing)}”")
    ranks = {"image": (4,), "mask": (3,)} | {
        f"reference.{r}": (3, 4) for r in range(len(header.references))
    }
    pictures: list[str] = []
    size = 0
    for name in sorted(names):
        view = reader.get_slice(name)
        shape, dtype = tuple(view.get_shape()), str(view.get_dtype())
        size += 4 * math.prod(shape)
        if size > MAX_BYTES:
            raise _refused(_TOO_LARGE)
        if name in expected:
            wanted = expected[name]
            fits = len(shape) == len(wanted) and all(
                size == want or (want == 0 and 0 < size <= CORRESPONDENCE_SIDE)
                for size, want in zip(shape, wanted, strict=True)
            )
            if not fits or dtype not in ("F16", "F32"):
                raise _refused(f"“{name}” is {dtype} {shape}, which its header does not allow")
            continue
        if name not in ranks:
            raise _refused(f"it holds an unknown tensor “{name[:60]}”")
        if (
            len(shape) not in ranks[name]
            or dtype != "U8"
            or not all(0 < n <= MAX_PICTURE_SIDE for n in shape)
        ):
            raise _refused(f"the picture “{name}” is {dtype} {shape}")
        if name != "mask" and shape[-1] != 3:
            raise _refused(f"the picture “{name}” does not have three colours")
        if name != "mask" and len(shape) == 4 and not _fits(shape[0], name, header):
            raise _refused(f"“{name}” holds {shape[0]} pictures of {header.run.batch} results")
        pictures.append(name)
    return pictures


def _fits(count: int, name: str, header: Header) -> bool:
    """Whether a file may hold so many pictures under this name."""
    if name == "image" or header.plan.within:
        return fits_results(count, header)
    return fits_reference(count, header, int(name.removeprefix("reference.")))


def _number(name: str, array: Tensor, scale: float) -> Tensor:
    values = array.float() * scale
    if not bool(values.isfinite().all()) or float(values.min()) < 0:
        raise _refused(f"“{name}” holds values that are no attention")
    return values
