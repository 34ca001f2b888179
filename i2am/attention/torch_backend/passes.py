"""The marginals of one call by torch's fused attention, without any logits of our own.

With S the logits of generated tokens g and the tokens r of a reference, L[g] the log-sum-exp of g's
row over all keys, and LSE a log-sum-exp that fused attention gives beside its output:

    l[g]    = LSE_r S                     over one reference
    share   = exp(l − L)                  Σ_r P
    G2R     = exp LSE_g(S − l) / N_g      paper: mean over g of M_r
            = exp LSE_g(S − L) / N_g      model: mean over g of P
    c[r]    = LSE_g S
    R2G     = exp LSE_r(S − c) / N_r      mean over r of M_g

Sums over g are attention with queries and keys exchanged. What is subtracted from a key's logits
rides in more columns of its head. The correspondence is attention whose values say which cell each
token lies in: the output is the mass of a row in each cell. Nothing underflows before it is a sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ...tokens import Grid, Role, Span, TokenLayout, grid_of, mean_over_cells, spread
from ..call_inputs import SoftmaxWeights
from ..marginals import Marginals, fill_own_share, softmax_log_sums, weigh_paper_r2g
from ..pooling import correspondence_grid
from ..workspace import SCRATCH_BYTES
from .operators import BIAS_COLUMNS, attend, padded, with_bias, with_ones

_ROWS_AT_ONCE = 1024  # of an identity matrix, to find the cells of each token


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
    cells = correspondence_grid(grid)
    correspondences = [
        zeros(batch, 2, cells.area, correspondence_grid(grid_of(span)).area)
        for span in references
        if correspondence
    ]
    counted = None if weights is None else SoftmaxWeights.of(weights)
    known = None if counted is not None else log_sum
    read = [s for s in layout.keys if known is None or s.role is not Role.GENERATED]
    for items, some in _chunks(q, k, layout, scratch_bytes):
        here = items, some
        key_heads = [head * k.shape[1] // heads for head in range(heads)[some]]
        part = _Part(padded(q[here]), padded(k[items, key_heads]), scale)
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
            r, own = next(numbers), sums.get(span)
            for some_cells, masses, own in part.masses(span) if correspondence else ():
                both = _over_heads(masses, torch.zeros_like(own) + even, own - of_keys)
                pooled = mean_over_cells(both, grid, cells)
                correspondences[r][items, ..., some_cells] += pooled.div_(heads)
            own = part.log_sum(span) if own is None else own
            share[here][:, :, 2 + r] = (own - of_keys).exp_()
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
    return Marginals(share, paper_r2g, g2r, tuple(correspondences))


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

    def masses(self, span: Span) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """The mass of M_r in the reference's correspondence cells, some of them at a time.

        Gives which, the masses (items, heads, rows, those), and l (items, heads, rows).
        """
        k, wide = self.k[:, :, span.slice], self.q.shape[-1]
        cells = _cells_of_tokens(grid_of(span), self.k.dtype, self.k.device)
        for first in range(0, cells.shape[1], wide):
            some = slice(first, min(first + wide, cells.shape[1]))
            values = F.pad(cells[:, some], (0, first + wide - some.stop))
            values = values.expand(*k.shape[:2], -1, -1).contiguous()  # as every operator takes it
            found, own = attend(self.q, k, values, self.scale)
            yield some, found[..., : some.stop - first], own


def _of_softmax(
    logarithms: SoftmaxWeights | None, softmax: int
) -> tuple[Tensor | float, Tensor | float]:
    """Of a softmax's emphasis and portion at each place, (items, 1, rows); 0 without weights."""
    if logarithms is None:
        return 0.0, 0.0
    both = logarithms.emphasis[:, softmax], logarithms.portions[:, softmax]
    return both[0].unsqueeze(1), both[1].unsqueeze(1)


def _over_heads(masses: Tensor, *log_weights: Tensor) -> Tensor:
    """Masses of M_r (items, heads, rows, cells) → weighted sums: (items, weights, rows, cells).

    log_weights: of each row, (items, heads, rows) each. Added up over heads.
    """
    weights = torch.stack(log_weights, 1).exp_()
    # For each row, (weights, heads) @ (heads, cells).
    return (weights.movedim(3, 1) @ masses.float().transpose(1, 2)).transpose(1, 2)


@lru_cache(maxsize=8)  # a call asks once for each reference, the same in each layer and step
def _cells_of_tokens(grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """How much of each token lies in each correspondence cell, (tokens, cells)."""
    cells = correspondence_grid(grid)
    if grid == cells:
        return torch.eye(grid.area, dtype=dtype, device=device)
    pieces: list[Tensor] = []
    for first in range(0, grid.area, _ROWS_AT_ONCE):
        tokens = torch.arange(first, min(first + _ROWS_AT_ONCE, grid.area))
        pieces.append(spread(F.one_hot(tokens, grid.area).float(), grid, cells).to(dtype))
    return torch.cat(pieces).to(device)


def _chunks(
    q: Tensor, k: Tensor, layout: TokenLayout, scratch_bytes: int
) -> Iterator[tuple[slice, slice]]:
    """Cut a call into items × heads whose copies and outputs fit."""
    batch, heads, rows, dim = q.shape
    widest = max(span.length for span in layout.references)
    wide = dim + 2 * BIAS_COLUMNS
    numbers = 2 * (rows + widest) * wide  # queries and keys with a bias, twice each
    outputs = (rows + k.shape[2]) * wide
    pair = q.element_size() * (numbers + outputs) + 4 * rows * (dim + 8)
    at_once = max(1, scratch_bytes // pair)
    if at_once >= heads:
        for first in range(0, batch, at_once // heads):
            yield slice(first, first + at_once // heads), slice(0, heads)
        return
    for item in range(batch):
        for first in range(0, heads, at_once):
            yield slice(item, item + 1), slice(first, min(first + at_once, heads))
