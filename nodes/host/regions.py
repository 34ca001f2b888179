"""Where each of several conditionings acts: ComfyUI's areas and masks, as portions of each place.

What the conditionings of one branch predict is added up place by place, each by its area, mask and
strength, and divided by the sum of these. Maps are added up by the same portions.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy.samplers import get_area_and_mult
from torch import Tensor

from ...i2am.errors import I2AMError
from ...i2am.tokens import WHOLE_PICTURE, Rectangle, Region


def regions(
    conditionings: list[dict[str, Any]], x: Tensor, timestep: Tensor
) -> dict[Any, Region | None]:
    """The region of each conditioning that acts now, by its uuid; None if it alone is everything.

    x: (batch, channels, height, width), or with frames before the height. Raises I2AMError for an
    area that leaves out some frames of a video.
    """
    if len(conditionings) == 1 and not {"area", "mask"} & conditionings[0].keys():
        return {conditionings[0]["uuid"]: None}
    found: dict[Any, tuple[list[int] | None, Tensor]] = {}
    total = torch.zeros_like(x[:, :1])
    for cond in conditionings:
        acting = None if "default" in cond else get_area_and_mult(cond, x, timestep)
        if acting is not None:
            found[cond["uuid"]] = acting.area, acting.mult[:, :1]
            _cut(total, acting.area).add_(acting.mult[:, :1])
    rest = (1 - total).clamp(min=0)  # what the host leaves to conditionings given as the default
    for cond in conditionings:
        if "default" in cond and get_area_and_mult(cond, x, timestep) is not None:
            found[cond["uuid"]] = None, rest
            total = total + rest
    return {
        uuid: Region(_part(area, x), _portions(mult, _cut(total, area)))
        for uuid, (area, mult) in found.items()
    }


def _cut(whole: Tensor, area: list[int] | None) -> Tensor:
    """A view of the area of a latent: its sizes, then where each of them starts."""
    for axis in range(0 if area is None else len(area) // 2):
        assert area is not None
        whole = whole.narrow(2 + axis, area[len(area) // 2 + axis], area[axis])
    return whole


def _part(area: list[int] | None, x: Tensor) -> Rectangle:
    if area is None:
        return WHOLE_PICTURE
    *frames, height, width = area[: len(area) // 2]
    *_, top, left = area
    if frames and frames[0] != x.shape[2]:
        raise I2AMError(
            f"Conditioning limited to {frames[0]} of {x.shape[2]} latent frames cannot be read so "
            "far. Limit it in height and width alone."
        )
    whole_height, whole_width = x.shape[-2:]
    return Rectangle(
        top / whole_height, left / whole_width, height / whole_height, width / whole_width
    )


def _portions(mult: Tensor, total: Tensor) -> Tensor:
    """(batch, frames, height, width): a still picture has one frame."""
    portions = torch.where(total > 0, mult / total, 0).float()
    return portions if portions.ndim == 4 else portions.squeeze(1)
