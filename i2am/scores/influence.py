"""Recording → influence: how much of the model's attention each source got, and where.

Sources are the text, the picture itself and each reference. Only the model's own attention is used
(the model definition). Where text, picture and references share one softmax, the shares of a place
sum to one. In cross-attention models the result attends to the text and the references only: its
own share is zero, and theirs are fractions of that attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ..errors import I2AMError
from ..maps import item_shares
from ..recording import (
    Definition,
    Direction,
    Header,
    Recording,
    check_definition,
    check_reference,
)
from ..tokens import mask_coverage

NOTHING = 0.001  # a mean share below this counts as none


class ColorBy(str, Enum):
    """How the reference that colours a place is chosen."""

    LIFT = "above its average"  # its share at the place divided by its mean over the result
    SHARE = "largest share"  # among all sources


@dataclass(frozen=True)
class Influence:
    """Shares of the model's attention in the order text, the picture itself, reference 1, ….

    whole, inside: (batch, 2 + R), over the whole result and inside the region; equal without a
    region. outside: likewise, outside the region; None without one, or if it covers everything.
    even: (2 + R), the shares if every token counted the same; None if unknown. steps, layers:
    (batch, S or L, R), the references' shares inside the region at each recorded step and layer.
    """

    whole: Tensor
    inside: Tensor
    outside: Tensor | None
    even: Tensor | None
    steps: Tensor
    layers: Tensor


def measure_influence(recording: Recording, region: Tensor | None = None) -> Influence:
    """Recording → the share of each source, over the whole result and inside a region of it.

    region: (1 or batch, height, width), of any size, over the result. A cell counts by how much of
    it is covered. For a video, the mean frame is used. Raises I2AMError for an empty region,
    or if the model's definition was not recorded.
    """
    header, arrays = recording.header, recording.arrays
    check_definition(header, Definition.MODEL)
    check_reference(header, 0, Direction.REFERENCE_TO_GENERATED)
    whole = item_shares(recording)
    grid = header.generated.grid
    places = _mean_frame(arrays["share.map"], header).flatten(2)  # (batch, sources, cells)
    inside, outside, weights = whole, None, torch.ones(1, places.shape[-1])
    if region is not None:
        if region.shape[0] not in (1, len(places)):
            raise I2AMError(
                f"The region holds {region.shape[0]} masks, but {len(places)} pictures were "
                "sampled. Give one for all or one for each."
            )
        weights = mask_coverage(region, grid.one_frame)
        if not bool((weights.sum(1) > 0).all()):
            raise I2AMError("The region is empty. Paint it white where you want to know.")
        inside = _weighted(places, weights)
        rest = 1 - weights
        outside = _weighted(places, rest) if bool((rest.sum(1) > 1e-3).all()) else None
    normed = (weights / weights.mean(1, keepdim=True))[:, None, None]
    seen = torch.tensor(header.counts) > 0
    tables: list[Tensor] = []
    for r in range(len(header.references)):
        maps = arrays[f"model.r2g.{r}.step_layer"]  # the sum over places is the mean share
        maps = maps.sum(3) if grid.frames > 1 else maps
        tables.append((maps.flatten(3) * normed).sum(-1))
    table = torch.stack(tables, -1)  # (batch, steps, layers, references)
    return Influence(
        whole,
        inside,
        outside,
        torch.tensor(header.keys) / sum(header.keys) if header.keys else None,
        table.sum(2) / seen.sum(1).clamp(min=1)[:, None],
        table.sum(1) / seen.sum(0).clamp(min=1)[:, None],
    )


def _mean_frame(maps: Tensor, header: Header) -> Tensor:
    """(batch, sources, height, width) of a still picture, or of a video's mean frame."""
    return maps.mean(2) if header.generated.grid.frames > 1 else maps


def _weighted(places: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over cells: (batch, sources)."""
    return (places * weights[:, None]).sum(-1) / weights.sum(1)[:, None]


def strength_maps(recording: Recording, comparison: ColorBy) -> Tensor:
    """Recording → the strengths compared at each place: (batch, 1 + R, height, width).

    The first strength stands for no reference. LIFT: each reference's share divided by its mean
    over the result, compared with 1. A layer that treats all places alike does not help to locate
    a reference, so each layer is weighted by how much the references' shares vary over its places.
    SHARE: each reference's share, compared with the larger of the text's and the picture's own; all
    layers weigh the same.
    """
    header = recording.header
    if comparison is ColorBy.SHARE:
        places = _mean_frame(recording.arrays["share.map"], header)
        return torch.cat((places[:, :2].amax(1, keepdim=True), places[:, 2:]), 1)
    check_definition(header, Definition.MODEL)
    layers: list[Tensor] = []
    for r in range(len(header.references)):
        maps = recording.arrays[f"model.r2g.{r}.step_layer"].mean(1)
        maps = maps.sum(2) if header.generated.grid.frames > 1 else maps
        layers.append(maps * maps[0, 0].numel())
    shares = torch.stack(layers, 1)  # (batch, references, layers, height, width)
    weights = shares.var((-2, -1)).sum(1)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)
    references = (shares * weights[:, None, :, None, None]).sum(2)
    mean = references.mean((-2, -1), keepdim=True)
    lift = torch.where(mean > NOTHING, references / mean.clamp(min=NOTHING), 0)
    return torch.cat((torch.ones_like(lift[:, :1]), lift), 1)


def influence_details(
    found: Influence, header: Header, part: str = "region", groups: int = 5
) -> str:
    """The shares in numbers: of every source, over groups of steps and by layer.

    part: a word for the part that `found` was measured inside; "" for the whole result.
    """
    names = ["text", "the picture itself"]
    names += [f"reference {n}" for n in range(1, 1 + len(header.references))]
    inside_of = f"inside the {part}" if part else "over the whole result"
    columns = f"whole result · {inside_of}" if part else "whole result"
    lines = [f"Share of the model's attention, {columns}:"]
    for number, name in enumerate(names):
        whole, inside = (float(part[:, number].mean()) for part in (found.whole, found.inside))
        even = "" if found.even is None else f" (its size: {float(found.even[number]):.1%})"
        shares = f"{whole:.1%} · {inside:.1%}" if part else f"{whole:.1%}"
        lines.append(f"  {name} {shares}{even}")
    if header.run.batch > 1:
        for item, shares in enumerate(found.inside[:, 2:], start=1):
            each = " · ".join(f"{float(share):.1%}" for share in shares)
            lines.append(f"  picture {item}: {each}")
    parts = torch.arange(len(header.steps)).tensor_split(min(groups, len(header.steps)))
    for r in range(len(header.references)):
        over_time = [
            f"{header.steps[int(part[0])]}-{header.steps[int(part[-1])]} "
            f"{float(found.steps[:, part, r].mean()):.1%}"
            for part in parts
        ]
        by_layer = found.layers[..., r].mean(0)
        top = [int(n) for n in by_layer.topk(min(3, len(by_layer))).indices]
        most = ", ".join(f"{header.layers[n].name} {float(by_layer[n]):.1%}" for n in top)
        lines.append(f"Reference {r + 1} {inside_of}, by steps: {' · '.join(over_time)}")
        lines.append(f"Reference {r + 1} {inside_of}, layers that look most: {most}")
    return "\n".join(lines)
