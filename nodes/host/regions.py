"""ComfyUI's areas and masks → the region each of several conditionings acts on.

ComfyUI adds up what the conditionings of one branch predict. At each place of the latent every
conditioning counts by its area, mask and strength, divided by the sum of all of them there. These
portions weigh the maps in the same way.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy.samplers import get_area_and_mult
from torch import Tensor

from ...i2am.errors import I2AMError
from ...i2am.tokens import WHOLE_PICTURE, Rectangle, Region


def active_regions(
    conditionings: list[dict[str, Any]], x: Tensor, timestep: Tensor
) -> dict[Any, Region | None]:
    """The region of each conditioning that acts at this timestep, by its uuid.

    A single conditioning without an area or a mask has None: it is the whole prediction.
    x: (batch, channels, height, width), or with frames before the height. Raises I2AMError for an
    area that leaves out some frames of a video.
    """
    if len(conditionings) == 1 and not {"area", "mask"} & conditionings[0].keys():
        return {conditionings[0]["uuid"]: None}
    active: dict[Any, tuple[list[int] | None, Tensor]] = {}  # uuid → area, weight at each place
    total = torch.zeros_like(x[:, :1])
    for cond in conditionings:
        part = None if "default" in cond else get_area_and_mult(cond, x, timestep)
        if part is not None:
            active[cond["uuid"]] = part.area, part.mult[:, :1]
            _crop(total, part.area).add_(part.mult[:, :1])
    rest = (1 - total).clamp(min=0)  # what the host leaves to conditionings marked as default
    for cond in conditionings:
        if "default" in cond and get_area_and_mult(cond, x, timestep) is not None:
            active[cond["uuid"]] = None, rest
            total = total + rest
    return {
        uuid: Region(_rectangle(area, x), _portions(weight, _crop(total, area)))
        for uuid, (area, weight) in active.items()
    }


def _crop(latent: Tensor, area: list[int] | None) -> Tensor:
    """A view of a latent within an area: its length on each axis, then its start on each axis."""
    if area is None:
        return latent
    axes = len(area) // 2
    for axis, (length, start) in enumerate(zip(area[:axes], area[axes:], strict=True)):
        latent = latent.narrow(2 + axis, start, length)
    return latent


def _rectangle(area: list[int] | None, x: Tensor) -> Rectangle:
    """An area of the latent `x`, in fractions of its height and width.

    Raises I2AMError if it leaves out frames.
    """
    if area is None:
        return WHOLE_PICTURE
    *frames, height, width = area[: len(area) // 2]
    *_, top, left = area
    if frames and frames[0] != x.shape[2]:
        raise I2AMError(
            f"A conditioning is limited to {frames[0]} of {x.shape[2]} latent frames, which cannot "
            "be read yet. Limit it in height and width only."
        )
    whole_height, whole_width = x.shape[-2:]
    return Rectangle(
        top / whole_height, left / whole_width, height / whole_height, width / whole_width
    )


def _portions(weight: Tensor, total: Tensor) -> Tensor:
    """Weights over their total, (batch, 1, [frames,] height, width) → (batch, frames, …).

    A still picture's one channel serves as its one frame.
    """
    portions = torch.where(total > 0, weight / total, 0).float()
    return portions if portions.ndim == 4 else portions.squeeze(1)
