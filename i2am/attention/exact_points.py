"""Places named before sampling: what each of them looked at, or was looked at by, in every layer.

The correspondence of a recording is pooled, and a mean over layers and steps. Of a few places that
are named in time there is all: the row of attention of a place g of the result, which is the
paper's SRAM, and the column of a place r of a reference, its inverse, which the paper lacks:

    of g, over the reference:  paper M_r[g, :],  model the model's own attention of g;
    of r, over the result:     paper M_g[:, r],  model the model's own attention on r;

both mean over heads, with the letters of `attention`. A few rows and columns are cheap; only the
model's column needs the sum of every row of logits, unless the model was observed computing it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..tokens import RESULT, WHOLE_PICTURE, Grid, PointQuery, Rectangle, TokenLayout, spread
from .dense import SoftmaxSums

_SCRATCH_BYTES = 64 * 2**20
_CACHE_BYTES = 4 * 2**20  # of logits at once on a CPU
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class PointMarginals:
    """What one attention call says of the places asked about: sums, to be divided by a weight.

    rows: for each reference (batch, 2, places of the result, its tokens), paper and model.
    row_weight: (1 or batch, places). columns: for each reference (batch, 2, its places, tokens of
    the whole result). column_weight: (1 or batch,). grid: of the whole result; pictures: of each
    reference.
    """

    rows: tuple[Tensor, ...]
    row_weight: Tensor
    columns: tuple[Tensor, ...]
    column_weight: Tensor
    grid: Grid
    pictures: tuple[Grid, ...]

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """Rows and columns, one after the other."""
        return *self.rows, *self.columns

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Of each of the sums, to divide it by."""
        rows, columns = self.row_weight[:, None, :, None], self.column_weight[:, None, None, None]
        return *(rows for _ in self.rows), *(columns for _ in self.columns)


def point_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    places: tuple[PointQuery, ...],
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    part: Rectangle = WHOLE_PICTURE,
    portions: Tensor | None = None,
    observed: SoftmaxSums | None = None,
) -> PointMarginals:
    """The rows and columns of the places asked about in one attention call.

    q, k, scale, mask, weights, observed: as in `attention_marginals`. part, portions: of the
    result, the rectangle that the call's conditioning acts in, and its portion of each of these
    tokens, (1 or batch, tokens), if it acts in a part alone; `weights` then hold these portions
    already.
    """
    tokens = layout.generated.grid or Grid(1, layout.generated.length)
    pictures = tuple(span.grid or Grid(1, span.length) for span in layout.references)
    whole = part.whole(tokens)
    call = _Call.of(q, k, layout, scale, mask, weights, observed)
    asked = torch.stack(
        [p.weights(tokens, part) for p in places if p.reference == RESULT]
        or [torch.zeros(0, tokens.area)]
    ).reshape(-1, tokens.area)
    everywhere = torch.ones(1, tokens.area) if portions is None else portions.float().cpu()
    level = everywhere.mean(1)
    rows = call.rows(asked) if len(asked) else ()
    columns: list[Tensor] = []
    for number, picture in enumerate(pictures):
        mine = [place.weights(picture) for place in places if place.reference == number]
        found = q.new_zeros(len(q), 2, 0, whole.area, dtype=torch.float32)
        if mine:
            found = call.columns(number, torch.stack(mine))
            # Attention of one place each is mass over all of them; the paper's sum to one.
            found[:, 0] *= (level * part.area).to(found)[:, None, None]
            found[:, 1] *= part.area / tokens.area
            found = spread(found, tokens, whole, part)
        columns.append(found)
    if portions is not None:  # the paper's rows count by their portion, not its ratio to the mean
        for row in rows:
            row[:, 0] *= level.to(row)[:, None, None]
    return PointMarginals(
        rows, (everywhere @ asked.mT).to(q.device), tuple(columns),
        (level * part.area).to(q.device), whole, pictures,
    )  # fmt: skip


@dataclass(frozen=True)
class _Call:
    """One attention call, from which a few rows and columns are taken.

    queries, keys: where the generated tokens and the keys lie on their axes. mask: additive, with
    all four axes. portions, emphasis: as `attention_marginals` has them, (batch, softmaxes,
    generated). totals: the logarithm of each row's sum, (batch, heads, generated), if it is known.
    """

    q: Tensor
    k: Tensor
    layout: TokenLayout
    factor: float
    queries: Tensor
    keys: Tensor
    mask: Tensor | None
    portions: Tensor | None
    emphasis: Tensor | None
    totals: Tensor | None

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
        span = layout.generated
        queries = _positions(layout.query_order, q.shape[2], q.device)
        keys = _positions(layout.key_order, k.shape[2], k.device)
        if mask is not None:
            while mask.ndim < 4:
                mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
            if mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -math.inf)
        portions = emphasis = None
        if weights is not None:
            weights = weights[..., span.slice].float()
            portions = weights / weights.sum(1, keepdim=True)
            emphasis = (weights / weights.mean(-1, keepdim=True)).nan_to_num(0.0)
        totals = observed.log_sum if observed is not None and observed.complete else None
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        queries = queries[span.slice]
        return _Call(q, k, layout, factor, queries, keys, mask, portions, emphasis, totals)

    def rows(self, asked: Tensor) -> tuple[Tensor, ...]:
        """Of places with these weights (places, generated): (batch, 2, places, reference)."""
        some = _queried_tokens(asked, self.q.device)
        asked = asked.to(self.q.device)
        every = torch.arange(len(self.keys), device=self.q.device)
        sums = tuple(
            self.q.new_zeros(len(self.q), 2, len(asked), span.length, dtype=torch.float32)
            for span in self.layout.references
        )
        for heads in self._heads():
            for tokens in self._tiles(some, heads, len(every)):
                logits = self._logits(heads, tokens, every)
                totals = self._totals(logits)
                for span, total in zip(self.layout.references, sums, strict=True):
                    own = logits[..., span.slice]
                    m_r = self._whole(own.softmax(-1))
                    if self.emphasis is not None:
                        m_r = m_r * self.emphasis[:, span.softmax, tokens, None].unsqueeze(1)
                    model = self._attention(own, totals[span.softmax], span.softmax, tokens)
                    both = torch.stack((m_r.sum(1), model.sum(1)), 1)
                    total += asked[:, tokens] @ both
        return tuple(total / self.q.shape[1] for total in sums)

    def columns(self, reference: int, asked: Tensor) -> Tensor:
        """Of places with these weights (places, reference tokens): (batch, 2, places, generated).

        A place of several tokens is their mean in the paper's definition, which sums to one, and
        their sum in the model's.
        """
        span = self.layout.references[reference]
        some = _queried_tokens(asked, self.q.device)
        asked = asked.to(self.q.device)
        every = torch.arange(len(self.queries), device=self.q.device)
        mean = asked / asked.sum(1, keepdim=True)
        paper, model = self.q.new_zeros(2, len(self.q), len(asked), len(every), dtype=torch.float32)
        for heads in self._heads():
            if self.totals is None:
                total = self._row_totals(heads, span.softmax)
            else:
                total = self.totals[:, heads]
            for tokens in self._tiles(some, heads, len(every)):
                logits = self._logits(heads, every, tokens + span.start)
                m_g = self._whole(logits.softmax(-2))
                if self.emphasis is not None:
                    m_g = m_g * self.emphasis[:, span.softmax, :, None].unsqueeze(1)
                if self.mask is not None or self.emphasis is not None:
                    m_g = m_g / m_g.sum(-2, keepdim=True).clamp(min=_TINY)
                paper += mean[:, tokens] @ m_g.sum(1).mT
                attention = self._attention(logits, total, span.softmax, every)
                model += asked[:, tokens] @ attention.sum(1).mT
        return torch.stack((paper, model), 1) / self.q.shape[1]

    def _attention(self, logits: Tensor, total: Tensor, softmax: int, tokens: Tensor) -> Tensor:
        """The model's own on some keys, by the logarithm of each row's sum; overwrites logits."""
        found = self._whole(logits.sub_(total.unsqueeze(-1)).exp_())
        if self.portions is not None:
            found *= self.portions[:, softmax, tokens, None].unsqueeze(1)
        return found

    def _totals(self, logits: Tensor) -> dict[int, Tensor]:
        """The logarithm of the sum of each softmax's rows: (batch, heads, rows)."""
        spans = [span for span in self.layout.keys if span.length]
        return {
            softmax: torch.stack(
                [logits[..., s.slice].logsumexp(-1) for s in spans if s.softmax == softmax]
            ).logsumexp(0)
            for softmax in {span.softmax for span in spans}
        }

    def _row_totals(self, heads: slice, softmax: int) -> Tensor:
        """That of all rows of one softmax: the one pass over all queries and keys."""
        spans = [span for span in self.layout.keys if span.softmax == softmax]
        keys = torch.cat([torch.arange(span.start, span.stop) for span in spans]).to(self.q.device)
        rows = torch.arange(len(self.queries), device=self.q.device)
        tiles = self._tiles(rows, heads, len(keys))
        return torch.cat([self._logits(heads, some, keys).logsumexp(-1) for some in tiles], -1)

    def _logits(self, heads: slice, tokens: Tensor, keys: Tensor) -> Tensor:
        """S of some generated tokens and keys, numbered as the layout does."""
        rows, columns = self.queries[tokens], self.keys[keys]
        count = self.q.shape[1]
        shared = [head * self.k.shape[1] // count for head in range(count)[heads]]
        k = self.k[:, shared][:, :, columns].float()
        logits = (self.q[:, heads][:, :, rows].float() * self.factor) @ k.mT
        if self.mask is not None:
            mask = self.mask if self.mask.shape[1] == 1 else self.mask[:, heads]
            mask = mask if mask.shape[2] == 1 else mask[:, :, rows]
            logits += mask if mask.shape[3] == 1 else mask[..., columns]
        return logits

    def _whole(self, values: Tensor) -> Tensor:
        """Nothing where a mask hides a whole row or column."""
        return values if self.mask is None else values.nan_to_num_(0.0)

    def _heads(self) -> Iterator[slice]:
        """Heads that fit, with their queries and keys in float32; on a CPU one after the other."""
        batch, count, queries, dim = self.q.shape
        each = 4 * batch * dim * (queries + self.k.shape[2])
        fitting = 1 if self.q.device.type == "cpu" else max(1, _SCRATCH_BYTES // each)
        for first in range(0, count, fitting):
            yield slice(first, min(first + fitting, count))

    def _tiles(self, tokens: Tensor, heads: slice, others: int) -> Iterator[Tensor]:
        """As many tokens at once as fit, each with so many logits."""
        room = _CACHE_BYTES if self.q.device.type == "cpu" else _SCRATCH_BYTES // 4
        size = max(1, room // (4 * len(self.q) * (heads.stop - heads.start) * others))
        for first in range(0, len(tokens), size):
            yield tokens[first : first + size]


def _queried_tokens(asked: Tensor, device: torch.device) -> Tensor:
    """The tokens of any place, found on the CPU: asking a device would wait for it."""
    return asked.any(0).nonzero().squeeze(-1).to(device)


def _positions(order: tuple[int, ...] | None, count: int, device: torch.device) -> Tensor:
    if order is None:
        return torch.arange(count, device=device)
    return torch.tensor(order, device=device)
