"""The latents that the model was given as references: kept with a recording, and in its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from .half_tensors import read_tensors, tensors_metadata
from .recording import Header, Recording

KEY = "i2am.reference_latents"
_KIND = "reference latent"
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
    return tensors_metadata(KEY, recording.reference_latents)


def read_latents(metadata: Mapping[str, str], header: Header) -> dict[int, Tensor]:
    """A file's metadata → its latents, by the number of their reference. Raises FormatError."""

    def check(r: int, shape: tuple[int, ...]) -> None:
        if not 0 <= r < len(header.references) or header.references[r].kind != _KIND:
            raise ValueError(f"there is no reference {r} with a latent")
        if not 4 <= len(shape) <= _MAX_AXES or shape[-2:] != header.references[r].latent:
            raise ValueError(f"a latent of {shape} does not fit reference {r}")
        if shape[0] not in (1, header.run.batch) or not all(0 < n <= _MAX_CHANNELS for n in shape):
            raise ValueError(f"a latent of {shape} is out of range")

    return read_tensors(metadata, KEY, check, "reference latents")
