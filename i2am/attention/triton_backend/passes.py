"""The passes of the Triton kernels over one call.

With S the logits, g a generated token, r one of a reference, and L[g] the log-sum-exp of g's row
over all keys, which the model's own attention gives if it was tapped:

    row_sums      l[g] = LSE_r S, and with L the share exp(l − L); of the text, too. Without a tap,
                  of all keys, which gives L
    column_sums   c[r] = LSE_g S, and G2R: Σ_g exp(S − l), Σ_g exp(S − l) · share
    row_sums      R2G: Σ_r exp(S − c)
    pair_sums     the correspondence: exp(S − l) and its product with the share, over heads, pooled
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...tokens import Role, Span, TokenLayout, grid_of
from ..call_inputs import SoftmaxWeights
from ..marginals import Marginals, fill_own_share, softmax_log_sums, weigh_paper_r2g
from .pooling_plan import PoolingPlan, padded, plan_pooling

PARTIAL_BYTES = 64 * 2**20  # of sums of blocks, that are still to be added up, at once


@dataclass(frozen=True)
class Tile:
    """How many queries and keys a program of a kernel takes at once, and with how many warps."""

    rows: int
    columns: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Tiles:
    """The tiles of the three kernels."""

    row_sums: Tile
    column_sums: Tile
    pair_sums: Tile


def tiles(dtype: torch.dtype, dim: int, capability: tuple[int, int]) -> Tiles:
    """As large as a card's shared memory allows. capability: of the card, for example (8, 6).

    On an H100 those of prototypes that were timed there; on others what fits (tests/attention).
    """
    if dtype == torch.float32:  # without tensor cores
        return Tiles(Tile(32, 32, 8, 1), Tile(32, 32, 8, 1), Tile(32, 32, 8, 1))
    if padded(dim) > 128:
        return Tiles(Tile(64, 32, 4, 2), Tile(32, 64, 4, 2), Tile(64, 64, 8, 1))
    if capability in _ROOMY:
        return Tiles(Tile(128, 64, 8, 3), Tile(128, 64, 4, 3), Tile(128, 128, 8, 2))
    return Tiles(Tile(128, 64, 8, 2), Tile(64, 64, 4, 2), Tile(128, 64, 8, 1))


_ROOMY = ((8, 0), (9, 0), (10, 0))  # more than 160 KiB of shared memory, not 99


def kernel_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float,
    correspondence: bool,
    weights: Tensor | None = None,
    paper: bool = True,
    log_sum: Tensor | None = None,
) -> Marginals:
    """What `blocked_marginals` gives, by the kernels, for a call that suits them.

    q: of the generated tokens alone. weights: (batch, softmaxes, generated). paper: whether its
    maps are of use; zero if not. log_sum: L, (batch, heads, generated), if it is known.
    """
    references = layout.references
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    batch, heads, queries, dim = q.shape
    tile = tiles(q.dtype, dim, _capability(q.device))
    plans = [
        (
            plan_pooling(grid_of(layout.generated), tile.pair_sums.rows, True, True, q.device),
            plan_pooling(grid_of(span), tile.pair_sums.columns, True, False, q.device),
        )
        for span in references
        if correspondence
    ]

    counted = None if weights is None else SoftmaxWeights.of(weights)

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float32, device=q.device)

    share = zeros(2 + len(references), batch, heads, queries)
    paper_r2g = zeros(len(references), batch, heads, queries)
    g2r = tuple(zeros(batch, heads, 2, span.length) for span in references)
    correspondences: list[Tensor] = []
    on_device = contextlib.nullcontext() if q.device.type == "cpu" else torch.cuda.device(q.device)
    with on_device:
        passes = _Passes(q, k, scale, tile)
        known = None if counted is not None or log_sum is None else log_sum.contiguous()
        read = [s for s in layout.keys if known is None or s.role is not Role.GENERATED]
        sums = {span: passes.log_sums(span, known) for span in read}
        whole = softmax_log_sums(sums) if known is None else {0: known}
        numbers = iter(range(len(references)))
        for span, own in sums.items():
            r = next(numbers) if span.role is Role.REFERENCE else None
            portion = torch.empty_like(own) if r is None else share[2 + r]
            torch.sub(own, whole[span.softmax], out=portion).exp_()
            even = None
            if counted is not None:
                portion *= counted.portions[:, span.softmax].unsqueeze(1)
                even = counted.emphasis[:, span.softmax].contiguous()
            if r is None:
                share[0 if span.role is Role.TEXT else 1].add_(portion)
                continue
            columns = passes.column_sums(span, own, portion, even, g2r[r])
            g2r[r].div_(queries)
            if paper:
                passes.r2g_sums(span, columns, paper_r2g[r])
                paper_r2g[r].div_(span.length)
            if correspondence:
                pairs = passes.pair_sums(span, own, portion, even, *plans[r])
                correspondences.append(pairs.div_(heads))
    share, paper_r2g = share.movedim(0, 2), paper_r2g.movedim(0, 2)
    if known is not None:
        fill_own_share(share, layout)
    if counted is not None:
        weigh_paper_r2g(paper_r2g, counted.emphasis, layout)
    return Marginals(share, paper_r2g, g2r, tuple(correspondences))


@dataclass(frozen=True)
class _Passes:
    """Over one call: q (items, heads, rows, dim), k (items, key heads, keys, dim)."""

    q: Tensor
    k: Tensor
    scale: float
    tiles: Tiles

    def log_sums(self, span: Span, whole: Tensor | None) -> Tensor:
        """LSE over a span's keys, of each row: (items, heads, rows). whole: L, if it is known."""
        sums = self._empty(*self.q.shape[:3])
        offsets = sums if whole is None else whole
        self._row_sums(span, offsets, sums, BY_COLUMN=False, KNOWN=whole is not None)
        return sums

    def r2g_sums(self, span: Span, columns: Tensor, out: Tensor) -> None:
        """Σ_r exp(S − c) into `out`, (items, heads, rows). columns: c, (items, heads, keys)."""
        self._row_sums(span, columns, out, BY_COLUMN=True, KNOWN=True)

    def _row_sums(self, span: Span, offsets: Tensor, out: Tensor, **options: bool) -> None:
        items, heads, rows, _ = self.q.shape
        tile = self.tiles.row_sums
        _kernels().row_sums[math.ceil(rows / tile.rows), items * heads](
            *(*self._inputs(span), offsets, out),
            *self._layout(span),
            **options,
            **self._options(tile),
        )

    def column_sums(
        self, span: Span, own: Tensor, share: Tensor, even: Tensor | None, out: Tensor
    ) -> Tensor:
        """c, (items, heads, keys), and the sums of M_r and of P into `out`, (…, heads, 2, keys).

        own: l, share: of the reference; (items, heads, rows) each. even: how much each row's M_r
        counts, (items, rows), if they do not count alike.
        """
        items, heads, _, _ = self.q.shape
        tile = self.tiles.column_sums
        columns = self._empty(items, heads, span.length)
        _kernels().column_sums[math.ceil(span.length / tile.columns), items * heads](
            *(*self._inputs(span), own, share, own if even is None else even, columns, out),
            *self._layout(span),
            HALF=self._half,
            WEIGHTED=even is not None,
            **self._options(tile),
        )
        return columns

    def pair_sums(
        self,
        span: Span,
        own: Tensor,
        share: Tensor,
        even: Tensor | None,
        by_row: PoolingPlan,
        by_column: PoolingPlan,
    ) -> Tensor:
        """M_r and P over heads and pooled: (items, 2, generated cells, reference cells)."""
        at_once = max(1, PARTIAL_BYTES // (8 * by_row.slots * by_column.slots))
        found: list[Tensor] = []
        for first in range(0, len(self.q), at_once):
            items = slice(first, first + at_once)
            part = replace(self, q=self.q[items], k=self.k[items])
            pairs = self._empty(len(part.q), 2, by_row.slots, by_column.slots)
            _kernels().pair_sums[by_column.blocks, by_row.blocks, len(part.q)](
                *(*part._inputs(span), own[items], share[items]),
                *(own if even is None else even[items], by_row.order, by_column.order),
                *(by_row.weights, by_column.weights, pairs),
                *part._layout(span),
                *(by_row.slots // by_row.blocks, by_column.slots // by_column.blocks),
                HALF=self._half,
                WEIGHTED=even is not None,
                ROW_CELLS=by_row.cells_each,
                COLUMN_CELLS=by_column.cells_each,
                **self._options(self.tiles.pair_sums),
            )
            found.append(by_column.gathered(by_row.gathered(pairs, -2), -1))
        return found[0] if len(found) == 1 else torch.cat(found)

    @property
    def _half(self) -> bool:
        return self.q.dtype != torch.float32

    def _inputs(self, span: Span) -> tuple[Tensor, Tensor]:
        return self.q, self.k[:, :, span.slice]

    def _layout(self, span: Span) -> tuple[int | float, ...]:
        """Strides, heads and sizes, which tell the kernels where to find the inputs."""
        _, heads, rows, dim = self.q.shape
        strides = *self.q.stride()[:3], *self.k.stride()[:3]
        return *strides, heads, heads // self.k.shape[1], rows, span.length, dim, self.scale

    def _options(self, tile: Tile) -> dict[str, int]:
        """Constants that a kernel is compiled for."""
        return {
            "BLOCK_ROWS": tile.rows,
            "BLOCK_COLUMNS": tile.columns,
            "BLOCK_DIM": padded(self.q.shape[-1]),
            "num_warps": tile.warps,
            "num_stages": tile.stages,
        }

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.q.device)


@lru_cache(maxsize=16)
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (8, 0)


def _kernels() -> Any:
    """Imported only when they run: without Triton, this fails."""
    from . import kernels

    return kernels
