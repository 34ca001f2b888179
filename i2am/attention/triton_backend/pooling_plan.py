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

    A block has a slot for each cell it touches; a cell that several blocks touch has several slots.
    order: (blocks · size,), the tokens of each block; the last one again and again where there are
    no more, with no weight. cells_each: how many slots the kernels give each block; 0 if nothing is
    pooled, and tokens, slots and cells are the same. weights: (blocks, cells_each, size), of each
    token in each cell. cell_slots: (most, cells), the
    slots of each cell; is_slot: (most, cells), 1 for those, 0 for padding.
    """

    tokens: int
    blocks: int
    slots: int
    cells_each: int
    order: Tensor
    weights: Tensor
    cell_slots: Tensor
    is_slot: Tensor

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return self.cell_slots.shape[1]

    def gathered(self, pairs: Tensor, axis: int) -> Tensor:
        """Add up slots to cells along the last axis, -1, or the one before it, -2."""
        total = pairs.index_select(axis, self.cell_slots[0])
        for slots, is_slot in zip(self.cell_slots[1:], self.is_slot[1:], strict=True):
            more = pairs.index_select(axis, slots)
            total.addcmul_(more, is_slot if axis == -1 else is_slot.unsqueeze(-1))
        return total


@lru_cache(maxsize=16)  # small but slow to make; a call has two for each reference
def plan_pooling(grid: Grid, size: int, mean: bool, device: torch.device) -> PoolingPlan:
    """The plan for a grid in blocks of `size` tokens; a cell is their mean, or their sum."""
    cells = correspondence_grid(grid)
    blocks = math.ceil(grid.area / size)
    beyond = blocks * size - grid.area
    if cells == grid:
        order = _filled_up(torch.arange(grid.area), beyond).to(device)
        slots = torch.arange(grid.area, device=device)[None]
        return PoolingPlan(
            grid.area, blocks, len(order), 0, order, order, slots, torch.ones_like(slots)
        )
    neighbours = _neighbours(grid, size)
    down, across = pooling_weights(grid, cells)
    frame = grid.height * grid.width
    if mean:
        factors = down.new_full((cells.area,), 1 / grid.frames)
    else:  # how many tokens of a frame each cell covers
        factors = spread(down.new_ones(frame), grid.one_frame, cells)
    touched: list[tuple[Tensor, Tensor]] = []  # by each block: the cells, and its tokens' weights
    for block in range(blocks):
        tokens = neighbours[block * size : (block + 1) * size] % frame
        portions = down[:, None, tokens // grid.width] * across[:, tokens % grid.width]
        numbers = portions.any(2).flatten().nonzero().squeeze(1)
        touched.append((numbers, portions.flatten(0, 1)[numbers] * factors[numbers, None]))
    most = max(len(numbers) for numbers, _ in touched)
    weights = torch.zeros(blocks, padded(most), size)
    slots_of: list[list[int]] = [[] for _ in range(cells.area)]
    for block, (numbers, portions) in enumerate(touched):
        weights[block, : portions.shape[0], : portions.shape[1]] = portions
        for slot, number in enumerate(numbers):
            slots_of[int(number)].append(block * most + slot)
    slots = torch.tensor(list(itertools.zip_longest(*slots_of, fillvalue=-1)), device=device)
    return PoolingPlan(
        grid.area,
        blocks,
        blocks * most,
        padded(most),
        _filled_up(neighbours, beyond).to(device),
        weights.to(device),
        slots.clamp(min=0),
        (slots >= 0).float(),
    )


def _filled_up(tokens: Tensor, count: int) -> Tensor:
    """Tokens, then the last one so many times again, as the kernels read them."""
    return torch.cat((tokens, tokens[-1:].expand(count))).int()


def _neighbours(grid: Grid, size: int) -> Tensor:
    """All tokens, in an order in which each `size` of them are neighbours and touch few cells.

    In bands of rows from the top, each from left to right, column by column; a video's frames of
    one position together.
    """
    positions = max(1, size // grid.frames)
    band = 2 ** (int(math.log2(positions)) // 2)  # so that a block is about a square
    position = torch.arange(grid.height * grid.width)
    row, column = position // grid.width, position % grid.width
    order = torch.argsort((row // band * grid.width + column) * band + row % band)
    frames = torch.arange(grid.frames) * (grid.height * grid.width)
    return (order[:, None] + frames).flatten()
