"""A call's softmax over all its keys → its marginals, added up as rows of it are observed.

The softmax is the model's own, read by `softmax_tap`, or computed by `dense` for a small call.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..tokens import Role, TokenLayout, grid_of
from .blocked import WEAK, ColumnSums
from .marginals import Marginals
from .pooling import CorrespondenceSum, correspondence_grid
from .workspace import CACHE_BYTES, ENOUGH_ROWS, SMALL_BYTES

_FEW = 64  # keys of a row


@dataclass(frozen=True)
class ObservedSoftmax:
    """The logits of a call, masks included, and their softmax over all keys.

    Each (batch, heads, queries, keys), float32.
    """

    logits: Tensor
    softmax: Tensor

    def of(self, items: slice) -> ObservedSoftmax:
        """The same for some items of the batch."""
        return ObservedSoftmax(self.logits[items], self.softmax[items])


class SoftmaxSums:
    """The marginals of one call, added up from rows of its softmax over all keys.

    With P that softmax, s the sum of a row over one reference (its share) and L the row's
    log-sum-exp: M_r = P / s, and M_g = P·exp(L) divided by the sum of its column.
    """

    def __init__(self, layout: TokenLayout, correspondence: bool) -> None:
        references = layout.references
        self._layout = layout
        self._keys = slice(references[0].start, references[-1].stop)
        # Where each reference lies among these keys.
        self._spans = [
            slice(span.start - self._keys.start, span.stop - self._keys.start)
            for span in references
        ]
        # `factors` in `add`: a row for each reference, then one of ones. Its row and the ones:
        count = len(references)
        self._factor_rows = [slice(index, count + 1, count - index) for index in range(count)]
        self._correspondence = correspondence
        self._correspondences: list[CorrespondenceSum] = []
        self._small_correspondence: tuple[Tensor, ...] = ()  # of a small call, not pooled
        self._row_count = 0  # generated rows so far
        self._underflowed = False  # whether float32 may have lost part of a sum
        self._shares: list[Tensor] = []
        self._log_sums: list[Tensor] = []
        self._columns = ColumnSums()
        self._g2r = self._r2g = torch.zeros(())

    @staticmethod
    def suits(layout: TokenLayout) -> bool:
        """Whether such a call has one softmax over all keys, in the order of the layout's spans."""
        in_order = layout.query_order is None and layout.key_order is None
        return in_order and not any(span.softmax for span in layout.keys)

    @property
    def complete(self) -> bool:
        """Whether all generated rows were added without underflow."""
        return self._row_count == self._layout.generated.length and not self._underflowed

    @property
    def log_sum(self) -> Tensor:
        """L of all generated rows: (batch, heads, generated)."""
        return _joined(self._log_sums)

    def add(self, observed: ObservedSoftmax, first: int = 0) -> None:
        """Add the call's rows from `first` on; they must follow those added before."""
        rows = self._layout.generated
        stop = min(first + observed.softmax.shape[2], rows.stop)
        start = max(first, rows.start)
        if self._underflowed or start >= stop or start != rows.start + self._row_count:
            return
        self._row_count += stop - start
        here = slice(start - first, stop - first)
        softmax = observed.softmax[:, :, here]
        logits, values = observed.logits[:, :, here, self._keys], softmax[..., self._keys]
        share = _shares(softmax, self._layout)
        of_references = share[:, :, 2:]
        if not float(of_references.amin()) >= WEAK:  # true for NaN, too
            self._underflowed = True
            return
        log_sum = _log_sum(logits, values)
        offset, row_factors = self._columns.relative(log_sum)
        row_factors = row_factors.unsqueeze(2)
        # One product gives G2R in both definitions and the column sums.
        even = torch.ones_like(row_factors)
        factors = torch.cat((of_references.reciprocal(), even, row_factors), 2)
        sums = factors @ values
        self._shares.append(share)
        self._log_sums.append(log_sum)
        self._columns.add(sums[:, :, -1], offset)
        self._g2r = sums[:, :, :-1] if self._g2r.ndim == 0 else self._g2r + sums[:, :, :-1]
        if self._correspondence:
            self._add_correspondence(slice(start - rows.start, stop - rows.start), factors, values)
        if self.complete and len(self._shares) == 1:
            self._r2g = self._r2g_sums(values)

    def marginals(
        self, q: Tensor, k: Tensor, scale: float, mask: Tensor | None
    ) -> Marginals | None:
        """The marginals of the whole call; None if rows are missing or may have underflowed.

        q: the generated rows. scale, mask: as in `blocked_marginals`.
        """
        if not self.complete or self._columns.weak is not None:
            return None
        if self._r2g.ndim == 0:
            self._r2g = self._r2g_sums_again(q, k, scale, mask)
        rows, heads = self._layout.generated, q.shape[1]
        g2r = self._g2r / rows.length
        row_factors = (self.log_sum - self._columns.offset).exp_().unsqueeze(2)
        lengths = row_factors.new_tensor([[span.length] for span in self._layout.references])
        return Marginals(
            _joined(self._shares),
            self._r2g * (row_factors / lengths),
            tuple(
                g2r[:, :, pair, span]
                for pair, span in zip(self._factor_rows, self._spans, strict=True)
            ),
            self._small_correspondence
            or tuple(pairs.mean(heads) for pairs in self._correspondences),
        )

    def _add_correspondence(self, rows: slice, factors: Tensor, values: Tensor) -> None:
        """Add the correspondence of some rows. factors: (batch, heads, references + 1, rows)."""
        batch, _, count, _ = values.shape
        each = [factors[:, :, pair] for pair in self._factor_rows]
        grids = [grid_of(span) for span in (self._layout.generated, *self._layout.references)]
        small = 8 * values.numel() <= SMALL_BYTES and self.complete
        if small and not self._correspondences and all(correspondence_grid(g) == g for g in grids):
            self._small_correspondence = tuple(
                (weights.unsqueeze(-1) * values[..., span].unsqueeze(2)).mean(1)
                for weights, span in zip(each, self._spans, strict=True)
            )
            return
        self._correspondences = self._correspondences or [
            CorrespondenceSum(values.new_zeros, batch, grids[0], grid) for grid in grids[1:]
        ]
        for pairs, weights, span in zip(self._correspondences, each, self._spans, strict=True):
            width = span.stop - span.start
            at_once = max(1, min(ENOUGH_ROWS, CACHE_BYTES // (8 * batch * width)))
            for first in range(0, count, at_once):
                tile = slice(first, min(first + at_once, count))
                into = slice(rows.start + tile.start, rows.start + tile.stop)
                pairs.add(slice(None), into, weights[..., tile], values[:, :, tile, span])

    def _r2g_sums(self, values: Tensor) -> Tensor:
        """Σ_r P / column sum, for each reference: (batch, heads, references, rows)."""
        inverse = self._columns.sums.unsqueeze(2).reciprocal()
        return torch.cat([inverse[..., span] @ values[..., span].mT for span in self._spans], 2)

    def _r2g_sums_again(self, q: Tensor, k: Tensor, scale: float, mask: Tensor | None) -> Tensor:
        """The same for rows that were added in pieces, from their logits and L."""
        batch, heads, count, _ = q.shape
        inverse = self._columns.sums.reciprocal()
        width = self._keys.stop - self._keys.start
        at_once = max(ENOUGH_ROWS, CACHE_BYTES // (4 * width))
        means = q.new_zeros(batch, heads, len(self._spans), count, dtype=torch.float32)
        buffer, log_sum = q.new_empty(at_once, width, dtype=torch.float32), self.log_sum
        for item, head in itertools.product(range(batch), range(heads)):
            keys = k[item, head * k.shape[1] // heads, self._keys].float().mT
            for first in range(0, count, at_once):
                tile = slice(first, min(first + at_once, count))
                offset = log_sum[item, head, tile, None]
                rows = q[item, head, tile].float() * scale
                values = torch.addmm(offset, rows, keys, beta=-1, out=buffer[: len(rows)])
                if mask is not None:
                    bias = mask[item if len(mask) > 1 else 0, head if mask.shape[1] > 1 else 0]
                    values += bias[tile, self._keys]
                values.exp_()
                for index, span in enumerate(self._spans):
                    means[item, head, index, tile] = values[:, span] @ inverse[item, head, span]
        return means


def _joined(pieces: list[Tensor]) -> Tensor:
    """Pieces of rows as one, (…, rows)."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)


def _shares(softmax: Tensor, layout: TokenLayout) -> Tensor:
    """Shares of text, the picture itself and each reference: (batch, heads, 2 + R, rows)."""
    shares: list[Tensor | None] = [None, None]
    for span in layout.keys:
        sums = softmax[..., span.slice].sum(-1)
        if span.role is Role.REFERENCE:
            shares.append(sums)
            continue
        role = int(span.role is Role.GENERATED)
        before = shares[role]
        shares[role] = sums if before is None else before + sums
    zero = softmax.new_zeros(())
    return torch.stack([zero.expand(softmax.shape[:-1]) if s is None else s for s in shares], 2)


def _log_sum(logits: Tensor, values: Tensor) -> Tensor:
    """The log-sum-exp of each row, from its logits and their softmax: (…, rows).

    Any key that did not underflow gives it: the largest of a few, or else the largest of all.
    """
    few = values.shape[-1] > 2 * _FEW and float(values[..., :_FEW].amax(-1).amin()) >= WEAK
    if few:
        logits, values = logits[..., :_FEW], values[..., :_FEW]
    return logits.amax(-1) - values.amax(-1).log_()
