"""Exact attention rows and columns of points named before sampling, one call at a time.

A recording's correspondence is pooled, and a mean over layers and steps. For a few points that
are named in time, everything is kept: the attention row of a token g of the result, which is the
paper's SRAM, and the column of a token r of a reference, its inverse, which the paper lacks. With
the letters of `marginals`:

    row of g, over the reference:    paper M_r[g, :],  model P[g, :]
    column of r, over the result:    paper M_g[:, r],  model P[:, r]

both mean over heads. A few rows and columns are cheap; only the model's column needs the
log-sum-exp of every row, unless the model's own softmax was tapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from ..tokens import (
    RESULT,
    WHOLE_PICTURE,
    Grid,
    PointQuery,
    Rectangle,
    TokenLayout,
    grid_of,
    spread,
)
from .call_inputs import SoftmaxWeights, additive_mask, key_heads, key_order, query_order
from .effects import Effects
from .products import Factors
from .softmax_sums import SoftmaxSums
from .workspace import CACHE_BYTES

_SCRATCH_BYTES = 64 * 2**20
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class PointMarginals:
    """The rows and columns of the named points in one attention call: sums, and their weights.

    rows: for each reference (batch, definitions, points of the result, its tokens): paper, model,
    and effect if it was added. row_weight: (1 or batch, points). columns: for each reference
    (batch, definitions, its points, tokens of the whole result). column_weight: (1 or batch,).
    grid: of the whole result. reference_grids: of each reference.
    """

    rows: tuple[Tensor, ...]
    row_weight: Tensor
    columns: tuple[Tensor, ...]
    column_weight: Tensor
    grid: Grid
    reference_grids: tuple[Grid, ...]

    def with_effects(self, effects: Effects, tokens: Grid, part: Rectangle) -> PointMarginals:
        """With the effects of the same call and points.

        tokens: the grid of its generated tokens. part: where its conditioning acts.
        """

        def joined(two: tuple[Tensor, ...], third: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            pairs = zip(two, third, strict=True)
            return tuple(torch.cat((sums, effect.unsqueeze(1)), 1) for sums, effect in pairs)

        # As of the model's attention: mass over the whole result.
        columns = (sums * (part.area / tokens.area) for sums in effects.columns)
        on_whole = tuple(spread(column, tokens, self.grid, part) for column in columns)
        return replace(
            self, rows=joined(self.rows, effects.rows), columns=joined(self.columns, on_whole)
        )

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """Rows and columns, one after the other."""
        return *self.rows, *self.columns

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """What to divide each of the sums by."""
        rows, columns = self.row_weight[:, None, :, None], self.column_weight[:, None, None, None]
        return *(rows for _ in self.rows), *(columns for _ in self.columns)


def point_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    points: tuple[PointQuery, ...],
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    part: Rectangle = WHOLE_PICTURE,
    portions: Tensor | None = None,
    observed: SoftmaxSums | None = None,
) -> PointMarginals:
    """The rows and columns of the named points in one attention call.

    q, k, scale, mask, weights, observed: as in `attention_marginals`. part, portions: if the
    call's conditioning acts in a part of the result only, that rectangle, and its portion of each
    of these tokens, (1 or batch, tokens); `weights` then hold these portions already.
    """
    tokens = grid_of(layout.generated)
    reference_grids = tuple(grid_of(span) for span in layout.references)
    whole = part.whole_grid(tokens)
    call = _Call.of(q, k, layout, scale, mask, weights, observed)
    on_result, *on_references = point_coverage(points, layout, part, q.device)
    portion = q.new_ones(1, tokens.area, dtype=torch.float32) if portions is None else portions
    portion = portion.to(q.device, torch.float32)
    mean_portion = portion.mean(1)
    rows = _rows(call, on_result) if len(on_result.cover) else ()
    columns: list[Tensor] = []
    for number, on_reference in enumerate(on_references):
        if not len(on_reference.cover):
            columns.append(q.new_zeros(len(q), 2, 0, whole.area, dtype=torch.float32))
            continue
        column = _columns(call, number, on_reference)
        # The model's attention on one place is mass over the whole result; the paper's sums to one.
        column[:, 0] *= (mean_portion * part.area)[:, None, None]
        column[:, 1] *= part.area / tokens.area
        columns.append(spread(column, tokens, whole, part))
    if portions is not None:  # the paper's rows count by their portion, not its ratio to the mean
        for row in rows:
            row[:, 0] *= mean_portion[:, None, None]
    row_weight, column_weight = portion @ on_result.cover.mT, mean_portion * part.area
    return PointMarginals(rows, row_weight, tuple(columns), column_weight, whole, reference_grids)


@dataclass(frozen=True)
class PointCoverage:
    """How much of each token of one picture its points cover: (points, tokens), and the tokens of
    which they cover any."""

    cover: Tensor
    tokens: Tensor


@lru_cache(maxsize=32)  # copied for each call, they would make the processor wait for a card
def point_coverage(
    points: tuple[PointQuery, ...], layout: TokenLayout, part: Rectangle, device: torch.device
) -> tuple[PointCoverage, ...]:
    """What the points cover of the result, in which the call acts on `part`, and of each
    reference; on a device."""
    sides = [(RESULT, grid_of(layout.generated), part)]
    for number, span in enumerate(layout.references):
        sides.append((number, grid_of(span), WHOLE_PICTURE))
    found: list[PointCoverage] = []
    for picture, grid, where in sides:
        each = [p.weights(grid, where)[None] for p in points if p.reference == picture]
        cover = torch.cat([torch.zeros(0, grid.area), *each])
        tokens = cover.any(0).nonzero().squeeze(-1)
        found.append(PointCoverage(cover.to(device), tokens.to(device)))
    return tuple(found)


def _rows(call: _Call, points: PointCoverage) -> tuple[Tensor, ...]:
    """The rows of points of the result: (batch, 2, points, reference) each."""
    coverage, queried = points.cover, points.tokens
    references = call.layout.references
    every_key = torch.arange(len(call.keys), device=call.q.device)
    sums = tuple(
        call.q.new_zeros(len(call.q), 2, len(coverage), span.length, dtype=torch.float32)
        for span in references
    )
    for heads in call.head_groups():
        for tokens in call.tiles(queried, heads, len(every_key)):
            logits = call.logits(heads, tokens, every_key)
            log_sums = call.log_sums(logits)
            for span, total in zip(references, sums, strict=True):
                own = logits[..., span.slice]
                m_r = call.unhidden(own.softmax(-1))
                if call.weights is not None:
                    m_r = m_r * call.weights.emphasis[:, span.softmax, tokens, None].unsqueeze(1)
                model = call.attention(own, log_sums[span.softmax], span.softmax, tokens)
                both = torch.stack((m_r.sum(1), model.sum(1)), 1)
                total += coverage[:, tokens] @ both
    return tuple(total / call.q.shape[1] for total in sums)


def _columns(call: _Call, reference: int, points: PointCoverage) -> Tensor:
    """The columns of points of a reference: (batch, 2, points, generated).

    A point that covers several tokens is their mean in the paper's definition, which sums to one,
    and their sum in the model's.
    """
    span = call.layout.references[reference]
    coverage, queried = points.cover, points.tokens
    mean = coverage / coverage.sum(1, keepdim=True)
    every_row = torch.arange(len(call.queries), device=call.q.device)
    paper, model = call.q.new_zeros(
        2, len(call.q), len(coverage), len(every_row), dtype=torch.float32
    )
    for heads in call.head_groups():
        tapped = call.log_sum
        log_sum = call.row_log_sum(heads, span.softmax) if tapped is None else tapped[:, heads]
        for tokens in call.tiles(queried, heads, len(every_row)):
            logits = call.logits(heads, every_row, tokens + span.start)
            m_g = call.unhidden(logits.softmax(-2))
            if call.weights is not None:
                m_g = m_g * call.weights.emphasis[:, span.softmax, :, None].unsqueeze(1)
            if call.mask is not None or call.weights is not None:
                m_g = m_g / m_g.sum(-2, keepdim=True).clamp(min=_TINY)
            paper += mean[:, tokens] @ m_g.sum(1).mT
            attention = call.attention(logits, log_sum, span.softmax, every_row)
            model += coverage[:, tokens] @ attention.sum(1).mT
    return torch.stack((paper, model), 1) / call.q.shape[1]


@dataclass(frozen=True)
class _Call:
    """The logits of one attention call, its tokens numbered in the order of its layout.

    queries, keys: where the generated tokens and the keys lie on the axes of q and k. mask:
    additive, with all four axes. log_sum: of each row, (batch, heads, generated), if it was tapped.
    """

    q: Tensor
    k: Tensor
    layout: TokenLayout
    scale: float
    queries: Tensor
    keys: Tensor
    mask: Tensor | None
    weights: SoftmaxWeights | None
    log_sum: Tensor | None

    @staticmethod
    def of(
        q: Tensor,
        k: Tensor,
        layout: TokenLayout,
        scale: float | None,
        mask: Tensor | None,
        weights: Tensor | None,
        observed: SoftmaxSums | None,
    ) -> _Call:
        """Arguments as in `point_marginals`."""
        rows = layout.generated.slice
        return _Call(
            q,
            k,
            layout,
            scale=q.shape[-1] ** -0.5 if scale is None else scale,
            queries=_positions(query_order(layout, q.device), q.shape[2], q.device)[rows],
            keys=_positions(key_order(layout, k.device), k.shape[2], k.device),
            mask=None if mask is None else additive_mask(mask),
            weights=None if weights is None else SoftmaxWeights.of(weights[..., rows]),
            log_sum=observed.log_sum if observed is not None and observed.complete else None,
        )

    def logits(self, heads: slice, tokens: Tensor, keys: Tensor) -> Tensor:
        """S of some generated tokens and keys: (batch, heads, tokens, keys)."""
        rows, columns = self.queries[tokens], self.keys[keys]
        k = self.k[:, key_heads(heads, self.q.shape[1], self.k.shape[1])]
        factors = Factors.of(self.q[:, heads, rows], k[:, :, columns], self.scale)
        logits = factors.logits(slice(None), slice(None))
        if self.mask is not None:
            mask = self.mask if self.mask.shape[1] == 1 else self.mask[:, heads]
            mask = mask if mask.shape[2] == 1 else mask[:, :, rows]
            logits += mask if mask.shape[3] == 1 else mask[..., columns]
        return logits

    def log_sums(self, logits: Tensor) -> dict[int, Tensor]:
        """The log-sum-exp of rows over all keys of each softmax: (batch, heads, rows)."""
        spans = [span for span in self.layout.keys if span.length]
        return {
            softmax: torch.stack(
                [logits[..., s.slice].logsumexp(-1) for s in spans if s.softmax == softmax]
            ).logsumexp(0)
            for softmax in {span.softmax for span in spans}
        }

    def row_log_sum(self, heads: slice, softmax: int) -> Tensor:
        """That of all rows, (batch, heads, generated): one pass over all queries and keys."""
        spans = [span for span in self.layout.keys if span.softmax == softmax]
        device = self.q.device
        keys = torch.cat([torch.arange(s.start, s.stop, device=device) for s in spans])
        rows = torch.arange(len(self.queries), device=device)
        tiles = self.tiles(rows, heads, len(keys))
        return torch.cat([self.logits(heads, tile, keys).logsumexp(-1) for tile in tiles], -1)

    def attention(self, logits: Tensor, log_sum: Tensor, softmax: int, tokens: Tensor) -> Tensor:
        """P on some keys, from the log-sum-exp of each row; overwrites logits."""
        found = self.unhidden(logits.sub_(log_sum.unsqueeze(-1)).exp_())
        if self.weights is not None:
            found *= self.weights.portions[:, softmax, tokens, None].unsqueeze(1)
        return found

    def unhidden(self, values: Tensor) -> Tensor:
        """Zero where a mask hides a whole row or column, instead of NaN; in place."""
        return values if self.mask is None else values.nan_to_num_(0.0)

    def head_groups(self) -> Iterator[slice]:
        """Heads whose float32 queries and keys fit in memory; on a CPU one at a time."""
        batch, count, queries, dim = self.q.shape
        each = 4 * batch * dim * (queries + self.k.shape[2])
        fitting = 1 if self.q.device.type == "cpu" else max(1, _SCRATCH_BYTES // each)
        for first in range(0, count, fitting):
            yield slice(first, min(first + fitting, count))

    def tiles(self, tokens: Tensor, heads: slice, others: int) -> Iterator[Tensor]:
        """As many tokens at once as fit, with `others` logits each."""
        room = CACHE_BYTES if self.q.device.type == "cpu" else _SCRATCH_BYTES // 4
        size = max(1, room // (4 * len(self.q) * (heads.stop - heads.start) * others))
        for first in range(0, len(tokens), size):
            yield tokens[first : first + size]


def _positions(order: Tensor | None, count: int, device: torch.device) -> Tensor:
    """Where each token of a layout lies on its axis: (count,). order: if it is not their own."""
    return torch.arange(count, device=device) if order is None else order
