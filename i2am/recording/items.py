"""Some items of a batch as a recording of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .recording import Recording


def take_items(recording: Recording, items: Sequence[int]) -> Recording:
    """Recording → the recording of these items of its batch, by number from 0, in this order."""
    numbers = list(items)
    arrays = {name: array[numbers] for name, array in recording.arrays.items()}
    header = recording.header
    own, encodings = (
        {number: one[numbers] if len(one) > 1 else one for number, one in kept.items()}
        for kept in (recording.reference_latents, recording.encodings)
    )
    return replace(
        recording,
        header=replace(header, run=replace(header.run, batch=len(numbers))),
        arrays=arrays,
        reference_latents=own,
        encodings=encodings,
    )
