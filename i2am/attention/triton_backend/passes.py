"""The passes of the Triton kernels over one call.

With S the logits, g a generated token, r one of a reference, and L[g] the log-sum-exp of g's row
over all keys, which the model's own attention gives if it was tapped:

    row_sums      l[g] = LSE_r S, and with L the share exp(l − L); of the text, too. Without a tap,
                  of all keys, which gives L
    column_sums   c[r] = LSE_g S, and G2R: Σ_g exp(S − l), Σ_g exp(S − l) · share
    pair_sums     the correspondence: exp(S − l) and its product with the share, over heads, pooled;
                  and R2G: Σ_r exp(S − c)
    row_sums      R2G, where there is no correspondence

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
from .tiles import Tile, Tiles, tiles_for

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
            r = len(g2r)
            is_reference = span.role is Role.REFERENCE
            portion = share[2 + r] if is_reference else torch.empty_like(own)
            torch.sub(own, whole[span.softmax], out=portion).exp_()
            even = None
            if counted is not None:
                portion *= counted.portions[:, span.softmax].unsqueeze(1)
                even = counted.emphasis[:, span.softmax].contiguous()
            if not is_reference:
                share[0 if span.role is Role.TEXT else 1].add_(portion)
                continue
            offsets = passes.seen(own)
            columns, over_reference = passes.column_sums(span, own, offsets, portion, even)
            g2r.append(over_reference)
            beside = paper and correspondence and passes.fits_r2g(plans[r][1])
            if paper and not beside:
                passes.r2g_sums(span, columns, paper_r2g[r])
            if correspondence:
                r2g = (columns, paper_r2g[r]) if beside else None
                pairs = passes.pair_sums(span, offsets, portion, even, r2g, *plans[r])
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

    def column_sums(
        self, span: Span, own: Tensor, offsets: Tensor, share: Tensor, even: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """c of base 2, (items, heads, keys), and Σ_g M_r and Σ_g P, (items, heads, 2, keys).

        own: l, offsets: the same where it is `seen`, share: of the reference; (items, heads, rows)
        each. even: how much each row's M_r counts, (items, rows), if they do not count alike.
        """
        items, heads, _, _ = self.q.shape
        tile = self.tiles.column_sums
        columns, over_rows = (self._empty(items, heads, *s, span.length) for s in ((), (2,)))
        levels = own.amax(-1)
        if self.mask is not None:
            levels.clamp_(min=LOWEST)  # of a reference that is hidden from all
        lifts = (own - levels.unsqueeze(-1)).exp_()
        _kernels().column_sums[math.ceil(span.length / tile.columns), items * heads](
            *(*self._inputs(span), offsets, share, own if even is None else even),
            *(levels, lifts, columns, over_rows),
            *self._layout(span),
            WEIGHTED=even is not None,
            **self._options(tile),
        )
        return columns, over_rows

    def pair_sums(
        self,
        span: Span,
        offsets: Tensor,
        share: Tensor,
        even: Tensor | None,
        r2g: tuple[Tensor, Tensor] | None,
        by_row: PoolingPlan,
        by_column: PoolingPlan,
    ) -> Tensor:
        """M_r and P over heads and pooled: (items, 2, generated cells, reference cells).

        offsets, share, even: as in `column_sums`. r2g: c, (items, heads, keys), and where to write
        Σ_r exp(S − c), (items, heads, rows).
        """
        each = 8 * by_row.slots * by_column.slots
        each += 0 if r2g is None else self._r2g_bytes(by_column)
        at_once = max(1, PARTIAL_BYTES // each)
        found: list[Tensor] = []
        for first in range(0, len(self.q), at_once):
            items = slice(first, first + at_once)
            mask = part_of_mask(self.mask, (items, slice(None)))
            part = replace(self, q=self.q[items], k=self.k[items], mask=mask)
            pairs = self._empty(len(part.q), 2, by_row.slots, by_column.slots)
            columns = offsets if r2g is None else by_column.in_order(r2g[0][items])
            by_block = pairs if r2g is None else self._empty(*part._r2g_blocks(by_column))
            _kernels().pair_sums[by_column.blocks, by_row.blocks, len(part.q)](
                *(*part._inputs(span), offsets[items], share[items], columns),
                *(offsets if even is None else even[items], by_row.order, by_column.order),
                *(by_row.weights, by_column.weights, pairs, by_block),
                *part._layout(span),
                *(by_row.slots // by_row.blocks, by_column.slots // by_column.blocks),
                HALF=self.q.dtype != torch.float32,
                WEIGHTED=even is not None,
                WITH_R2G=r2g is not None,
                ROW_CELLS=by_row.cells_each,
                COLUMN_CELLS=by_column.cells_each,
                **self._options(self.tiles.of_pairs(by_column.cells_each > 0)),
            )
            if r2g is not None:
                torch.sum(by_block, 2, out=r2g[1][items])
            found.append(by_column.gathered(by_row.gathered(pairs, -2), -1))
        return found[0] if len(found) == 1 else torch.cat(found)

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
