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

    part: the rectangle of the result it acts in. portions: (1 or batch, frames, height, width),
    over that rectangle of the latent: its fraction of all conditionings at each place, 0 to 1.
    """

    part: Rectangle
    portions: Tensor

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) of the rectangle, in the latent's pixels."""
        return self.portions.shape[-2], self.portions.shape[-1]

    def token_portions(self, grid: Grid) -> Tensor:
        """Its portion of each token of its rectangle: (1 or batch, tokens)."""
        frames, height, width = self.portions.shape[1:]
        pixels = Grid(height, width, frames=frames)
        # A cell may stick out of the picture: only the places it does cover count.
        return mean_over_cells(self.portions.flatten(1).mT, pixels, grid).mT


def region_weights(
    weights: Tensor | None, portions: Tensor, layout: TokenLayout, q: Tensor
) -> Tensor:
    """The weights of a call's softmaxes if a region has only a portion of each token.

    weights: (batch, softmaxes, queries), or None for one softmax. portions: (1 or batch,
    generated). q: the call's queries. Gives (batch, softmaxes + 1, queries): the rest of each
    token goes to one more softmax, which has no keys.
    """
    rows = layout.generated
    if weights is None:
        weights = torch.ones(len(q), 1, q.shape[2], device=q.device)
    portion = torch.zeros_like(weights[:, 0])
    portion[:, rows.slice] = portions.to(portion)
    portion = portion.unsqueeze(1)
    return torch.cat((weights * portion, weights.sum(1, keepdim=True) * (1 - portion)), 1)
