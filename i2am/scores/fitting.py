"""Masks → masks checked against the pictures they belong to, and resized to them."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import I2AMError

SAME = 0.01  # how much the proportions of a mask and its picture may differ
_SAME_SMALL = 0.03  # likewise, if rounding the smaller one to whole pixels explains it


def fitting_mask(mask: Tensor, batch: int, size: tuple[int, int] | None, name: str) -> Tensor:
    """A mask → checked and resized to its picture's (height, width): (batch or 1, height, width).

    A mask of the same proportions is resized, as everywhere in ComfyUI. name: the mask, for
    messages. Raises I2AMError for a mask with NaN, other proportions or another batch size.
    """
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3:
        raise I2AMError(
            f"The {name} must have the shape (batch, height, width), but it has "
            f"{tuple(mask.shape)}. Connect a MASK."
        )
    height, width = mask.shape[1:]
    if size is not None and not has_proportions((height, width), size):
        raise I2AMError(
            f"The {name} is {width}×{height} (width × height), but the picture it belongs to is "
            f"{size[1]}×{size[0]}, which has other proportions. Resize or crop the mask as the "
            "picture was, or connect the one made for this picture."
        )
    if mask.shape[0] not in (1, batch):
        raise I2AMError(
            f"The {name} is a batch of {mask.shape[0]}, but there are {batch} maps. "
            f"Give one mask for all, or {batch}."
        )
    broken = int(mask.isnan().sum())
    if broken:
        raise I2AMError(
            f"The {name} is not a number in {broken} of its {mask.numel()} pixels. "
            "Check the node that makes it."
        )
    return resized_mask(mask, size)


def resized_mask(mask: Tensor, size: tuple[int, int] | None) -> Tensor:
    """A mask (batch, height, width) → resized to its picture's (height, width) if it differs."""
    if size is None or tuple(mask.shape[1:]) == tuple(size):
        return mask
    few = mask.float()[:, None]
    return interpolate(few, size, mode="bilinear", antialias=True)[:, 0].clamp(0, 1)


def has_proportions(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two (height, width) have the same proportions, up to rounding to whole pixels."""
    (height, width), (tall, wide) = one, other
    difference, whole = abs(width * tall - height * wide), height * wide
    rounding = max(height + width, tall + wide) / 2  # half a pixel of the smaller one on each side
    return difference <= max(SAME * whole, min(_SAME_SMALL * whole, rounding))
