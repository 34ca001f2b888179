"""The latents that the model was given as references: kept with a recording, and in its file.

A file holds them as one more string of the metadata. Readers of 1.0.0 ignore that, but would refuse
a tensor they do not know.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .header_json import FormatError
from .recording import Header, Recording

KEY = "i2am.reference_latents"
_KIND = "reference latent"
_MAX_VALUES = 2**26  # in all latents of a file: 128 MiB
_MAX_CHANNELS, _MAX_AXES = 4096, 5


def with_reference_latents(recording: Recording, given: Sequence[Tensor]) -> Recording:
    """Recording → the same with the latents of its references, in half precision.

    given: in the order of the references. They are left out if they are not the references' own.
    """
    header = recording.header
    numbers = [r for r, side in enumerate(header.references) if side.kind == _KIND]
    sizes = [header.references[r].latent for r in numbers]
    if sizes != [(latent.shape[-2], latent.shape[-1]) for latent in given]:
        return recording
    kept = {
        r: latent.detach().cpu().half()
        for r, latent in zip(numbers, given, strict=True)
        if len(latent) in (1, header.run.batch)
    }
    finite = {r: latent for r, latent in kept.items() if bool(latent.isfinite().all())}
    return replace(recording, reference_latents=finite)


def latents_metadata(recording: Recording) -> dict[str, str]:
    """Recording → the entry of a file's metadata that holds its latents; empty if it has none."""
    if not recording.reference_latents:
        return {}
    values = {
        str(r): {
            "shape": list(latent.shape),
            "float16": base64.b64encode(latent.numpy().astype("<f2").tobytes()).decode(),
        }
        for r, latent in recording.reference_latents.items()
    }
    return {KEY: json.dumps(values)}


def read_latents(metadata: Mapping[str, str], header: Header) -> dict[int, Tensor]:
    """A file's metadata → its latents, by the number of their reference. Raises FormatError."""
    if KEY not in metadata:
        return {}
    if len(metadata[KEY]) > 4 * _MAX_VALUES:
        raise FormatError("its reference latents are larger than any")
    try:
        entries = json.loads(metadata[KEY])
        latents = {int(r): _latent(one, header, int(r)) for r, one in entries.items()}
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"its reference latents cannot be read ({type(error).__name__}: {error})"
        ) from None
    return latents


def _latent(entry: Mapping[str, object], header: Header, r: int) -> Tensor:
    shape = tuple(int(str(side)) for side in list(entry["shape"]))  # type: ignore[call-overload]
    if not 0 <= r < len(header.references) or header.references[r].kind != _KIND:
        raise ValueError(f"there is no reference {r} with a latent")
    if not 4 <= len(shape) <= _MAX_AXES or shape[-2:] != header.references[r].latent:
        raise ValueError(f"a latent of {shape} does not fit reference {r}")
    if shape[0] not in (1, header.run.batch) or not all(0 < n <= _MAX_CHANNELS for n in shape):
        raise ValueError(f"a latent of {shape} is out of range")
    try:
        data = base64.b64decode(str(entry["float16"]), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if len(data) != 2 * math.prod(shape):
        raise ValueError(f"{len(data)} bytes for a latent of {shape}")
    latent = torch.frombuffer(bytearray(data), dtype=torch.float16).reshape(shape)
    if not bool(latent.isfinite().all()):
        raise ValueError("a latent holds values that are not numbers")
    return latent
