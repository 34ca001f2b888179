"""The two passes of the Triton kernels over one call.

1. Generated queries with all keys: the log-sum-exp of each row over each span, which gives the
   shares, and of each reference token over the generated tokens.
2. Generated queries with the keys of each reference again, divided by those sums: both directions
   of both definitions. A program takes one head after the other, so that the correspondence is
   added up over heads, and pooled, where it is computed.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...tokens import Role, Span, TokenLayout, grid_of
from ..marginals import Marginals
from .pooling_plan import PoolingPlan, padded, plan_pooling

PARTIAL_BYTES = 64 * 2**20  # of sums of blocks, that are still to be added up, at once


@dataclass(frozen=True)
class Tile:
    """How many queries and keys a program of a kernel takes at once, and with how many warps."""

    rows: int
    columns: int
    warps: int
    stages: int


def tiles(dtype: torch.dtype, dim: int) -> tuple[Tile, Tile]:
    """The tiles of the first and of the second pass: as large as a card's registers allow.

    The second pass holds two more tiles, of the correspondence.
    """
    if dtype == torch.float32:  # without tensor cores
        return Tile(32, 32, 8, 1), Tile(32, 32, 8, 1)
    if padded(dim) > 128:
        return Tile(64, 64, 4, 2), Tile(64, 64, 8, 1)
    return Tile(128, 64, 4, 3), Tile(128, 64, 8, 2)


def kernel_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float,
    correspondence: bool,
) -> Marginals:
    """What `blocked_marginals` gives, by the kernels, for a call that suits them."""
    references = layout.references
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    batch, heads, queries, dim = q.shape
    tile = tiles(q.dtype, dim)[1]
    plans = [
        (
            plan_pooling(grid_of(layout.generated), tile.rows, correspondence, True, q.device),
            plan_pooling(grid_of(span), tile.columns, correspondence, False, q.device),
        )
        for span in references
    ]

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float32, device=q.device)

    share = zeros(batch, heads, 2 + len(references), queries)
    paper_r2g = zeros(batch, heads, len(references), queries)
    g2r = tuple(zeros(batch, heads, 2, span.length) for span in references)
    correspondences = [
        zeros(batch, 2, by_row.cells, by_column.cells)
        for by_row, by_column in plans
        if correspondence
    ]
    on_device = contextlib.nullcontext() if q.device.type == "cpu" else torch.cuda.device(q.device)
    with on_device:
        for here in _chunks(batch, heads, plans, correspondence):
            part = _Part(q[here], k[here[0]], here[1].start, heads // k.shape[1], scale)
            log_sums = [part.log_sums(span) for span in layout.keys]
            portions = torch.stack([row_sums for row_sums, _ in log_sums]).softmax(0)
            numbers = iter(range(len(references)))
            for span, sums, portion in zip(layout.keys, log_sums, portions, strict=True):
                if span.role is not Role.REFERENCE:
                    share[here][:, :, 0 if span.role is Role.TEXT else 1] += portion
                    continue
                r = next(numbers)
                share[here][:, :, 2 + r] = portion
                r2g_sums, g2r_sums, pairs = part.marginals(
                    span, *sums, portion, *plans[r], correspondence
                )
                paper_r2g[here][:, :, r] = r2g_sums.div_(span.length)
                g2r[r][here] = g2r_sums.div_(queries)
                if pairs is not None:
                    correspondences[r][here[0]] += pairs.div_(heads)
    return Marginals(share, paper_r2g, g2r, tuple(correspondences))


@dataclass(frozen=True)
class _Part:
    """Some items and heads of a call: q (items, heads, rows, dim), k (items, key heads, …).

    first_head: the number of its first head in the call. heads_each: how many share a key head.
    """

    q: Tensor
    k: Tensor
    first_head: int
    heads_each: int
    scale: float

    def _inputs(self, span: Span) -> tuple[Tensor, Tensor]:
        return self.q, self.k[:, :, span.slice]

    @property
    def _layout(self) -> tuple[int, ...]:
        """Strides and heads, which tell the kernels where to find the inputs."""
        heads = (self.q.shape[1], self.first_head, self.heads_each)
        return *self.q.stride()[:3], *self.k.stride()[:3], *heads

    def _options(self, tile: Tile) -> dict[str, int]:
        """Constants that both kernels are compiled for."""
        return {
            "BLOCK_ROWS": tile.rows,
            "BLOCK_COLUMNS": tile.columns,
            "BLOCK_DIM": padded(self.q.shape[-1]),
            "num_warps": tile.warps,
            "num_stages": tile.stages,
        }

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.q.device)

    def log_sums(self, span: Span) -> tuple[Tensor, Tensor]:
        """Log-sum-exp of the logits with a span's keys, of each row and of each column.

        (items, heads, rows) and (items, heads, keys); the latter is empty unless the span is a
        reference.
        """
        items, heads, rows, dim = self.q.shape
        tile = tiles(self.q.dtype, dim)[0]
        blocks = math.ceil(rows / tile.rows)
        over_rows = span.role is Role.REFERENCE
        sums = self._empty(items, heads, rows)
        parts = self._empty(items, heads, blocks, span.length if over_rows else 0)
        _kernels().log_sums[blocks, items * heads](
            *(*self._inputs(span), sums, parts),
            *(*self._layout, rows, span.length, dim, self.scale),
            WITH_COLUMNS=over_rows,
            **self._options(tile),
        )
        return sums, parts.logsumexp(2)

    def marginals(
        self,
        span: Span,
        row_sums: Tensor,
        column_sums: Tensor,
        share: Tensor,
        by_row: PoolingPlan,
        by_column: PoolingPlan,
        correspondence: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The sums of one reference.

        M_g over its tokens, (items, heads, rows); M_r and the model's attention over the rows,
        (items, heads, 2, keys); both over heads and pooled, (items, 2, generated cells, reference
        cells), if there is a correspondence.
        """
        items, heads, rows, dim = self.q.shape
        r2g = self._empty(items, heads, by_column.blocks, rows)
        g2r = self._empty(items, heads, 2, by_row.blocks, span.length)
        pairs = self._empty(items, 2, by_row.slots, by_column.slots) if correspondence else None
        at_once = heads if correspondence else 1
        grid = (by_column.blocks, by_row.blocks, items * heads // at_once)
        _kernels().marginal_sums[grid](
            *(*self._inputs(span), row_sums, column_sums, share, by_row.order, by_column.order),
            *(by_row.weights, by_column.weights, r2g, g2r, g2r if pairs is None else pairs),
            *(*self._layout, at_once, rows, span.length, dim, self.scale),
            *(by_row.slots // by_row.blocks, by_column.slots // by_column.blocks),
            WITH_PAIRS=correspondence,
            ROW_CELLS=by_row.cells_each,
            COLUMN_CELLS=by_column.cells_each,
            **self._options(tiles(self.q.dtype, dim)[1]),
        )
        if pairs is not None:
            pairs = by_column.gathered(by_row.gathered(pairs, -2), -1)
        return r2g.sum(2), g2r.sum(3), pairs


def _kernels() -> Any:
    """Imported only when they run: without Triton, this fails."""
    from . import kernels

    return kernels


def _chunks(
    batch: int, heads: int, plans: list[tuple[PoolingPlan, PoolingPlan]], correspondence: bool
) -> Iterator[tuple[slice, slice]]:
    """Cut a call into items × heads whose partial sums fit in PARTIAL_BYTES."""
    pair = item = 0
    for by_row, by_column in plans:
        tokens = (by_row.tokens * by_column.blocks, 2 * by_row.blocks * by_column.tokens)
        pair = max(pair, 4 * sum(tokens))
        item = max(item, 8 * by_row.slots * by_column.slots * correspondence)
    items = PARTIAL_BYTES // (heads * pair + item)
    if items:
        for first in range(0, batch, items):
            yield slice(first, first + items), slice(0, heads)
        return
    heads_at_once = max(1, PARTIAL_BYTES // pair)
    for number, first in itertools.product(range(batch), range(0, heads, heads_at_once)):
        yield slice(number, number + 1), slice(first, first + heads_at_once)
