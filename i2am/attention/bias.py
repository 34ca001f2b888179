"""Turning a reference up or down: a bias on the attention logits, in two more features of q and k.

With the logits S = q·kᵀ/√d of the generated tokens g and the tokens r of one reference, a steer of
strength s gives places in a mask over the result S + log s towards places in a mask over the
reference, so that before the softmax is normalised each of them counts s times. The bias is the
outer product of two masks, so it needs no matrix of logits: q is given a feature that is set inside
the first mask, k one that holds the bias inside the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import I2AMError
from ..tokens import Ranges, Span, TokenLayout, mask_coverage

MUTE = -3000.0  # in place of log 0: its exponential is zero in every precision, itself finite
_ALIGNED = 8  # features: attention kernels want heads of a multiple
_FEATURES = 2  # a bias takes: itself, and what rounding it leaves over


@dataclass(frozen=True, eq=False)
class Steer:
    """What a reference counts, where and when.

    reference: from 0. strength: how many times a token counts, 0 for not at all. result_mask,
    reference_mask: (1 or batch, height, width), over the whole picture whatever their size; all of
    it if left out. A token is inside if at least half of it is. steps: of the schedule.
    """

    reference: int
    strength: float
    result_mask: Tensor | None = None
    reference_mask: Tensor | None = None
    steps: Ranges = ()

    def __str__(self) -> str:
        """In a user's words."""
        text = f"reference {self.reference + 1} × {self.strength:g}"
        if self.reference_mask is not None:
            text += ", a part of it"
        if self.result_mask is not None:
            text += ", for a part of the result"
        if self.steps:
            ranges = (f"{a}-{b}" if b > a else f"{a}" for a, b in self.steps)
            text += f", steps {','.join(ranges)}"
        return text

    @property
    def bias(self) -> float:
        """What is added to the logits."""
        return max(MUTE, math.log(self.strength)) if self.strength > 0 else MUTE


@dataclass(frozen=True)
class Bias:
    """What one steer adds to the logits of one conditioning's rows.

    queries: (1 or batch, queries), keys: (1 or batch, keys), each 1 inside and 0 outside; value is
    added where both are 1.
    """

    value: float
    queries: Tensor
    keys: Tensor


def attention_bias(steer: Steer, layout: TokenLayout, keys: int, batch: int) -> Bias | None:
    """A steer's bias in a call of this layout; None where the call does not hold its reference.

    keys: of the call, which may hold the layout's several times over. batch: items of one
    conditioning. Raises I2AMError where the steer can have no effect, or its masks do not fit.
    """
    references = layout.references
    if steer.reference >= len(references):
        return None
    span, generated = references[steer.reference], layout.generated
    looked_at = _inside(steer.reference_mask, span, batch, "reference")
    if steer.strength != 1 and span.length == layout.key_count and bool((looked_at > 0).all()):
        raise I2AMError(
            "In this model the reference has a softmax of its own: nothing competes with it, so "
            "counting all of it more or less changes nothing. Give reference_mask a part of it."
        )
    rows = sum(s.length for s in layout.queries)
    looking = _placed(_inside(steer.result_mask, generated, batch, "result"), generated, rows)
    columns = _placed(looked_at, span, layout.key_count)
    if layout.query_order is not None:
        looking = _back(looking, layout.query_order)
    if layout.key_order is not None:
        columns = _back(columns, layout.key_order)
    return Bias(steer.bias, looking, columns.repeat(1, keys // layout.key_count))


def _inside(mask: Tensor | None, span: Span, batch: int, name: str) -> Tensor:
    """Which tokens of a span are inside a mask, 1 or 0: (1 or batch, length)."""
    if mask is None:
        return torch.ones(1, span.length)
    if span.grid is None or span.length == 1:
        raise I2AMError(
            f"{name}_mask cannot be used here: the tokens of this {name} stand for the whole "
            "picture, not for places in it. Take the mask away."
        )
    if mask.shape[0] not in (1, batch):
        raise I2AMError(
            f"{name}_mask holds {mask.shape[0]} masks, but {batch} pictures are sampled. "
            "Give one for all or one for each."
        )
    covered = mask_coverage(mask, span.grid.one_frame)
    # A mask smaller than a token still means the token it is in.
    enough = covered.amax(1, keepdim=True).clamp(max=0.5)
    return (covered >= enough).float().repeat(1, span.grid.frames)


def _placed(inside: Tensor, span: Span, length: int) -> Tensor:
    """A span's values in a sequence of so many tokens, 0 elsewhere."""
    return pad(inside, (span.start, length - span.stop))


def _back(values: Tensor, order: tuple[int, ...]) -> Tensor:
    """From a layout's order of tokens to the sequence's."""
    return torch.zeros_like(values).index_copy(1, torch.tensor(order), values)


def biased_query_key(
    q: Tensor, k: Tensor, biases: Sequence[tuple[slice, Bias]], scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """q and k whose plain attention logits, q·kᵀ/√d, are the scaled and biased ones.

    q: (batch, heads, queries, dim), k: (batch, heads or fewer, keys, dim). scale: of the logits,
    1/√dim if left out. biases: with the rows of the batch each is for. The heads come back longer,
    by at least two features for each bias.
    """
    dim = q.shape[-1]
    longer = -(-(dim + _FEATURES * len(biases)) // _ALIGNED) * _ALIGNED
    root = math.sqrt(longer)
    lift = 2.0 ** round(math.log2(root))  # shares the factor √d between q and k, exactly
    rows = q.new_zeros(q.shape[0], 1, q.shape[2], longer - dim)
    columns = k.new_zeros(k.shape[0], 1, k.shape[2], longer - dim)
    for number, (items, bias) in enumerate(biases):
        value = torch.tensor(bias.value * root / lift, dtype=torch.float64)
        high = value.to(k.dtype)
        low = (value - high.double()).to(k.dtype)
        for feature, part in zip(range(2 * number, 2 * number + 2), (high, low), strict=True):
            rows[items, 0, :, feature] = bias.queries.to(rows) * lift
            columns[items, 0, :, feature] = bias.keys.to(columns) * float(part)
    factor = (dim**-0.5 if scale is None else scale) * root
    return (
        torch.cat((q * factor, rows.expand(-1, q.shape[1], -1, -1)), -1),
        torch.cat((k, columns.expand(-1, k.shape[1], -1, -1)), -1),
    )
