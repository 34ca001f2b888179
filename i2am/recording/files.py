"""The file format `i2am.attribution/1`: arrays and pictures in one .safetensors file.

Nothing in a file is executed and no path in it is used. A file whose tensors do not have exactly
the shapes its own header implies is refused.
"""

from __future__ import annotations

import math
import os
import uuid
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..attention import CORRESPONDENCE_SIDE
from ..errors import I2AMError
from ..tokens import RESULT
from .attribution import Attribution, fits_reference, fits_results
from .header_json import MAX_PICTURE_SIDE, FormatError, metadata_of, read_metadata
from .recording import Header, Recording, correspondence_name
from .reference_latents import latents_metadata, read_latents
from .words import encodings_metadata, read_encodings, read_words, words_metadata

MAX_BYTES = 16 * 2**30  # for all arrays and pictures, as float32 in memory
_TOO_LARGE = "it would take more memory than any recording"


def save_attribution(path: Path, attribution: Attribution) -> None:
    """Write an attribution with its pictures, completely or not at all. Raises OSError.

    Arrays are divided by their largest value and rounded to float16. Pictures are rounded to eight
    bits.
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
        tensors["image"] = _to_bytes(attribution.image)
    if attribution.mask is not None:
        tensors["mask"] = _to_bytes(attribution.mask)
    for r, picture in enumerate(attribution.references):
        if picture is not None:
            # One picture for all batch items is stored without a batch axis.
            tensors[f"reference.{r}"] = _to_bytes(picture[0] if len(picture) == 1 else picture)
    metadata = _metadata(attribution.recording, scales) | words_metadata(attribution.words)
    _write(path, tensors, metadata)


def save_recording(path: Path, recording: Recording) -> None:
    """Write a recording without pictures, exactly (float32). Raises OSError."""
    _write(path, dict(recording.arrays), _metadata(recording, {}))


def _metadata(recording: Recording, scales: dict[str, float]) -> dict[str, str]:
    kept = latents_metadata(recording) | encodings_metadata(recording)
    return metadata_of(recording.header, scales) | kept


def load_attribution(path: Path) -> Attribution:
    """A file of `save_attribution` → the attribution. Raises I2AMError for other files, OSError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(_TOO_LARGE)
        with safe_open(path, framework="pt") as file:  # pyright: ignore[reportUnknownVariableType]
            return _read(cast(Any, file))
    except FormatError as error:
        raise _refused(str(error)) from None
    except SafetensorError as error:
        raise _refused(f"it is not a whole .safetensors file ({error})") from None
    except (RuntimeError, MemoryError) as error:  # torch could not allocate it
        raise I2AMError(f"There is not enough memory to load this file: {error}.") from None


def load_recording(path: Path) -> Recording:
    """A file of `save_recording` → the recording. Raises I2AMError for other files, OSError."""
    return load_attribution(path).recording


def array_shapes(header: Header) -> dict[str, tuple[int, ...]]:
    """Header → the shape of every array of its recording, by name.

    The sides of a correspondence and of the maps of words are given as 0: any length up to
    CORRESPONDENCE_SIDE is allowed.
    """
    batch, references = header.run.batch, len(header.references)
    steps, layers, heads = len(header.steps), len(header.layers), max(header.heads)
    result = header.generated.grid.shape
    shapes: dict[str, tuple[int, ...]] = {
        "share.step_layer": (batch, steps, layers, 2 + references),
        "share.map": (batch, 2 + references, *result),
    }
    if header.plan.effect:
        shapes["output.step_layer"] = (batch, steps, layers)
        shapes["output.map"] = (batch, *result)
    for r, picture in enumerate(header.references):
        cells = {"r2g": result, "g2r": picture.grid.shape}
        for definition in header.plan.recorded:
            for direction, shape in cells.items():
                name = f"{definition.value}.{direction}.{r}"
                shapes[f"{name}.step_layer"] = (batch, steps, layers, *shape)
                shapes[f"{name}.layer_head"] = (batch, layers, heads, *shape)
        if header.plan.correspondence:
            for definition in header.plan.recorded:
                shapes[correspondence_name(definition, r)] = (batch, 0, 0, 0, 0)
        # Points of the result have rows over the reference, points of the reference have columns
        # over the result.
        for definition in header.plan.recorded:
            for direction, named_on, grid in (("g2r", RESULT, 1 + r), ("r2g", r, 0)):
                count = sum(point.reference == named_on for point in header.plan.places)
                if count:
                    groups = header.step_groups[-1] + 1
                    shape = (batch, groups, layers, count, *header.token_grids[grid].shape)
                    shapes[f"point.{definition.value}.{direction}.{r}"] = shape
    for number, tokens in enumerate(header.prompts):
        groups = header.word_groups[-1] + 1
        shapes[f"words.{number}.map"] = (batch, groups, tokens, 0, 0)
        shapes[f"words.{number}.share"] = (batch, steps, layers, tokens)
    return shapes


def _refused(reason: str) -> I2AMError:
    return I2AMError(
        f"This file is not an attribution that can be loaded: {reason}. "
        "Choose a file written by Save Attribution."
    )


def _to_bytes(picture: Tensor) -> Tensor:
    """Values in 0–1 → uint8 of the same shape."""
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        # Not save_file: its files can only be read by their owner.
        part.write_bytes(save({name: tensor.clone() for name, tensor in tensors.items()}, metadata))
        os.replace(part, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        part.unlink(missing_ok=True)


def _read(file: Any) -> Attribution:
    """An open file → its attribution. Raises FormatError, if possible before reading any tensor."""
    metadata: dict[str, str] = file.metadata() or {}
    header, scales = read_metadata(metadata)
    latents, encodings = read_latents(metadata, header), read_encodings(metadata, header)
    words = read_words(metadata, header)
    shapes = array_shapes(header)
    names = _check_tensors(file, shapes, header)
    arrays = {n: _attention(n, file.get_tensor(n), scales.get(n, 1.0)) for n in shapes}
    pictures = {name: file.get_tensor(name).float() / 255 for name in names}
    references = [pictures.get(f"reference.{r}") for r in range(len(header.references))]
    return Attribution(
        Recording(header, arrays, latents, encodings),
        pictures.get("image"),
        tuple(r[None] if r is not None and r.ndim == 3 else r for r in references),
        pictures.get("mask"),
        words=words,
    )


def _check_tensors(file: Any, shapes: dict[str, tuple[int, ...]], header: Header) -> list[str]:
    """An open file → the names of its pictures. Raises FormatError before any tensor is read.

    shapes: of the arrays the file must hold. A missing, unknown or wrongly shaped tensor is an
    error.
    """
    names = set(file.keys())
    if missing := shapes.keys() - names:
        raise FormatError(f"it lacks “{min(missing)}”")
    pictures: list[str] = []
    size = 0
    for name in sorted(names):
        view = file.get_slice(name)
        shape, dtype = tuple(view.get_shape()), str(view.get_dtype())
        size += 4 * math.prod(shape)
        if size > MAX_BYTES:
            raise FormatError(_TOO_LARGE)
        if name in shapes:
            if not _fits_array(shape, shapes[name]) or dtype not in ("F16", "F32"):
                raise FormatError(f"“{name}” is {dtype} {shape}, which its header does not allow")
        else:
            _check_picture(name, shape, dtype, header)
            pictures.append(name)
    return pictures


def _fits_array(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether an array has the expected shape. 0 stands for any length of a correspondence side."""
    return len(shape) == len(expected) and all(
        length == wanted or (wanted == 0 and 0 < length <= CORRESPONDENCE_SIDE)
        for length, wanted in zip(shape, expected, strict=True)
    )


def _check_picture(name: str, shape: tuple[int, ...], dtype: str, header: Header) -> None:
    """Raises FormatError unless a tensor is the image, the mask or a reference of a recording."""
    ranks = {"image": (4,), "mask": (3,)} | {
        f"reference.{r}": (3, 4) for r in range(len(header.references))
    }
    if name not in ranks:
        raise FormatError(f"it holds an unknown tensor “{name[:60]}”")
    in_range = all(0 < length <= MAX_PICTURE_SIDE for length in shape)
    if len(shape) not in ranks[name] or dtype != "U8" or not in_range:
        raise FormatError(f"the picture “{name}” is {dtype} {shape}")
    if name == "mask":
        return
    if shape[-1] != 3:
        raise FormatError(f"the picture “{name}” does not have three colours")
    if len(shape) == 4 and not _fits_count(shape[0], name, header):
        raise FormatError(f"“{name}” holds {shape[0]} pictures for {header.run.batch} results")


def _fits_count(count: int, name: str, header: Header) -> bool:
    """Whether a file may hold `count` pictures under this name."""
    if name == "image" or header.plan.within:
        return fits_results(count, header)
    return fits_reference(count, header, int(name.removeprefix("reference.")))


def _attention(name: str, array: Tensor, scale: float) -> Tensor:
    """A stored array → as recorded, float32. Raises FormatError for values no attention has."""
    values = array.float() * scale
    if not bool(values.isfinite().all()) or float(values.min()) < 0:
        raise FormatError(f"“{name}” holds values that attention cannot have")
    return values
