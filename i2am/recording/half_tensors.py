"""Small tensors as text: entries of a file's metadata, in half precision.

Readers of older releases ignore metadata they do not know, but would refuse such a tensor.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .header_json import FormatError

_MAX_VALUES = 2**26  # in all tensors of an entry: 128 MiB

# What can be raised when arbitrary JSON is read as tensors.
_NOT_TENSORS = LookupError, TypeError, ValueError, AttributeError, RecursionError


def tensors_metadata(name: str, tensors: Mapping[int, Tensor]) -> dict[str, str]:
    """Numbered float16 tensors → the entry of a file's metadata; empty if there are none."""
    if not tensors:
        return {}
    values = {
        str(number): {
            "shape": list(tensor.shape),
            "float16": base64.b64encode(tensor.numpy().astype("<f2").tobytes()).decode(),
        }
        for number, tensor in tensors.items()
    }
    return {name: json.dumps(values)}


def read_tensors(
    metadata: Mapping[str, str],
    name: str,
    check: Callable[[int, tuple[int, ...]], None],
    what: str,
) -> dict[int, Tensor]:
    """A file's metadata → the tensors of an entry, by number; none if it is not there.

    check: raises ValueError for a number or shape that is out of range. what: they are, in words.
    Raises FormatError.
    """
    if name not in metadata:
        return {}
    if len(metadata[name]) > 4 * _MAX_VALUES:
        raise FormatError(f"its {what} are larger than any")
    try:
        entries = json.loads(metadata[name])
        return {
            int(number): _tensor(entry, int(number), check) for number, entry in entries.items()
        }
    except _NOT_TENSORS as error:
        raise FormatError(f"its {what} cannot be read ({type(error).__name__}: {error})") from None


def _tensor(
    entry: Mapping[str, object], number: int, check: Callable[[int, tuple[int, ...]], None]
) -> Tensor:
    shape = tuple(int(str(side)) for side in list(entry["shape"]))  # type: ignore[call-overload]
    check(number, shape)
    try:
        data = base64.b64decode(str(entry["float16"]), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if len(data) != 2 * math.prod(shape):
        raise ValueError(f"{len(data)} bytes for {shape} values")
    tensor = torch.frombuffer(bytearray(data), dtype=torch.float16).reshape(shape)
    if not bool(tensor.isfinite().all()):
        raise ValueError("there are values that are not numbers")
    return tensor
