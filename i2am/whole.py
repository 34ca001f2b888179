"""One attention call's sums from a single softmax over all its keys, held at once.

That is there where a model's own attention computes it and is listened to, and is the fewest
operations where a call is small.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import Grid, Role, TokenLayout
from .marginals import (
    CACHE_BYTES,
    ENOUGH_ROWS,
    WEAK,
    Marginals,
    Match,
    correspondence_grid,
    grid_of,
)

SMALL_BYTES = 2**20  # of logits: a call so small is a matter of how many operations it takes
_FEW = 64  # places of a row


@dataclass(frozen=True)
class Overheard:
    """What a model's own attention computes on its way, masks included, float32.

    logits, and their softmax over all keys: (batch, heads, queries, keys).
    """

    logits: Tensor
    softmax: Tensor

    def of(self, items: slice) -> Overheard:
        """Of some of the batch."""
        return Overheard(self.logits[items], self.softmax[items])


def softmax_at_once(q: Tensor, k: Tensor, factor: float, mask: Tensor | None) -> Overheard:
    """The logits of a call, and their softmax over all keys."""
    k = k.float()
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    logits = (q.float() * factor) @ k.mT
    if mask is not None:
        logits += mask
    return Overheard(logits, logits.softmax(-1))


def marginals_of(heard: Overheard, layout: TokenLayout, correspondence: bool) -> Marginals | None:
    """The sums of a call from one softmax over all its keys, of the generated rows.

    With P that softmax, s_r a row's sum of it over reference r (its share), and L the log of what
    the row was divided by: M_r = P / s_r, and M_g = P·exp(L) over its column's sum.

    None if a share or a column's sum is so small that float32 may have lost what it is made of.
    """
    references, rows = layout.references, layout.generated
    count, seen = len(references), slice(references[0].start, references[-1].stop)
    # Of each reference: its places among those seen; its own row and the last of `count` + 1.
    places = [slice(s.start - seen.start, s.stop - seen.start) for s in references]
    kinds = [slice(index, count + 1, count - index) for index in range(count)]
    logits, values = heard.logits[..., seen], heard.softmax[..., seen]

    share = _shares(heard.softmax, layout)
    over = share[:, :, 2:]
    if not float(over.amin()) >= WEAK:  # which is so of what is not a number, too
        return None
    log_sum = _log_sum(logits, values)
    lift = (log_sum - log_sum.amax(-1, keepdim=True)).exp_().unsqueeze(2)
    # One product takes G2R in both definitions and the columns' sums.
    factors = torch.cat((over.reciprocal(), torch.ones_like(lift), lift), 2)
    sums = factors @ values
    columns = sums[:, :, -1:]
    if not float(columns.amin()) >= WEAK:
        return None
    inverse = columns.reciprocal()
    means = [inverse[..., place] @ values[..., place].mT for place in places]
    lengths = lift.new_tensor([[span.length] for span in references])
    g2r = sums / rows.length
    return Marginals(
        share,
        torch.cat(means, 2) * (lift / lengths),
        tuple(g2r[:, :, k, place] for k, place in zip(kinds, places, strict=True)),
        tuple(
            _match_of(factors[:, :, k], values[..., place], grid_of(rows), grid_of(span))
            for k, place, span in zip(kinds, places, references, strict=True)
            if correspondence
        ),
    )


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


def _match_of(weights: Tensor, values: Tensor, rows: Grid, keys: Grid) -> Tensor:
    """Correspondence from (batch, heads, 2, rows) and (batch, heads, rows, keys)."""
    batch, heads, count, width = values.shape
    if 8 * values.numel() <= SMALL_BYTES and all(correspondence_grid(g) == g for g in (rows, keys)):
        return (weights.unsqueeze(-1) * values.unsqueeze(2)).mean(1)
    match = Match(values.new_zeros, batch, rows, keys)
    at_once = max(1, min(ENOUGH_ROWS, CACHE_BYTES // (8 * batch * width)))
    for first in range(0, count, at_once):
        tile = slice(first, min(first + at_once, count))
        match.add(slice(None), tile, weights[..., tile], values[:, :, tile])
    return match.mean(heads)
