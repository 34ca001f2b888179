"""Where one of several conditionings acts, and how much it counts at each token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .grids import Grid, Rectangle
from .layout import TokenLayout
from .resampling import mean_over_cells


@dataclass(frozen=True)
class Region:
    """Where one of several conditionings acts, and how much it counts there.

    part: of the result, the rectangle it was given alone. portions: (1 or batch, frames, height,
    width) over that rectangle of the latent, its part of what all conditionings together make of
    each place, 0..1.
    """

    part: Rectangle
    portions: Tensor

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) of the rectangle, in the latent's pixels."""
        return self.portions.shape[-2], self.portions.shape[-1]

    def of_tokens(self, grid: Grid) -> Tensor:
        """Its portion of each token of its rectangle: (1 or batch, tokens)."""
        frames, height, width = self.portions.shape[1:]
        pixels = Grid(height, width, frames=frames)
        # A cell may stick out of the picture: its portion is that of the places it does cover.
        return mean_over_cells(self.portions.flatten(1).mT, pixels, grid).mT


def region_weights(
    weights: Tensor | None, portions: Tensor, layout: TokenLayout, q: Tensor
) -> Tensor:
    """The weights of a call's softmaxes, where the region has only a portion of each token.

    The rest of a place goes to one more softmax, of which no key is a part.
    """
    rows = layout.generated
    if weights is None:
        weights = torch.ones(len(q), 1, q.shape[2], device=q.device)
    mine = torch.zeros_like(weights[:, 0])
    mine[:, rows.slice] = portions.to(mine)
    mine = mine.unsqueeze(1)
    return torch.cat((weights * mine, weights.sum(1, keepdim=True) * (1 - mine)), 1)
