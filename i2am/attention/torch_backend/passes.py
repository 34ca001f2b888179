"""The marginals of one call by torch's fused attention.

With S the logits of generated tokens g and the tokens r of a reference, L[g] the log-sum-exp of g's
row over all keys, and LSE a log-sum-exp that fused attention gives beside its output:

    l[g]    = LSE_r S                     over one reference
    share   = exp(l − L)                  Σ_r P
    G2R     = exp LSE_g(S − l) / N_g      paper: mean over g of M_r
            = exp LSE_g(S − L) / N_g      model: mean over g of P
    c[r]    = LSE_g S
    R2G     = exp LSE_r(S − c) / N_r      mean over r of M_g

Sums over g are attention with queries and keys exchanged. What is subtracted from a key's logits
rides in more columns of its head. Nothing underflows before it is a sum.

The correspondence needs M_r itself: exp(S − l), a tile of all heads at a time, by a product in
float32 whose queries carry −l in more columns, and one exponential. Pooled and added up, it gives
G2R as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...tokens import Grid, Role, Span, TokenLayout, grid_of
from ..call_inputs import SoftmaxWeights, key_heads
from ..marginals import Marginals, fill_own_share, softmax_log_sums, weigh_paper_r2g
from ..pooling import CorrespondenceSum
from ..products import Factors
from ..workspace import SCRATCH_BYTES
from .operators import BIAS_COLUMNS, attend, padded, with_bias, with_ones


def computed_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float,
    correspondence: bool,
    weights: Tensor | None = None,
    paper: bool = True,
    log_sum: Tensor | None = None,
    scratch_bytes: int = SCRATCH_BYTES,
) -> Marginals:
    """What `blocked_marginals` gives, without a mask.

    q: of the generated tokens alone. weights: (batch, softmaxes, generated). paper: whether its
    maps are of use; zero if not. log_sum: L, (batch, heads, generated), if it is known.
    """
    references, rows = layout.references, layout.generated
    batch, heads, queries, _ = q.shape

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float32, device=q.device)

    share = zeros(batch, heads, 2 + len(references), queries)
    paper_r2g = zeros(batch, heads, len(references), queries)
    g2r = tuple(zeros(batch, heads, 2, span.length) for span in references)
    grid = grid_of(rows)
    correspondences = [
        CorrespondenceSum(zeros, batch, grid, grid_of(span))
        for span in references
        if correspondence
    ]
    counted = None if weights is None else SoftmaxWeights.of(weights)
    known = None if counted is not None else log_sum
    read = [s for s in layout.keys if known is None or s.role is not Role.GENERATED]
    for items, some in _chunks(q, k, layout, scratch_bytes * 3 // 4):
        here = items, some
        keys = k[items, key_heads(some, heads, k.shape[1])]
        part = _Part(padded(q[here]), padded(keys), scale)
        sums: dict[Span, Tensor] = {}
        if known is None:
            sums = {span: part.log_sum(span) for span in read}
        whole = softmax_log_sums(sums) if known is None else {0: known[here]}
        logarithms = None if counted is None else counted.items(items).logarithms
        numbers = iter(range(len(references)))
        for span in read:
            even, portion = _of_softmax(logarithms, span.softmax)
            of_keys = whole[span.softmax] - portion
            if span.role is not Role.REFERENCE:
                own = sums[span] if span in sums else part.log_sum(span)
                share[here][:, :, 0 if span.role is Role.TEXT else 1] += (own - of_keys).exp_()
                continue
            r = next(numbers)
            own = sums[span] if span in sums else part.log_sum(span)
            portions = (own - of_keys).exp_()
            share[here][:, :, 2 + r] = portions
            if correspondence:
                both = torch.stack((torch.zeros_like(own).add_(even).exp_(), portions), 2)
                for tile, m_r in part.tiles(span, own, grid, scratch_bytes // 4):
                    correspondences[r].add(items, tile, both[..., tile], m_r)
                    g2r[r][here] += both[..., tile] @ m_r
            else:
                subtracted = (own - even, of_keys) if paper else (of_keys,)
                g2r[r][here][:, :, -len(subtracted) :] = part.over_rows(span, *subtracted)
            if paper:
                paper_r2g[here][:, :, r] = part.paper_r2g(span).div_(span.length)
    for over_reference in g2r:
        over_reference.div_(queries)
    if known is not None:
        fill_own_share(share, layout)
    if counted is not None:
        weigh_paper_r2g(paper_r2g, counted.emphasis, layout)
    means = tuple(pairs.mean(heads) for pairs in correspondences)
    return Marginals(share, paper_r2g, g2r, means)


@dataclass(frozen=True)
class _Part:
    """Some items and heads of a call: q and k (items, heads, tokens, dim)."""

    q: Tensor
    k: Tensor
    scale: float

    def log_sum(self, span: Span) -> Tensor:
        """LSE over a span's keys: (items, heads, rows)."""
        k = self.k[:, :, span.slice]
        return attend(self.q, k, k, self.scale)[1]

    def over_rows(self, span: Span, *subtracted: Tensor) -> Tensor:
        """exp LSE_g(S − x) for each x (items, heads, rows): (items, heads, those, keys)."""
        k = with_ones(self.k[:, :, span.slice])
        found: list[Tensor] = []
        for one in subtracted:
            q = with_bias(self.q, one / -self.scale)
            found.append(attend(k, q, q, self.scale)[1])
        return torch.stack(found, 2).exp_()

    def paper_r2g(self, span: Span) -> Tensor:
        """exp LSE_r(S − c): (items, heads, rows)."""
        k = self.k[:, :, span.slice]
        columns = attend(k, self.q, self.q, self.scale)[1]
        biased = with_bias(k, columns / -self.scale)
        return attend(with_ones(self.q), biased, biased, self.scale)[1].exp_()

    def tiles(
        self, span: Span, own: Tensor, grid: Grid, room: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """M_r of some rows at a time: which, and (items, heads, those, keys), until the next.

        own: l, (items, heads, rows). grid: of the rows. room: bytes for it, and for its sums over
        heads.
        """
        items, heads, rows, _ = self.q.shape
        biased = with_bias(self.q, own / -self.scale), with_ones(self.k[:, :, span.slice])
        factors = Factors.of(*biased, self.scale)
        at_once = max(1, room // (4 * items * (heads + 4) * span.length))
        if at_once > grid.width:  # whole lines are pooled in fewer operations
            at_once -= at_once % grid.width
        size = items * heads * min(at_once, rows) * span.length
        buffer = self.q.new_empty(size, dtype=torch.float32)
        for first in range(0, rows, at_once):
            tile = slice(first, min(first + at_once, rows))
            shape = items, heads, tile.stop - first, span.length
            out = buffer[: math.prod(shape)].view(shape)
            yield tile, factors.logits(tile, slice(None), out).exp_()


def _of_softmax(
    logarithms: SoftmaxWeights | None, softmax: int
) -> tuple[Tensor | float, Tensor | float]:
    """Of a softmax's emphasis and portion at each place, (items, 1, rows); 0 without weights."""
    if logarithms is None:
        return 0.0, 0.0
    both = logarithms.emphasis[:, softmax], logarithms.portions[:, softmax]
    return both[0].unsqueeze(1), both[1].unsqueeze(1)


def _chunks(
    q: Tensor, k: Tensor, layout: TokenLayout, scratch_bytes: int
) -> Iterator[tuple[slice, slice]]:
    """Cut a call into items × heads whose copies and outputs fit."""
    batch, heads, rows, dim = q.shape
    widest = max(span.length for span in layout.references)
    # Keys of their own, queries and keys with columns for a bias, an output, and sums of each row.
    tokens = k.shape[2] + rows + widest + max(rows, widest)
    pair = q.element_size() * tokens * (dim + 2 * BIAS_COLUMNS) + 4 * 8 * rows
    at_once = max(1, scratch_bytes // pair)
    if at_once >= heads:
        for first in range(0, batch, at_once // heads):
            yield slice(first, first + at_once // heads), slice(0, heads)
        return
    for item in range(batch):
        for first in range(0, heads, at_once):
            yield slice(item, item + 1), slice(first, min(first + at_once, heads))
