"""How tokens are averaged into correspondence cells by kernels that see blocks of tokens."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ...tokens import Grid, pooling_weights, spread
from ..pooling import correspondence_grid


def padded(count: int) -> int:
    """The width the kernels need for so many: a power of two, and at least a tensor core's."""
    return max(16, 1 << (count - 1).bit_length())


@dataclass(frozen=True)
class PoolingPlan:
    """The tokens of one picture in blocks of neighbours, and how they are pooled to its cells.

    A block has a slot for each cell it touches; a cell that several blocks touch is in several.
    order: (blocks · size,), the tokens of each block, -1 where it has no more. pooled: how many
    cells the kernels take a block to touch; 0 where tokens are not pooled, but slots and cells
    themselves. weights: (blocks, pooled, size), the part each token is of each cell. places:
    (most, cells), the slots of each cell; there: (most, cells), 1 for those, 0 for what fills up.
    """

    tokens: int
    blocks: int
    slots: int
    pooled: int
    order: Tensor
    weights: Tensor
    places: Tensor
    there: Tensor

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return self.places.shape[1]

    def gathered(self, pairs: Tensor, axis: int) -> Tensor:
        """From slots to cells along the last axis, -1, or the one before it, -2."""
        total = pairs.index_select(axis, self.places[0])
        for place, there in zip(self.places[1:], self.there[1:], strict=True):
            more = pairs.index_select(axis, place)
            total += more.mul_(there if axis == -1 else there.unsqueeze(-1))
        return total


@lru_cache(maxsize=16)  # small constants, slow to find out; a call has two for each reference
def plan_pooling(
    grid: Grid, size: int, pooled: bool, mean: bool, device: torch.device
) -> PoolingPlan:
    """Blocks of so many tokens of a grid; its cells are the mean of their tokens, or the sum."""
    cells = correspondence_grid(grid)
    blocks = math.ceil(grid.area / size)
    order = torch.full((blocks * size,), -1, dtype=torch.int32)
    if not pooled or cells == grid:
        order[: grid.area] = torch.arange(grid.area)
        order, places = order.to(device), torch.arange(grid.area, device=device)[None]
        return PoolingPlan(
            grid.area, blocks, len(order), 0, order, order, places, torch.ones_like(places)
        )
    order[: grid.area] = _neighbours(grid, size)
    down, across = pooling_weights(grid, cells)
    frame = grid.height * grid.width
    if mean:
        times = down.new_full((cells.area,), 1 / grid.frames)
    else:  # how many tokens of a frame a cell is of
        times = spread(down.new_ones(frame), grid.one_frame, cells)
    touching: list[tuple[Tensor, Tensor]] = []
    for block in range(blocks):
        tokens = order[block * size : (block + 1) * size]
        places = tokens[tokens >= 0] % frame
        portions = down[:, None, places // grid.width] * across[:, places % grid.width]
        numbers = portions.any(2).flatten().nonzero().squeeze(1)
        touching.append((numbers, portions.flatten(0, 1)[numbers] * times[numbers, None]))
    most = max(len(numbers) for numbers, _ in touching)
    weights = torch.zeros(blocks, padded(most), size)
    slots: list[list[int]] = [[] for _ in range(cells.area)]
    for block, (numbers, portions) in enumerate(touching):
        weights[block, : portions.shape[0], : portions.shape[1]] = portions
        for slot, number in enumerate(numbers):
            slots[int(number)].append(block * most + slot)
    places = torch.tensor(list(itertools.zip_longest(*slots, fillvalue=-1)), device=device)
    return PoolingPlan(
        grid.area,
        blocks,
        blocks * most,
        padded(most),
        order.to(device),
        weights.to(device),
        places.clamp(min=0),
        (places >= 0).float(),
    )


def _neighbours(grid: Grid, size: int) -> Tensor:
    """All tokens, so that each `size` of them are near each other, and touch few cells.

    In bands of rows from the top, each from left to right, column by column; what stands at one
    place in all frames of a video together.
    """
    places = max(1, size // grid.frames)
    band = 2 ** (int(math.log2(places)) // 2)  # so that a block is about a square
    place = torch.arange(grid.height * grid.width)
    row, column = place // grid.width, place % grid.width
    order = torch.argsort((row // band * grid.width + column) * band + row % band)
    frames = torch.arange(grid.frames) * (grid.height * grid.width)
    return (order[:, None] + frames).flatten()
