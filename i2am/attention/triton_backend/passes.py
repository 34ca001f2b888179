"""The passes of the Triton kernels over one call.

With S the logits, g a generated token, r one of a reference, and L[g] the log-sum-exp of g's row
over all keys, which the model's own attention gives if it was tapped:

    row_sums      l[g] = LSE_r S, and with L the share exp(l − L); of the text, too. Without a tap,
                  of all keys, which gives L
    row_factors   the share again, and what M_r = exp(S − l) counts in each sum over g
    column_sums   G2R: Σ_g M_r and Σ_g M_r · share; and c[r] = LSE_g S, from Σ_g M_r · exp(l)
    pair_sums     the correspondence: M_r and M_r · share, over heads, pooled; and R2G, by blocks:
                  Σ_r M_g, with M_g = exp(S − c) = M_r · exp(l − c)
    r2g_totals    R2G from those
    row_sums      R2G where there is no correspondence: Σ_r exp(S − c)

If nothing but shares and G2R in the model's definition is asked for, and L is known:

    model_sums    of P = exp(S − L): Σ_r P, the share, and Σ_g P
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
from ..call_inputs import SoftmaxWeights, part_of_mask
from ..marginals import (
    LOWEST,
    Marginals,
    fill_own_share,
    leave_out_hidden,
    softmax_log_sums,
    weigh_paper_r2g,
)
from ..pooling import correspondence_grid
from .pooling_plan import PoolingPlan, padded, plan_pooling
from .tiles import FACTORS, FACTORS_AT_ONCE, Tile, Tiles, tiles_for

PARTIAL_BYTES = 64 * 2**20  # of sums of blocks, that are still to be added up, at once


def kernel_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float,
    correspondence: bool,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    paper: bool = True,
    log_sum: Tensor | None = None,
) -> Marginals:
    """What `blocked_marginals` gives, by the kernels, for a call that suits them.

    q: of the generated tokens alone. mask: additive, (batch|1, heads|1, generated, keys). weights:
    (batch, softmaxes, generated). paper: whether its maps are of use; zero if not. log_sum: L,
    (batch, heads, generated), if it is known.
    """
    references = layout.references
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    batch, heads, queries, dim = q.shape
    tile = tiles_for(q.dtype, dim, _capability(q.device))
    plans = [
        _plans(layout.generated, span, tile, q.device) for span in references if correspondence
    ]
    counted = None if weights is None else SoftmaxWeights.of(weights)

    numbers: dict[str, Any] = {"dtype": torch.float32, "device": q.device}
    share = torch.zeros(2 + len(references), batch, heads, queries, **numbers)
    paper_r2g = torch.zeros(len(references), batch, heads, queries, **numbers)
    g2r: list[Tensor] = []
    correspondences: list[Tensor] = []
    on_device = contextlib.nullcontext() if q.device.type == "cpu" else torch.cuda.device(q.device)
    with on_device:
        passes = _Passes(q, k, scale, tile, mask)
        known = None if counted is not None or log_sum is None else log_sum.contiguous()
        if known is not None:
            known = passes.seen(known)
        read = [s for s in layout.keys if known is None or s.role is not Role.GENERATED]
        if known is not None and not (paper or correspondence):
            read = [s for s in read if s.role is not Role.REFERENCE]
            g2r = [passes.model_sums(s, known, share[2 + r]) for r, s in enumerate(references)]
        sums = {span: passes.log_sums(span, known) for span in read}
        whole = (
            {0: known}
            if known is not None
            else {number: passes.seen(whole) for number, whole in softmax_log_sums(sums).items()}
        )
        for span, own in sums.items():
            weighted = None if counted is None else counted.one(span.softmax)
            if span.role is not Role.REFERENCE:
                portion = torch.sub(own, whole[span.softmax]).exp_()
                if weighted is not None:
                    portion *= weighted.portions.unsqueeze(1)
                share[0 if span.role is Role.TEXT else 1].add_(portion)
                continue
            r = len(g2r)
            rows = passes.rows(own, whole[span.softmax], weighted, share[2 + r])
            columns = passes.column_sums(span, rows)
            g2r.append(columns.g2r)
            beside = paper and correspondence and passes.fits_r2g(plans[r][1])
            if paper and not beside:
                passes.r2g_sums(span, columns.log_sums, paper_r2g[r])
            if correspondence:
                r2g = paper_r2g[r] if beside else None
                pairs = passes.pair_sums(span, rows, columns, r2g, *plans[r])
                correspondences.append(pairs.div_(heads))
            if paper:
                paper_r2g[r].div_(span.length)
    share, paper_r2g = share.movedim(0, 2), paper_r2g.movedim(0, 2)
    if known is not None:
        fill_own_share(share, layout)
    if counted is not None:
        weigh_paper_r2g(paper_r2g, counted.emphasis, layout)
    elif mask is not None:
        leave_out_hidden(paper_r2g)
    over_references = tuple(sums.div_(queries) for sums in g2r)
    return Marginals(share, paper_r2g, over_references, tuple(correspondences))


@dataclass(frozen=True)
class _Rows:
    """What is known of the rows of one reference.

    log_sums: l where it is `seen`; share: (items, heads, rows) both. levels: the highest l, (items,
    heads). emphasis: how much each row's M_r counts, (items, rows), if they do not count alike.
    factors: of `row_factors`, (items, heads, rows, FACTORS).
    """

    log_sums: Tensor
    share: Tensor
    levels: Tensor
    emphasis: Tensor | None
    factors: Tensor

    def of(self, items: slice) -> _Rows:
        """The same of some items."""
        emphasis = None if self.emphasis is None else self.emphasis[items]
        every = self.log_sums, self.share, self.levels, self.factors
        log_sums, share, levels, factors = (x[items] for x in every)
        return _Rows(log_sums, share, levels, emphasis, factors)


@dataclass(frozen=True)
class _Columns:
    """What is known of the columns of one reference.

    log_sums: c of base 2, (items, heads, keys). g2r: Σ_g M_r and Σ_g P, (items, heads, 2, keys).
    factors: (items, heads, keys, FACTORS). lacking: where a block of keys has one without, (items,
    heads, blocks).
    """

    log_sums: Tensor
    g2r: Tensor
    factors: Tensor
    lacking: Tensor

    def of(self, items: slice) -> _Columns:
        """The same of some items."""
        every = self.log_sums, self.g2r, self.factors, self.lacking
        return _Columns(*(x[items] for x in every))


@dataclass(frozen=True)
class _Passes:
    """Over one call: q (items, heads, rows, dim), k (items, key heads, keys, dim)."""

    q: Tensor
    k: Tensor
    scale: float
    tiles: Tiles
    mask: Tensor | None

    def seen(self, log_sums: Tensor) -> Tensor:
        """Log-sum-exps of rows, infinite for those that a mask hides altogether."""
        if self.mask is None:
            return log_sums
        return torch.where(log_sums > -math.inf, log_sums, math.inf)

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

    def rows(
        self, own: Tensor, whole: Tensor, weighted: SoftmaxWeights | None, share: Tensor
    ) -> _Rows:
        """What `column_sums` and `pair_sums` need, with the share written into `share`.

        own: l, whole: its softmax's L where it is `seen`; (items, heads, rows) both. weighted: how
        much that softmax counts, (items, rows).
        """
        items, heads, rows = own.shape
        levels = own.amax(-1)
        if self.mask is not None:
            levels.clamp_(min=LOWEST / 2)  # of a reference that is hidden from all
        portions = emphasis = None
        if weighted is not None:
            portions, emphasis = weighted.portions.contiguous(), weighted.emphasis.contiguous()
        factors = self._factors(rows)
        _kernels().row_factors[math.ceil(rows / FACTORS_AT_ONCE), items * heads](
            *(own, whole, levels, portions, emphasis, share, factors, heads, rows),
            WEIGHTED=weighted is not None,
            BLOCK_ROWS=FACTORS_AT_ONCE,
        )
        return _Rows(self.seen(own), share, levels, emphasis, factors)

    def column_sums(self, span: Span, rows: _Rows) -> _Columns:
        """What is known of a reference's columns, from what is known of its rows."""
        items, heads = rows.levels.shape
        tile = self.tiles.column_sums
        columns, g2r = (self._empty(items, heads, *s, span.length) for s in ((), (2,)))
        factors, blocks = self._factors(span.length), math.ceil(span.length / tile.columns)
        lacking = self._empty(items, heads, blocks)
        _kernels().column_sums[blocks, items * heads](
            *self._inputs(span),
            *(rows.log_sums, rows.factors, rows.levels, columns, g2r, factors, lacking),
            *self._layout(span),
            HALF=self._half,
            **self._options(tile),
        )
        return _Columns(columns, g2r, factors, lacking)

    def pair_sums(
        self,
        span: Span,
        rows: _Rows,
        columns: _Columns,
        r2g: Tensor | None,
        by_row: PoolingPlan,
        by_column: PoolingPlan,
    ) -> Tensor:
        """M_r and P over heads and pooled: (items, 2, generated cells, reference cells).

        r2g: where to write Σ_r M_g, (items, heads, rows).
        """
        each = 8 * by_row.slots * by_column.slots
        each += 0 if r2g is None else self._r2g_bytes(by_column)
        at_once = max(1, PARTIAL_BYTES // each)
        found: list[Tensor] = []
        for first in range(0, len(self.q), at_once):
            items = slice(first, first + at_once)
            mask = part_of_mask(self.mask, (items, slice(None)))
            part = replace(self, q=self.q[items], k=self.k[items], mask=mask)
            down, across = rows.of(items), columns.of(items)
            pairs = self._empty(len(part.q), 2, by_row.slots, by_column.slots)
            by_block = pairs if r2g is None else self._empty(*part._r2g_blocks(by_column))
            _kernels().pair_sums[by_column.blocks, by_row.blocks, len(part.q)](
                *(*part._inputs(span), down.log_sums, down.share, across.factors),
                *(down.emphasis, by_row.order, by_column.order),
                *(by_row.weights, by_column.weights, pairs, by_block),
                *part._layout(span),
                *(by_row.slots // by_row.blocks, by_column.slots // by_column.blocks),
                HALF=self._half,
                WEIGHTED=down.emphasis is not None,
                WITH_R2G=r2g is not None,
                ROW_CELLS=by_row.cells_each,
                COLUMN_CELLS=by_column.cells_each,
                **self._options(self.tiles.of_pairs(by_column.cells_each > 0)),
            )
            if r2g is not None:
                part._r2g_totals(span, down, across, by_block, r2g[items])
            found.append(by_column.gathered(by_row.gathered(pairs, -2), -1))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _r2g_totals(
        self, span: Span, down: _Rows, across: _Columns, by_block: Tensor, out: Tensor
    ) -> None:
        """Σ_r M_g into `out`, (items, heads, rows), from `by_block` of pair_sums."""
        items, heads, parts, rows = by_block.shape
        tile = self.tiles.row_sums
        _kernels().r2g_totals[math.ceil(rows / tile.rows), items * heads](
            *(*self._inputs(span), down.log_sums, down.levels, by_block),
            *(across.log_sums, across.factors, across.lacking, out),
            *(parts, across.lacking.shape[-1]),
            *self._layout(span),
            **self._options(tile),
        )

    def fits_r2g(self, by_column: PoolingPlan) -> bool:
        """Whether one item's sums over blocks of columns are few enough for pair_sums to add R2G.

        A video beside a long reference has too many.
        """
        return self._r2g_bytes(by_column) <= PARTIAL_BYTES

    def _r2g_bytes(self, by_column: PoolingPlan) -> int:
        """Of one item."""
        return 4 * math.prod(self._r2g_blocks(by_column)[1:])

    def _r2g_blocks(self, by_column: PoolingPlan) -> tuple[int, int, int, int]:
        """(items, heads, column blocks, rows)"""
        items, heads, rows, _ = self.q.shape
        return items, heads, by_column.blocks, rows

    def model_sums(self, span: Span, whole: Tensor, share: Tensor) -> Tensor:
        """Σ_r P into `share`, (items, heads, rows); gives Σ_g P as `column_sums`, 0 for M_r.

        whole: L, (items, heads, rows).
        """
        items, heads, rows, _ = self.q.shape
        tile = self.tiles.model_sums
        blocks = math.ceil(rows / tile.rows)
        at_once = max(1, PARTIAL_BYTES // (4 * blocks * span.length))
        found = torch.zeros(items, heads, 2, span.length, device=self.q.device)
        of_model = found.flatten(0, 1)[:, 1]
        for first in range(0, items * heads, at_once):
            here = min(at_once, items * heads - first)
            over_rows = self._empty(here, blocks, span.length)
            _kernels().model_sums[blocks, here](
                *(*self._inputs(span), whole, share, over_rows, first),
                *self._layout(span),
                **self._options(tile),
            )
            torch.sum(over_rows, 1, out=of_model[first : first + here])
        return found

    def _inputs(self, span: Span) -> tuple[Tensor, Tensor]:
        return self.q, self.k[:, :, span.slice]

    def _layout(self, span: Span) -> tuple[Any, ...]:
        """Strides, heads, sizes and the mask, which tell the kernels where to find the inputs."""
        _, heads, rows, _ = self.q.shape
        strides = *self.q.stride()[:2], *self.k.stride()[:2]
        sizes = heads, heads // self.k.shape[1], rows, span.length, self.scale
        if self.mask is None:
            return *strides, *sizes, self.q, 0, 0, 0, 0
        mask = self.mask[..., span.slice].expand(*self.q.shape[:3], -1)
        return *strides, *sizes, mask, *mask.stride()

    def _options(self, tile: Tile) -> dict[str, int]:
        """Constants that a kernel is compiled for."""
        dim = self.q.shape[-1]
        return {
            "MASKED": self.mask is not None,
            "BLOCK_ROWS": tile.rows,
            "BLOCK_COLUMNS": tile.columns,
            "Q_ROW": self.q.stride(2),
            "K_COLUMN": self.k.stride(2),
            "DIM": dim,
            "BLOCK_DIM": padded(dim),
            "num_warps": tile.warps,
            "num_stages": tile.stages,
        }

    @property
    def _half(self) -> bool:
        return self.q.dtype != torch.float32

    def _factors(self, tokens: int) -> Tensor:
        """For one reference's rows or columns: (items, heads, tokens, FACTORS), not filled in."""
        kind = torch.bfloat16 if self._half else torch.float32
        return self.q.new_empty(*self.q.shape[:2], tokens, FACTORS, dtype=kind)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.q.device)


def _plans(
    generated: Span, reference: Span, tiles: Tiles, device: torch.device
) -> tuple[PoolingPlan, PoolingPlan]:
    """How the correspondence of a reference is pooled, over the result and over the reference."""
    grid = grid_of(reference)
    tile = tiles.of_pairs(correspondence_grid(grid) != grid)
    return (
        plan_pooling(grid_of(generated), tile.rows, True, device),
        plan_pooling(grid, tile.columns, False, device),
    )


@lru_cache(maxsize=16)
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (9, 0)


def _kernels() -> Any:
    """Imported only when they run: without Triton, this fails."""
    from . import kernels

    return kernels
