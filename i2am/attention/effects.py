"""The effect of a reference in one attention call: how far the output moves if it is left out.

With the letters of `marginals`, v the values and o[g] = Σ_k P[g, k]·v[k] the output of one head,
leaving key r out of the softmax moves the output of g by exactly

    Δ[g, r] = P[g, r] / (1 − P[g, r]) · (o[g] − v[r])

and leaving out a whole reference, with p its share and ō[g] the attention's output over it alone,
by p / (1 − p) · (o[g] − ō[g]). Where nothing else is left in a softmax, its output is gone: Δ = −o.
The effect is the squared length of Δ:

    definition   R2G, over the result            G2R, over the reference
    effect       ‖Δ‖² of the whole reference     mean over g of ‖Δ[g, r]‖²

Attention says where the model looked, the effect whether that changed anything: a key whose value
is what the others give anyway changes nothing. A call with several softmaxes adds up their outputs,
each multiplied by its weight, and so does Δ. Source: ours; leave-one-out attribution applied to the
keys of one softmax, where it has a closed form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..tokens import Grid, Span, TokenLayout, grid_of
from .call_inputs import additive_mask, in_layout_order, key_heads, key_order, part_of_mask
from .pooling import CorrespondenceSum
from .products import Factors
from .workspace import CACHE_BYTES, SCRATCH_BYTES, can_read_back

_TINY = torch.finfo(torch.float32).tiny
_COPIES = 6  # of a tile's logits that are in use at once


@dataclass(frozen=True)
class Effects:
    """The effects of one call, float32, on the device of its queries.

    r2g: (batch, heads, references, generated), ‖Δ‖² of each whole reference.
    output: (batch, heads, generated), ‖o‖², to compare with.
    g2r: for each reference (batch, heads, reference), mean over g of ‖Δ‖².
    correspondence: for each reference (batch, generated cells, reference cells), mean over heads
        of ‖Δ‖², pooled to the grids of `correspondence_grid`. Empty if it was not requested.
    rows: for each reference (batch, points, reference), mean over heads of ‖Δ‖² summed over the
        tokens of each point of the result. columns: for each reference (batch, its points,
        generated), summed over the tokens of each point of the reference. Empty without points.
    """

    r2g: Tensor
    output: Tensor
    g2r: tuple[Tensor, ...]
    correspondence: tuple[Tensor, ...]
    rows: tuple[Tensor, ...]
    columns: tuple[Tensor, ...]


def attention_effects(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: TokenLayout,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    portions: Tensor | None = None,
    correspondence: bool = True,
    scratch_bytes: int = SCRATCH_BYTES,
    result_points: Tensor | None = None,
    reference_points: tuple[Tensor, ...] = (),
) -> Effects:
    """How far each reference, and each of its tokens, moves the output of one attention call.

    q, k, scale, mask, correspondence: as in `attention_marginals`. v: (batch, heads or fewer, keys,
    value dim). weights: (batch, softmaxes, queries), what the output of each softmax is multiplied
    by. portions: (1 or batch, generated), how much each place counts, for the conditioning of a
    region. result_points: (points, generated), how much of each token a point covers;
    reference_points: the same for each reference.

    Works in float32, in tiles of rows within `scratch_bytes`.
    """
    q, k, mask = in_layout_order(q, k, mask, layout)
    order = key_order(layout, v.device)
    if order is not None:
        v = v[:, :, order]
    generated = layout.generated
    rows = generated.slice
    call = _Call(
        q=q[:, :, rows],
        k=k,
        v=v,
        layout=layout,
        scale=q.shape[-1] ** -0.5 if scale is None else scale,
        mask=None if mask is None else additive_mask(mask, rows),
        weights=None if weights is None else weights[..., rows].float(),
    )
    sums = _Sums(call, portions, correspondence, result_points, reference_points)
    for items, heads, tile in call.tiles(scratch_bytes):
        sums.add(items, heads, tile)
    return sums.effects()


@dataclass(frozen=True)
class _Call:
    """One attention call; q of the generated tokens alone, all in the order of its layout."""

    q: Tensor
    k: Tensor
    v: Tensor
    layout: TokenLayout
    scale: float
    mask: Tensor | None
    weights: Tensor | None

    def tiles(self, scratch_bytes: int) -> Iterator[tuple[slice, slice, slice]]:
        """Batch items, heads and rows whose logits fit together."""
        batch, heads, rows, _ = self.q.shape
        keys = self.k.shape[2]
        room = scratch_bytes // _COPIES
        if can_read_back(self.q.device):
            room = min(room, CACHE_BYTES)
        pairs = max(1, room // (4 * rows * keys))  # of an item and a head with all its rows
        length = max(1, min(rows, room // (4 * keys)))
        some_heads, some_items = min(heads, pairs), max(1, pairs // heads)
        for item in range(0, batch, some_items):
            for head in range(0, heads, some_heads):
                for first in range(0, rows, length):
                    yield (
                        slice(item, min(item + some_items, batch)),
                        slice(head, min(head + some_heads, heads)),
                        slice(first, min(first + length, rows)),
                    )

    def logits(self, items: slice, heads: slice, tile: slice) -> Tensor:
        """S of some rows and all keys: (items, heads, rows, keys)."""
        factors = Factors.of(
            self.q[items, heads, tile], self._shared(self.k, items, heads), self.scale
        )
        logits = factors.logits(slice(None), slice(None))
        mask = part_of_mask(self.mask, (items, heads))
        if mask is not None:
            logits += mask[:, :, tile] if mask.shape[2] > 1 else mask
        return logits

    def values(self, items: slice, heads: slice) -> Tensor:
        """(items, heads, keys, value dim)."""
        return self._shared(self.v, items, heads).float()

    def _shared(self, x: Tensor, items: slice, heads: slice) -> Tensor:
        """Some heads of keys or values; groups of heads may share one."""
        return x[items, key_heads(heads, self.q.shape[1], x.shape[1])]

    def weight(self, items: slice, softmax: int, tile: slice) -> Tensor | float:
        """What a softmax's output is multiplied by at these rows: (items, 1, rows, 1)."""
        return 1.0 if self.weights is None else self.weights[items, softmax, tile][:, None, :, None]

    def spans(self, softmax: int) -> tuple[Span, ...]:
        """The spans of keys that share a softmax."""
        return tuple(s for s in self.layout.keys if s.softmax == softmax and s.length)


@dataclass(frozen=True)
class _Softmax:
    """One softmax over all keys of some spans, at some rows, its largest entry P* set aside.

    Only P* can exceed a half, so for all other keys 1 − P and o − v keep their digits; for it they
    are computed from what the others give.

    others: P with P* replaced by zero, (items, heads, rows, keys of all spans). largest: P*, and
    where: its key, (items, heads, rows, 1). value: v of that key, (items, heads, rows, dim).
    """

    spans: tuple[Span, ...]
    others: Tensor
    largest: Tensor
    where: Tensor
    value: Tensor

    @staticmethod
    def of(logits: Tensor, values: Tensor, spans: tuple[Span, ...], masked: bool) -> _Softmax:
        """logits (items, heads, rows, keys), values (items, heads, keys, dim), of all keys."""
        if sum(span.length for span in spans) < logits.shape[-1]:
            logits = torch.cat([logits[..., span.slice] for span in spans], -1)
            values = torch.cat([values[:, :, span.slice] for span in spans], 2)
        softmax = logits.softmax(-1)
        if masked:  # a row that a mask hides altogether gives nothing
            softmax = softmax.nan_to_num_(0.0)
        largest, where = softmax.max(-1, keepdim=True)
        value = values.gather(2, where.expand(*where.shape[:-1], values.shape[-1]))
        return _Softmax(spans, softmax.scatter_(-1, where, 0.0), largest, where, value)

    def place(self, span: Span) -> slice:
        """Where a span lies among the keys of this softmax."""
        first = sum(before.length for before in self.spans[: self.spans.index(span)])
        return slice(first, first + span.length)

    def among(self, keys: slice) -> Tensor:
        """Where P* is the attention on one of these keys: (items, heads, rows, 1)."""
        return (self.where >= keys.start) & (self.where < keys.stop)


@dataclass(frozen=True)
class _SpanOutput:
    """What one span of keys contributes to the output of its softmax, at some rows.

    share: Σ P, (items, heads, rows, 1). output: Σ P·v, (items, heads, rows, dim). others: the same
    two without the largest entry of the softmax.
    """

    span: Span
    share: Tensor
    output: Tensor
    others: tuple[Tensor, Tensor]

    @staticmethod
    def of(softmax: _Softmax, span: Span, values: Tensor) -> _SpanOutput:
        """values: (items, heads, keys, dim), of all keys."""
        keys = softmax.place(span)
        others = softmax.others[..., keys]
        share, output = others.sum(-1, keepdim=True), others @ values[:, :, span.slice]
        largest = softmax.largest * softmax.among(keys)
        return _SpanOutput(span, share + largest, output + largest * softmax.value, (share, output))


class _Sums:
    """The effects of one call, added up tile by tile."""

    def __init__(
        self,
        call: _Call,
        portions: Tensor | None,
        correspondence: bool,
        result_points: Tensor | None,
        reference_points: tuple[Tensor, ...],
    ) -> None:
        batch, heads, rows, _ = call.q.shape
        references = call.layout.references
        self._call = call
        self._portions = None if portions is None else portions.to(call.q.device, torch.float32)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=call.q.device)

        self._r2g = zeros(batch, heads, len(references), rows)
        self._output = zeros(batch, heads, rows)
        self._g2r = [zeros(batch, heads, span.length) for span in references]
        self._grids: list[Grid] = [grid_of(call.layout.generated)]
        self._grids += [grid_of(span) for span in references if correspondence]
        self._correspondence = [
            CorrespondenceSum(zeros, batch, self._grids[0], grid, kinds=1)
            for grid in self._grids[1:]
        ]
        self._result_points = None if result_points is None else result_points.to(self._output)
        self._reference_points = [points.to(self._output) for points in reference_points]
        points = 0 if result_points is None else len(result_points)
        self._rows = [zeros(batch, points, span.length) for span in references if points]
        self._columns = [zeros(batch, len(points), rows) for points in self._reference_points]

    def add(self, items: slice, heads: slice, tile: slice) -> None:
        """Add some rows, with all keys."""
        call = self._call
        logits, values = call.logits(items, heads, tile), call.values(items, heads)
        total: Tensor | float = 0.0
        for number in sorted({span.softmax for span in call.layout.keys if span.length}):
            softmax = _Softmax.of(logits, values, call.spans(number), call.mask is not None)
            parts = [_SpanOutput.of(softmax, span, values) for span in softmax.spans]
            weight = call.weight(items, number, tile)
            output = torch.stack([part.output for part in parts]).sum(0)
            total = total + weight * output
            for part in parts:
                if part.span not in call.layout.references:
                    continue
                index = call.layout.references.index(part.span)
                rest = [other for other in parts if other is not part]
                left = _left([r.share for r in rest], [r.output for r in rest], output)
                moved = (weight * (part.share * left - part.output)).square().sum(-1)
                self._r2g[items, heads, index, tile] = moved
                own = values[:, :, part.span.slice]
                moved = _without_each(softmax, parts, part.span, own, output)
                self._add_each(items, heads, tile, index, moved.mul_(_square(weight)))
        assert isinstance(total, Tensor)
        self._output[items, heads, tile] = total.square().sum(-1)

    def _add_each(self, items: slice, heads: slice, tile: slice, index: int, moved: Tensor) -> None:
        """Add ‖Δ‖² of each key of a reference: (items, heads, rows, reference)."""
        portions = self._portions_of(items, tile)
        if portions is not None:
            moved *= portions[:, None, :, None]
        self._g2r[index][items, heads] += moved.sum(2)
        if self._correspondence:
            ones = moved.new_ones(*moved.shape[:2], 1, moved.shape[2])
            self._correspondence[index].add(items, tile, ones, moved)
        if self._result_points is not None and self._rows:
            self._rows[index][items] += self._result_points[:, tile] @ moved.sum(1)
        if self._reference_points and len(self._reference_points[index]):
            column = self._reference_points[index] @ moved.sum(1).mT
            self._columns[index][items, :, tile] += column

    def effects(self) -> Effects:
        """What was added up, as means."""
        heads, rows = self._call.q.shape[1:3]
        r2g, output = self._r2g, self._output
        portions = self._portions_of(slice(None), slice(None))
        if portions is not None:
            r2g = r2g * portions[:, None, None]
            output = output * portions[:, None]
        return Effects(
            r2g,
            output,
            tuple(sums / rows for sums in self._g2r),
            tuple(pairs.mean(heads)[:, 0] for pairs in self._correspondence),
            tuple(sums / heads for sums in self._rows),
            tuple(sums / heads for sums in self._columns),
        )

    def _portions_of(self, items: slice, tile: slice) -> Tensor | None:
        """(1 or items, rows) of the region's portions."""
        if self._portions is None:
            return None
        return (self._portions[items] if len(self._portions) > 1 else self._portions)[:, tile]


def _left(shares: list[Tensor], outputs: list[Tensor], output: Tensor) -> Tensor:
    """The output of a softmax over what is left, of these shares and Σ P·v; zero if nothing is."""
    if not shares:
        return torch.zeros_like(output)
    share = torch.stack(shares).sum(0)
    return torch.where(share > _TINY, torch.stack(outputs).sum(0) / share.clamp(min=_TINY), 0.0)


def _without_each(
    softmax: _Softmax, parts: list[_SpanOutput], span: Span, values: Tensor, output: Tensor
) -> Tensor:
    """‖Δ‖² of leaving out each key of a span: (items, heads, rows, keys).

    values: of its keys. output: of the softmax.
    """
    keys = softmax.place(span)
    attention = softmax.others[..., keys]
    lengths = output.square().sum(-1, keepdim=True) + values.square().sum(-1).unsqueeze(-2)
    distance = torch.baddbmm(
        lengths.flatten(0, 1), output.flatten(0, 1), values.flatten(0, 1).mT, alpha=-2.0
    ).view_as(attention)
    moved = distance.clamp_(min=0.0).mul_((attention / (1 - attention)).square_())
    left = _left([part.others[0] for part in parts], [part.others[1] for part in parts], output)
    of_largest = (softmax.largest * (left - softmax.value)).square().sum(-1, keepdim=True)
    of_largest *= softmax.among(keys)
    where = (softmax.where - keys.start).clamp(0, span.length - 1)
    return moved.scatter_add_(-1, where, of_largest)


def _square(weight: Tensor | float) -> Tensor | float:
    return weight * weight
