"""Drawn over the part that the model saw → drawn over the whole picture, the rest dimmed."""

from __future__ import annotations

import torch
from torch import Tensor

from ..recording import Whole

UNSEEN_LIGHT = 0.25  # fraction of the light kept where the model did not see the picture


def place_pictures(drawn: Tensor, whole: Whole | None, pictures: Tensor | None = None) -> Tensor:
    """Drawn parts (count, height, width, 3) → placed in the whole, which is dimmed around them.

    pictures: the whole to use, (1 or count, height, width, 3); by default that of `whole`. Without
    a whole, the parts are returned as they are.
    """
    if whole is None:
        return drawn
    under = whole.pictures if pictures is None else pictures
    luma = (under * under.new_tensor([0.2126, 0.7152, 0.0722])).sum(-1, keepdim=True)
    placed = (luma * UNSEEN_LIGHT).expand(len(drawn), -1, -1, 3).clone().to(drawn)
    rows, columns = whole.part
    placed[:, rows, columns] = drawn
    return placed


def place_values(values: Tensor, whole: Whole | None) -> Tensor:
    """Values of the part, (…, height, width) → over the whole, zero outside the part."""
    if whole is None:
        return values
    placed = torch.zeros(*values.shape[:-2], *whole.size).to(values)
    rows, columns = whole.part
    placed[..., rows, columns] = values
    return placed
