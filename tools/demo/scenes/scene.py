"""Scenes and their truth: which token of the reference belongs where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .recipe import HOLE_GREY, REDUCTION, TOKEN


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes and their truth: pictures (B, H, W, 3) and masks (B, H, W), 0 to 1."""

    scene: Tensor  # the picture to fill, its hole painted HOLE_GREY
    reference: Tensor  # another picture that shows the object
    target: Tensor  # the scene with the object in its hole
    hole: Tensor  # 1 inside the hole
    object: Tensor  # 1 on the object in the reference
    correspondence: Tensor  # (B, tokens) long: the reference token to copy; -1 outside the hole

    def __len__(self) -> int:
        return len(self.scene)

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens (down, across)."""
        return self.scene.shape[1] // TOKEN, self.scene.shape[2] // TOKEN


def token_coverage(mask: Tensor) -> Tensor:
    """Share of each token that a mask covers: (B, H, W) to (B, tokens), row by row."""
    return F.avg_pool2d(mask[:, None], TOKEN).flatten(1)


def correspondence_distance(found: Tensor, scenes: Scenes) -> Tensor:
    """How many tokens `found` (B, tokens) is off the truth, (B, tokens).

    Zero is exact, one is a neighbour: the larger of the distances in rows and in columns. Outside
    the hole it means nothing.
    """
    across = scenes.grid[1]
    truth = scenes.correspondence.clamp(min=0)
    rows = (found // across - truth // across).abs()
    columns = (found % across - truth % across).abs()
    return torch.maximum(rows, columns)


def reduced(pictures: Tensor) -> Tensor:
    """Pictures (B, H, W, 3) at an eighth of their size, enlarged again to the size they had."""
    pixels = pictures.movedim(-1, 1)
    small = F.interpolate(pixels, scale_factor=1 / REDUCTION, mode="area")
    return F.interpolate(small, size=pixels.shape[-2:], mode="bicubic").clamp(0, 1).movedim(1, -1)


def put_together(
    target: Tensor, reference: Tensor, hole: Tensor, mask: Tensor, correspondence: Tensor
) -> Scenes:
    """Scenes of pictures (B, 3, H, W) and masks (B, H, W), the hole painted out."""
    scene = torch.where(hole[:, None] > 0, torch.full_like(target, HOLE_GREY), target)
    return Scenes(
        scene=scene.movedim(1, -1).contiguous(),
        reference=reference.movedim(1, -1).contiguous(),
        target=target.movedim(1, -1).contiguous(),
        hole=hole,
        object=mask,
        correspondence=correspondence,
    )
