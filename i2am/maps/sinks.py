"""Attention sinks: reference places that nearly all of the result attends to."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..errors import I2AMError
from ..recording import Definition, Direction, Recording, attention_definition
from ..tokens import spread
from .correspondence import Correspondence, correspondence_of
from .values import AttributionMap

SINK_LEVEL = 4.0  # times an even spread
SINK_PART = 0.75  # fraction of the result's places


def find_sinks(pairs: Correspondence) -> Tensor:
    """Correspondence → which places of the reference are sinks: (batch, reference cells), bool.

    A sink gets at least SINK_LEVEL times an even spread from at least SINK_PART of the result's
    places. Only each place's attention to this reference counts. Sinks, often at borders, absorb
    attention that has nowhere else to go, whatever they show.
    """
    least = pairs.looks.quantile(1 - SINK_PART, dim=1, interpolation="lower")
    return least * pairs.reference.area >= SINK_LEVEL


def sink_correspondence(
    recording: Recording, definition: Definition, reference: int
) -> Correspondence:
    """The correspondence to find sinks in: for the effect, that of a definition of attention."""
    definition = attention_definition(definition, recording.header.joint)
    return correspondence_of(recording, definition, reference)


def sink_mass(pairs: Correspondence, found: Tensor) -> Tensor:
    """The fraction of the reference's attention that its sinks got: (batch,)."""
    columns = pairs.values.sum(1)
    return (columns * found).sum(-1) / columns.sum(-1).clamp(min=torch.finfo(torch.float32).tiny)


def remove_sinks(pairs: Correspondence, found: Tensor) -> Correspondence:
    """The correspondence with zeros at the sinks."""
    return replace(pairs, values=pairs.values * ~found.unsqueeze(1))


def without_sinks(map: AttributionMap, pairs: Correspondence) -> AttributionMap:
    """A map over the reference → the same with zeros at the sinks, and a note of what was removed.

    pairs: from `sink_correspondence`.

    Raises I2AMError for a map over the result: it is a mean over all of the reference's tokens.
    """
    if map.direction is not Direction.GENERATED_TO_REFERENCE:
        raise I2AMError(
            "Sinks are places of the reference, so they can be taken out of maps over the "
            "reference alone. Choose generated to reference, or keep the sinks."
        )
    found = find_sinks(pairs)
    area = spread(torch.ones(pairs.reference.area), pairs.reference, map.grid)
    covered = spread(found.float(), pairs.reference, map.grid) / area
    values = map.values * (1 - covered).clamp(min=0).reshape(-1, 1, *map.grid.sides)
    before, after = (v.sum((1, 2, 3)) for v in (map.values, values))
    taken = 1 - after / before.clamp(min=torch.finfo(torch.float32).tiny)
    return replace(map, values=values, notes=(*map.notes, describe_sinks(found, taken)))


def describe_sinks(found: Tensor, taken: Tensor) -> str:
    """What was removed from each batch item, in words: "2 sinks out (31% of it)"."""
    counts = [int(count) for count in found.sum(-1)]
    if not any(counts):
        return "no sinks found"
    parts = ", ".join(f"{float(part):.0%}" for part in taken)
    one = "sink" if counts == [1] else "sinks"
    return f"{', '.join(map(str, counts))} {one} out ({parts} of it)"
