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
_CACHE_BYTES = 2 * 2**20  # of logits at once on a CPU: every pass after the first finds them near
_WEAK = 1e-25  # a column sum below this may have lost what underflowed; a float32 ends at 1e-38


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
    """The grid a correspondence is pooled to on one side: of all frames of a video together."""
    return grid.at_most(CORRESPONDENCE_SIDE).one_frame


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
    weights: Tensor | None = None,
    correspondence: bool = True,
    scratch_bytes: int = SCRATCH_BYTES,
) -> Marginals:
    """Sum the attention between the generated tokens and each reference.

    q: (batch, heads, queries, dim), k: (batch, heads or fewer, keys, dim), as the model's own
    attention gets them, after positions and norms; fewer key heads are shared by groups of heads.
    scale: of the logits, 1/√dim if left out. mask: as torch's scaled_dot_product_attention takes
    it, broadcastable to (batch, heads, queries, keys). weights: (batch, softmaxes, queries), how
    strongly what each softmax found counts at each place, where the layout has several; shares
    are of the sum, and both definitions count a place by its weight.

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
    if mask is not None:
        mask = _rows_of(mask, rows, q.shape[2], k.shape[2])
    factor = dim**-0.5 if scale is None else scale
    portions = emphasis = None
    if weights is not None:
        weights = weights[..., rows.slice].float()
        portions = weights / weights.sum(1, keepdim=True)
        emphasis = (weights / weights.mean(-1, keepdim=True)).nan_to_num(0.0)  # mean one, or none

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

    for items, some_heads, tiles, keep in _blocks(q, k.shape[2], layout, scratch_bytes):
        here = (items, some_heads)
        block = _Block(q[here].float() * factor, k[here].float().mT, _part_of(mask, here))
        columns = [_Columns() for _ in references]
        kept: list[list[_Exponentials]] = []
        for tile in tiles:
            logits = block.logits(tile)
            exponentials = [_Exponentials.of(logits[..., span.slice]) for span in references]
            portion = None if portions is None else portions[items, :, tile]
            row_share = _share_out(logits, exponentials, layout, portion, share[here][..., tile])
            for index, (span, e) in enumerate(zip(references, exponentials, strict=True)):
                # Each row of M_r is e / its sum; each row of the model's, that times its share.
                even = torch.ones_like(e.sum)
                if emphasis is not None:
                    even *= emphasis[items, span.softmax, tile].unsqueeze(1)
                factors = torch.stack((even, row_share[index]), dim=-2)
                factors = factors * _inverse(e.sum, block.masked).unsqueeze(-2)
                g2r[index][here] += factors @ e.values
                columns[index].add(e)
                if correspondence:
                    _add_pairs(matches[index][items, :, tile], factors, e.values, _grid(span))
            kept.append(exponentials if keep else [])
        for tile, exponentials in zip(tiles, kept, strict=True):
            for index, span in enumerate(references):
                if keep:
                    e = exponentials[index]
                else:
                    e = _Exponentials.of(block.logits(tile, span.slice))
                paper_r2g[here][:, :, index, tile] = columns[index].mean_of_rows(e)
        for index, span in enumerate(references):
            paper_r2g[here][:, :, index] += columns[index].mean_of_weak(block, span)

    for sums in g2r:
        sums /= rows.length
    if emphasis is not None:
        paper_r2g *= torch.stack([emphasis[:, span.softmax] for span in references], 1).unsqueeze(1)
    if mask is not None or emphasis is not None:
        # Keys hidden from every query have no column of M_g: leave them out.
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


def _rows_of(mask: Tensor, rows: Span, queries: int, keys: int) -> Tensor:
    """The generated rows of a mask, additive, as a (batch|1, heads|1, generated, keys) view."""
    while mask.ndim < 4:
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
    if mask.shape[-2] != 1:
        mask = mask[:, :, rows.slice]
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -math.inf)
    return mask.expand(*mask.shape[:2], queries, keys)


def _blocks(
    q: Tensor, keys: int, layout: TokenLayout, scratch_bytes: int
) -> Iterator[tuple[slice, slice, list[slice], bool]]:
    """Cut a call into blocks of batch items × heads, each in tiles of queries that fit.

    Also says whether the exponentials of a block can be kept until its columns are known; if not,
    they are computed twice.
    """
    batch, heads, queries, _ = q.shape
    tile_bytes = min(scratch_bytes // 4, _CACHE_BYTES if q.device.type == "cpu" else scratch_bytes)
    pairs = max(1, tile_bytes // (4 * queries * keys))  # of item and head, at once
    rows = max(1, min(queries, tile_bytes // (4 * keys)))
    tiles = [slice(first, min(first + rows, queries)) for first in range(0, queries, rows)]
    widths = sum(span.length for span in layout.references)
    keep = 4 * min(pairs, heads * batch) * queries * widths <= scratch_bytes // 2
    if pairs >= heads:
        for first in range(0, batch, pairs // heads):
            yield slice(first, first + pairs // heads), slice(0, heads), tiles, keep
        return
    for item in range(batch):
        for first in range(0, heads, pairs):
            yield slice(item, item + 1), slice(first, first + pairs), tiles, keep


@dataclass(frozen=True)
class _Block:
    """The scaled queries (items, heads, rows, dim) and keys (…, dim, keys) of one block."""

    q: Tensor
    k: Tensor
    mask: Tensor | None

    @property
    def masked(self) -> bool:
        return self.mask is not None

    def logits(self, rows: slice, keys: slice | Tensor = slice(None)) -> Tensor:
        """S of some rows and keys: (items, heads, rows, keys)."""
        logits = self.q[:, :, rows] @ self.k[..., keys]
        return logits if self.mask is None else logits.add_(self.mask[:, :, rows][..., keys])


@dataclass(frozen=True)
class _Exponentials:
    """exp(S - high) of the keys of one span, each row against its own highest logit.

    So each row's largest is one, and no row is lost however far it lies below another.
    values: (items, heads, rows, keys); high, sum: (items, heads, rows).
    """

    values: Tensor
    high: Tensor
    sum: Tensor

    @staticmethod
    def of(logits: Tensor) -> _Exponentials:
        high = logits.amax(-1)
        # A row that a mask hides altogether has no highest logit; its exponentials are all zero.
        against = high.clamp(min=torch.finfo(torch.float32).min)
        values = (logits - against.unsqueeze(-1)).exp_()
        return _Exponentials(values, high, values.sum(-1))

    @property
    def log_sum(self) -> Tensor:
        return self.high + self.sum.log()


class _Columns:
    """The sums of M_g's columns, and what follows from them, for one block and reference.

    A column's sum is taken of exponentials that were made row by row: rows are brought to one
    level, that of the highest. What underflows on the way is below 1e-38, so a column whose sum is
    far above that is exact, and the others, which are rare, are computed by themselves.
    """

    def __init__(self) -> None:
        self._level = torch.zeros(())  # (items, heads, 1)
        self._sums: Tensor | None = None  # (items, heads, keys), relative to the level

    def add(self, e: _Exponentials) -> None:
        """Take in some rows."""
        level = e.high.amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).min)
        if self._sums is not None:
            level = torch.maximum(level, self._level)
            self._sums *= (self._level - level).exp()
        sums = ((e.high - level).exp().unsqueeze(-2) @ e.values).squeeze(-2)
        self._sums = sums if self._sums is None else self._sums + sums
        self._level = level

    @property
    def _found(self) -> Tensor:
        assert self._sums is not None, "no rows were added"
        return self._sums

    def mean_of_rows(self, e: _Exponentials) -> Tensor:
        """Mean over the columns of M_g of these rows, weak columns left out."""
        inverse = torch.where(self._found < _WEAK, 0, 1 / self._found)
        means = (e.values @ inverse.unsqueeze(-1)).squeeze(-1) / inverse.shape[-1]
        return means * (e.high - self._level).exp()

    def mean_of_weak(self, block: _Block, span: Span) -> Tensor | float:
        """The weak columns' part of that mean, of all rows: (items, heads, rows)."""
        weak = (self._found < _WEAK).any(0).any(0)  # columns weak for any item and head
        if not bool(weak.any()):
            return 0.0
        keys = weak.nonzero().squeeze(-1) + span.start
        columns = block.logits(slice(None), keys).softmax(-2)
        if block.masked:
            columns = columns.nan_to_num_(0.0)
        mine = (self._found < _WEAK)[..., weak].unsqueeze(-2)
        return torch.where(mine, columns, 0).sum(-1) / span.length


def _inverse(sums: Tensor, masked: bool) -> Tensor:
    """1 / sums; of a row that a mask hides altogether, zero."""
    return torch.where(sums > 0, 1 / sums, 0) if masked else 1 / sums


def _share_out(
    logits: Tensor,
    exponentials: list[_Exponentials],
    layout: TokenLayout,
    portions: Tensor | None,
    share: Tensor,
) -> list[Tensor]:
    """Write the shares of these rows; return those of each reference, (items, heads, rows).

    portions: (items, softmaxes, rows), of each softmax in the whole.
    """
    references = iter(exponentials)
    spans = [
        next(references).log_sum
        if span.role is Role.REFERENCE
        else logits[..., span.slice].logsumexp(-1)
        for span in layout.keys
    ]
    together: dict[int, list[Tensor]] = {}
    for span, lse in zip(layout.keys, spans, strict=True):
        together.setdefault(span.softmax, []).append(lse)
    totals = {softmax: torch.stack(found).logsumexp(0) for softmax, found in together.items()}
    shares: list[Tensor] = []
    for span, lse in zip(layout.keys, spans, strict=True):
        part = (lse - totals[span.softmax]).exp()
        if portions is not None:
            part = part * portions[:, span.softmax].unsqueeze(1)
        if span.role is Role.REFERENCE:
            share[:, :, 2 + len(shares)] = part
            shares.append(part)
        else:
            share[:, :, 0 if span.role is Role.TEXT else 1] += part
    return shares


def _add_pairs(pairs: Tensor, weights: Tensor, values: Tensor, grid: Grid) -> None:
    """Add the block's heads to the correspondence of its rows, columns pooled to cells.

    pairs: (items, 2, rows, cells); weights: (items, heads, 2, rows); values: (items, heads, rows,
    keys).
    """
    cells = correspondence_grid(grid)
    for head in range(values.shape[1]):
        pooled = spread(values[:, head], grid, cells)
        for kind in range(2):
            pairs[:, kind].addcmul_(pooled, weights[:, head, kind].unsqueeze(-1))


def _part_of(mask: Tensor | None, here: tuple[slice, slice]) -> Tensor | None:
    """A block's part of a mask that may have one item or head for all."""
    if mask is None:
        return None
    items, heads = (
        one if size > 1 else slice(None) for one, size in zip(here, mask.shape[:2], strict=True)
    )
    return mask[items, heads]
