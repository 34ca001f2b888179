"""One attention call's sums from a single softmax over all its keys.

That is there where a model's own attention computes it and is listened to, and is the fewest
operations where a call is small.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..tokens import Role, TokenLayout, grid_of
from .blocked import ColumnSums
from .marginals import CACHE_BYTES, ENOUGH_ROWS, WEAK, Marginals
from .pooling import CorrespondenceSum, correspondence_grid

SMALL_BYTES = 2**20  # of logits: a call so small is a matter of how many operations it takes
_FEW = 64  # places of a row


@dataclass(frozen=True)
class ObservedSoftmax:
    """What a model's own attention computes on its way, masks included, float32.

    logits, and their softmax over all keys: (batch, heads, queries, keys).
    """

    logits: Tensor
    softmax: Tensor

    def of(self, items: slice) -> ObservedSoftmax:
        """Of some of the batch."""
        return ObservedSoftmax(self.logits[items], self.softmax[items])


def dense_softmax(q: Tensor, k: Tensor, factor: float, mask: Tensor | None) -> ObservedSoftmax:
    """The logits of a call, and their softmax over all keys."""
    k = k.float()
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    logits = (q.float() * factor) @ k.mT
    if mask is not None:
        logits += mask
    return ObservedSoftmax(logits, logits.softmax(-1))


class SoftmaxSums:
    """The sums of one call as its softmax over all keys becomes known, some rows after others.

    With P that softmax, s_r a row's sum of it over reference r (its share), and L the log of what
    the row was divided by: M_r = P / s_r, and M_g = P·exp(L) over its column's sum.
    """

    def __init__(self, layout: TokenLayout, correspondence: bool) -> None:
        references = layout.references
        self._layout = layout
        self._seen = slice(references[0].start, references[-1].stop)
        # The places of each reference among those seen.
        self._places = [
            slice(span.start - self._seen.start, span.stop - self._seen.start)
            for span in references
        ]
        # Along an axis of one for each reference and one of all: its own, and that of all.
        count = len(references)
        self._kinds = [slice(index, count + 1, count - index) for index in range(count)]
        self._correspondence = correspondence
        self._matches: list[CorrespondenceSum] = []
        self._at_once: tuple[Tensor, ...] = ()  # correspondence of a small call
        self._known = 0  # how many generated rows
        self._lost = False  # whether float32 may have lost what a sum is made of
        self._shares: list[Tensor] = []
        self._log_sums: list[Tensor] = []
        self._columns = ColumnSums()
        self._g2r = self._r2g = torch.zeros(())

    @staticmethod
    def suits(layout: TokenLayout) -> bool:
        """Whether the softmax of such a call is one over all keys, in the order of its spans."""
        in_order = layout.query_order is None and layout.key_order is None
        return in_order and not any(span.softmax for span in layout.keys)

    @property
    def complete(self) -> bool:
        """Whether all generated rows are known, and nothing of them is lost."""
        return self._known == self._layout.generated.length and not self._lost

    @property
    def log_sum(self) -> Tensor:
        """L of all generated rows: (batch, heads, generated)."""
        return _joined(self._log_sums)

    def add(self, observed: ObservedSoftmax, first: int = 0) -> None:
        """Take in the call's rows from `first` on, next to those that are known."""
        rows = self._layout.generated
        stop = min(first + observed.softmax.shape[2], rows.stop)
        start = max(first, rows.start)
        if self._lost or start >= stop or start != rows.start + self._known:
            return
        self._known += stop - start
        here = slice(start - first, stop - first)
        softmax = observed.softmax[:, :, here]
        logits, values = observed.logits[:, :, here, self._seen], softmax[..., self._seen]
        share = _shares(softmax, self._layout)
        over = share[:, :, 2:]
        if not float(over.amin()) >= WEAK:  # which is so of what is not a number, too
            self._lost = True
            return
        log_sum = _log_sum(logits, values)
        level, lift = self._columns.lift(log_sum)
        lift = lift.unsqueeze(2)
        # One product takes G2R in both definitions and the columns' sums.
        factors = torch.cat((over.reciprocal(), torch.ones_like(lift), lift), 2)
        sums = factors @ values
        self._shares.append(share)
        self._log_sums.append(log_sum)
        self._columns.add(sums[:, :, -1], level)
        self._g2r = sums[:, :, :-1] if self._g2r.ndim == 0 else self._g2r + sums[:, :, :-1]
        if self._correspondence:
            self._match(slice(start - rows.start, stop - rows.start), factors, values)
        if self.complete and len(self._shares) == 1:
            self._r2g = self._means(values)

    def marginals(
        self, q: Tensor, k: Tensor, factor: float, mask: Tensor | None
    ) -> Marginals | None:
        """The sums of the whole call.

        q: of the generated rows; factor, mask: as `marginals_in_blocks` takes them. None if not all
        of it is known, or so little of a row or column that float32 may have lost it.
        """
        if not self.complete or self._columns.weak is not None:
            return None
        if self._r2g.ndim == 0:
            self._r2g = self._means_again(q, k, factor, mask)
        rows, heads = self._layout.generated, q.shape[1]
        g2r = self._g2r / rows.length
        lift = (self.log_sum - self._columns.level).exp_().unsqueeze(2)
        lengths = lift.new_tensor([[span.length] for span in self._layout.references])
        return Marginals(
            _joined(self._shares),
            self._r2g * (lift / lengths),
            tuple(g2r[:, :, k, at] for k, at in zip(self._kinds, self._places, strict=True)),
            self._at_once or tuple(match.mean(heads) for match in self._matches),
        )

    def _match(self, rows: slice, factors: Tensor, values: Tensor) -> None:
        """Add up the correspondence of some rows; factors: (batch, heads, kinds, rows)."""
        batch, _, count, _ = values.shape
        each = [factors[:, :, kinds] for kinds in self._kinds]
        grids = [grid_of(span) for span in (self._layout.generated, *self._layout.references)]
        small = 8 * values.numel() <= SMALL_BYTES and self.complete
        if small and not self._matches and all(correspondence_grid(g) == g for g in grids):
            self._at_once = tuple(
                (weights.unsqueeze(-1) * values[..., place].unsqueeze(2)).mean(1)
                for weights, place in zip(each, self._places, strict=True)
            )
            return
        self._matches = self._matches or [
            CorrespondenceSum(values.new_zeros, batch, grids[0], grid) for grid in grids[1:]
        ]
        for match, weights, place in zip(self._matches, each, self._places, strict=True):
            wide = place.stop - place.start
            at_once = max(1, min(ENOUGH_ROWS, CACHE_BYTES // (8 * batch * wide)))
            for first in range(0, count, at_once):
                tile = slice(first, min(first + at_once, count))
                into = slice(rows.start + tile.start, rows.start + tile.stop)
                match.add(slice(None), into, weights[..., tile], values[:, :, tile, place])

    def _means(self, values: Tensor) -> Tensor:
        """For each reference the sum of P over what its columns sum to: (batch, heads, …, rows)."""
        inverse = self._columns.sums.unsqueeze(2).reciprocal()
        return torch.cat([inverse[..., at] @ values[..., at].mT for at in self._places], 2)

    def _means_again(self, q: Tensor, k: Tensor, factor: float, mask: Tensor | None) -> Tensor:
        """The same of rows that were not known all at once, from their logits and L."""
        batch, heads, count, _ = q.shape
        inverse = self._columns.sums.reciprocal()
        width = self._seen.stop - self._seen.start
        at_once = max(ENOUGH_ROWS, CACHE_BYTES // (4 * width))
        means = q.new_zeros(batch, heads, len(self._places), count, dtype=torch.float32)
        below, log_sum = q.new_empty(at_once, width, dtype=torch.float32), self.log_sum
        for item, head in itertools.product(range(batch), range(heads)):
            keys = k[item, head * k.shape[1] // heads, self._seen].float().mT
            for first in range(0, count, at_once):
                tile = slice(first, min(first + at_once, count))
                level = log_sum[item, head, tile, None]
                rows = q[item, head, tile].float() * factor
                values = torch.addmm(level, rows, keys, beta=-1, out=below[: len(rows)])
                if mask is not None:
                    some = mask[item if len(mask) > 1 else 0, head if mask.shape[1] > 1 else 0]
                    values += some[tile, self._seen]
                values.exp_()
                for index, place in enumerate(self._places):
                    means[item, head, index, tile] = values[:, place] @ inverse[item, head, place]
        return means


def _joined(pieces: list[Tensor]) -> Tensor:
    """Rows that became known one after the other, (…, rows)."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)


def _shares(softmax: Tensor, layout: TokenLayout) -> Tensor:
    """What each row of a softmax gives text, the picture itself and each reference."""
    shares: list[Tensor | None] = [None, None]
    for span in layout.keys:
        sums = softmax[..., span.slice].sum(-1)
        if span.role is Role.REFERENCE:
            shares.append(sums)
            continue
        role = int(span.role is Role.GENERATED)
        before = shares[role]
        shares[role] = sums if before is None else before + sums
    none = softmax.new_zeros(())
    return torch.stack([none.expand(softmax.shape[:-1]) if s is None else s for s in shares], 2)


def _log_sum(logits: Tensor, values: Tensor) -> Tensor:
    """The log of what rows were divided by when their softmax was taken: (…, rows).

    Any place that did not underflow tells; the largest of a few does, or else that of all.
    """
    few = values.shape[-1] > 2 * _FEW and float(values[..., :_FEW].amax(-1).amin()) >= WEAK
    if few:
        logits, values = logits[..., :_FEW], values[..., :_FEW]
    return logits.amax(-1) - values.amax(-1).log_()
