"""One attention call → what it says about its references, without ever holding its full matrix.

With the logits S = q·kᵀ/√d of the generated tokens g (rows) and the tokens r of one reference
(columns), the paper's two score matrices are (I2AM, section 3):

    M_g = softmax of S over g, one distribution over the result for each reference token;  (R2G)
    M_r = softmax of S over r, one distribution over the reference for each generated token. (G2R)

Their mean over the other side's tokens is a map over one picture. The model's own softmax runs
over *all* keys; summed over the reference it is the share of its attention a generated token
gives it, which is the model's R2G, and its column means are the model's G2R. Both definitions are
built from generated queries: in the last block the queries of reference tokens are never trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import LayoutMismatch
from .geometry import Grid, Role, Span, TokenLayout, spread

SCRATCH_BYTES = 256 * 2**20
CORRESPONDENCE_SIDE = 32
_TEMPORARIES = 3  # blocks of logits alive at once: the logits, their exponentials, a copy in flight


@dataclass(frozen=True)
class Marginals:
    """The sums of one attention call, float32, on the device of its queries.

    share: (batch, heads, 2 + references, generated). The attention each generated token gives to
        the text, to the picture itself, to reference 1, 2, …; sums to one over axis 2.
    paper_r2g: (batch, heads, references, generated). Mean over r of M_g; sums to one over g.
    g2r: per reference (batch, heads, 2, reference). Mean over g of M_r, which sums to one, and of
        the model's attention, which sums to the mean share.
    correspondence: per reference (batch, 2, generated cells, reference cells), mean over heads of
        M_r, whose rows sum to one, and of the model's attention, whose rows sum to the share;
        pooled to the grids of `correspondence_grid`. Empty if it was not asked for.
    """

    share: Tensor
    paper_r2g: Tensor
    g2r: tuple[Tensor, ...]
    correspondence: tuple[Tensor, ...]


def correspondence_grid(grid: Grid) -> Grid:
    """The grid a correspondence is pooled to on one side."""
    return grid.at_most(CORRESPONDENCE_SIDE)


def mean_over_cells(rows: Tensor, source: Grid, target: Grid) -> Tensor:
    """Average (…, source area, n) over the source cells in each target cell, by their area."""
    if source == target:
        return rows
    pooled = spread(rows.mT, source, target)
    return (pooled / spread(rows.new_ones(source.area), source, target)).mT


def attention_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    correspondence: bool = True,
    scratch_bytes: int = SCRATCH_BYTES,
) -> Marginals:
    """Sum the attention between the generated tokens and each reference.

    q: (batch, heads, queries, dim), k: (batch, heads or fewer, keys, dim), as the model's own
    attention gets them, after positions and norms; fewer key heads are shared by groups of heads.
    scale: of the logits, 1/√dim if left out. mask: as torch's scaled_dot_product_attention takes
    it, broadcastable to (batch, heads, queries, keys).

    Works in float32, block by block within `scratch_bytes`. Raises LayoutMismatch if the layout
    does not account for every key, or holds no reference.
    """
    q, k, mask = _in_order(q, k, mask, layout)
    if layout.key_count != k.shape[2]:
        raise LayoutMismatch(f"{k.shape[2]} keys, but the layout accounts for {layout.key_count}")
    references = layout.references
    if not references:
        raise LayoutMismatch("the call holds no reference")
    rows = layout.generated
    batch, heads, _, dim = q.shape
    q = q[:, :, rows.slice]
    k = k.repeat_interleave(heads // k.shape[1], dim=1) if k.shape[1] != heads else k
    masked = mask is not None
    if mask is not None:
        mask = _rows_of(mask, rows, q.shape[2], k.shape[2])
    factor = dim**-0.5 if scale is None else scale

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float32, device=q.device)

    share = zeros(batch, heads, 2 + len(references), rows.length)
    paper_r2g = zeros(batch, heads, len(references), rows.length)
    g2r = tuple(zeros(batch, heads, 2, span.length) for span in references)
    matches = tuple(
        zeros(batch, 2, rows.length, correspondence_grid(_grid(span)).area)
        for span in references
        if correspondence
    )

    for items, some_heads, tiles in _blocks(q, k.shape[2], scratch_bytes):
        here = (items, some_heads)
        some_q = q[here].float() * factor
        some_k = k[here].float().mT
        column_lse = [
            torch.full((*some_k.shape[:2], span.length), -math.inf, device=q.device)
            for span in references
        ]
        logits = torch.empty(0)
        for tile in tiles:
            logits = _logits(some_q[:, :, tile], some_k, mask, here, tile)
            row_lse = _share_out(logits, layout, share[here][..., tile])
            for index, span in enumerate(references):
                block = logits[..., span.slice]
                column_lse[index] = torch.logaddexp(column_lse[index], block.logsumexp(-2))
                within = _hide((block - row_lse[index].unsqueeze(-1)).exp_(), masked)
                part = share[here][:, :, 2 + index, tile]
                # One pass for both definitions: rows weighted by one, and by their share.
                weights = torch.stack((torch.ones_like(part), part), dim=-2)
                g2r[index][here] += weights @ within
                if correspondence:
                    grid = _grid(span)
                    pairs = torch.stack((within.sum(1), within.mul_(part.unsqueeze(-1)).sum(1)), 1)
                    matches[index][items, :, tile] += spread(pairs, grid, correspondence_grid(grid))
        for tile in tiles:
            if len(tiles) > 1:  # one tile's logits are still here
                logits = _logits(some_q[:, :, tile], some_k, mask, here, tile)
            for index, span in enumerate(references):
                # Each column of M_g sums to one, so a column far below the others still counts in
                # full: it is exponentiated against its own sum, never against another's maximum.
                column = (logits[..., span.slice] - column_lse[index].unsqueeze(-2)).exp_()
                paper_r2g[here][..., index, tile] = _hide(column, masked).mean(-1)

    for sums in g2r:
        sums /= rows.length
    if masked:  # keys hidden from every query have no column of M_g: leave them out
        paper_r2g /= paper_r2g.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    cells = correspondence_grid(_grid(rows)) if correspondence else None
    return Marginals(
        share,
        paper_r2g,
        g2r,
        tuple(mean_over_cells(m / heads, _grid(rows), cells) for m in matches if cells),
    )


def _in_order(
    q: Tensor, k: Tensor, mask: Tensor | None, layout: TokenLayout
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tokens in the order of the layout's spans."""
    if layout.query_order is not None:
        order = torch.tensor(layout.query_order, device=q.device)
        q = q[:, :, order]
        mask = mask[..., order, :] if mask is not None and mask.shape[-2] > 1 else mask
    if layout.key_order is not None:
        order = torch.tensor(layout.key_order, device=k.device)
        k = k[:, :, order]
        mask = mask[..., order] if mask is not None and mask.shape[-1] > 1 else mask
    return q, k, mask


def _grid(span: Span) -> Grid:
    """The grid of a span; tokens without a place of their own count as one row."""
    return span.grid or Grid(1, span.length)


def _blocks(q: Tensor, keys: int, scratch_bytes: int) -> Iterator[tuple[slice, slice, list[slice]]]:
    """Cut a call into blocks of batch items × heads × query tiles that fit the scratch."""
    batch, heads, queries, _ = q.shape
    pairs = scratch_bytes // (4 * _TEMPORARIES * queries * keys)  # of item and head, at once
    everything = [slice(0, queries)]
    if pairs >= heads:
        items = min(batch, pairs // heads)
        for first in range(0, batch, items):
            yield slice(first, first + items), slice(0, heads), everything
        return
    tiles = everything
    if pairs == 0:
        rows = max(1, scratch_bytes // (4 * _TEMPORARIES * keys))
        tiles = [slice(first, min(first + rows, queries)) for first in range(0, queries, rows)]
    step = max(1, pairs)
    for item in range(batch):
        for first in range(0, heads, step):
            yield slice(item, item + 1), slice(first, first + step), tiles


def _rows_of(mask: Tensor, rows: Span, queries: int, keys: int) -> Tensor:
    """The generated rows of a mask, additive, as a (batch|1, heads|1, generated, keys) view."""
    while mask.ndim < 4:
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
    if mask.shape[-2] != 1:
        mask = mask[:, :, rows.slice]
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -math.inf)
    return mask.expand(*mask.shape[:2], queries, keys)


def _logits(
    q: Tensor, k: Tensor, mask: Tensor | None, here: tuple[slice, slice], tile: slice
) -> Tensor:
    """The logits of one tile: (items, heads, rows, keys)."""
    logits = q @ k
    if mask is not None:
        items, some_heads = (
            one if size > 1 else slice(None) for one, size in zip(here, mask.shape[:2], strict=True)
        )
        logits += mask[items, some_heads, tile]
    return logits


def _hide(softmax: Tensor, masked: bool) -> Tensor:
    """A mask can hide a whole row or column: its softmax, not a number, is then taken as zero.

    Without one, what is not a number is the model's and must not be hidden.
    """
    return softmax.nan_to_num_(0.0) if masked else softmax


def _share_out(logits: Tensor, layout: TokenLayout, share: Tensor) -> list[Tensor]:
    """Write the shares of these rows; return the log-sum-exp of each row over each reference."""
    spans = [logits[..., span.slice].logsumexp(-1) for span in layout.keys]
    total = torch.stack(spans).logsumexp(0)
    references: list[Tensor] = []
    for span, lse in zip(layout.keys, spans, strict=True):
        part = (lse - total).exp()
        if span.role is Role.REFERENCE:
            share[:, :, 2 + len(references)] = part
            references.append(lse)
        else:
            share[:, :, 0 if span.role is Role.TEXT else 1] += part
    return references
