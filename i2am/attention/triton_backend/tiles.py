"""How much of a call a program of each kernel takes at once, by card."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .pooling_plan import padded

# Of each token, for thin products: those of three sums, in two parts, and zeros. With fewer, Triton
# would not use the faster instructions of Hopper's tensor cores.
FACTORS = 16
FACTORS_AT_ONCE = 256  # tokens a program of row_factors takes


@dataclass(frozen=True)
class Tile:
    """How many queries and keys a program of a kernel takes at once, and with how many warps."""

    rows: int
    columns: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Tiles:
    """The tiles of the kernels; unpooled: of pair_sums where the reference's tokens are cells."""

    row_sums: Tile
    column_sums: Tile
    pair_sums: Tile
    unpooled: Tile
    model_sums: Tile

    def of_pairs(self, pooled: bool) -> Tile:
        """That of pair_sums, for a reference whose tokens are pooled to cells, or are the cells."""
        return self.pair_sums if pooled else self.unpooled


def tiles_for(dtype: torch.dtype, dim: int, capability: tuple[int, int]) -> Tiles:
    """As large as a card's shared memory and registers allow. capability: for example (8, 6).

    On an H100 those of prototypes that were timed there, on others what fits (tests/attention).
    """
    if dtype == torch.float32:  # without tensor cores
        return Tiles(*[Tile(32, 32, 8, 1)] * 5)
    if padded(dim) > 128:
        pairs = Tile(64, 64, 8, 1)
        return Tiles(Tile(64, 32, 4, 2), Tile(32, 64, 4, 2), pairs, pairs, Tile(64, 32, 4, 2))
    pairs = Tile(128, 64, 8, 2)
    if capability == (9, 0):
        rows = Tile(128, 64, 4, 3)
        return Tiles(rows, Tile(128, 64, 4, 2), Tile(128, 128, 8, 2), pairs, rows)
    columns = Tile(64, 64, 4, 2)
    if capability in _ROOMY:
        return Tiles(Tile(128, 64, 8, 3), columns, pairs, pairs, Tile(128, 64, 4, 3))
    pairs = Tile(128, 64, 8, 1)
    return Tiles(Tile(128, 64, 8, 2), columns, pairs, pairs, Tile(128, 64, 4, 2))


_ROOMY = ((8, 0), (10, 0))  # as (9, 0), more than 160 KiB of shared memory, not 99
