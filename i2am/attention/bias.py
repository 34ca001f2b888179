"""Steering: turn a reference up or down by a bias on the attention logits.

With the logits S = q·kᵀ/√d of the generated tokens g and the tokens r of one reference, a steer of
strength s replaces S[g, r] by S[g, r] + log s, for g in a mask over the result and r in a mask over
the reference. Before the softmax is normalised, each of these r then counts s times. The bias is
the outer product of the two masks, so it needs no matrix of logits: q gets another feature that is
set inside the first mask, and k one that holds the bias inside the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import I2AMError
from ..tokens import Ranges, Span, TokenLayout, mask_coverage, ranges_text

MUTE = -3000.0  # instead of log 0: finite, but its exponential is zero in every precision
_ALIGNED = 8  # attention kernels want a multiple of so many features
_FEATURES = 2  # of one bias: itself, and what rounding it leaves over


@dataclass(frozen=True, eq=False)
class Steer:
    """How much a reference counts, where and when.

    reference: from 0. strength: how many times each of its tokens counts, 0 for not at all.
    result_mask, reference_mask: (1 or batch, height, width), over the whole picture at any size;
    all of it by default. A token is inside if at least half of it is. steps: of the schedule.
    """

    reference: int
    strength: float
    result_mask: Tensor | None = None
    reference_mask: Tensor | None = None
    steps: Ranges = ()

    def __str__(self) -> str:
        """For reports: "reference 2 × 0.5, for a part of the result, steps 0-3"."""
        text = f"reference {self.reference + 1} × {self.strength:g}"
        if self.reference_mask is not None:
            text += ", a part of it"
        if self.result_mask is not None:
            text += ", for a part of the result"
        if self.steps:
            text += f", steps {ranges_text(self.steps)}"
        return text

    @property
    def bias(self) -> float:
        """What is added to the logits: log strength."""
        return max(MUTE, math.log(self.strength)) if self.strength > 0 else MUTE


@dataclass(frozen=True)
class Bias:
    """What one steer adds to the logits of one conditioning.

    queries: (1 or batch, queries), keys: (1 or batch, keys), each 1 inside and 0 outside; `value`
    is added where both are 1.
    """

    value: float
    queries: Tensor
    keys: Tensor

    def on(self, device: torch.device) -> Bias:
        """The same on a device."""
        return Bias(self.value, self.queries.to(device), self.keys.to(device))


def attention_bias(steer: Steer, layout: TokenLayout, keys: int, batch: int) -> Bias | None:
    """A steer's bias in a call of this layout; None if the call does not hold its reference.

    keys: of the call, which may repeat the layout's keys. batch: items of one conditioning.
    Raises I2AMError if the steer cannot have an effect, or its masks do not fit.
    """
    references = layout.references
    if steer.reference >= len(references):
        return None
    span, generated = references[steer.reference], layout.generated
    reference = _inside(steer.reference_mask, span, batch, "reference")
    if steer.strength != 1 and span.length == layout.key_count and bool((reference > 0).all()):
        raise I2AMError(
            "In this model the reference has a softmax of its own: nothing competes with it, so "
            "counting all of it more or less changes nothing. Give reference_mask a part of it."
        )
    result = _inside(steer.result_mask, generated, batch, "result")
    query_side = _on_axis(result, generated, sum(s.length for s in layout.queries))
    key_side = _on_axis(reference, span, layout.key_count)
    if layout.query_order is not None:
        query_side = _in_sequence_order(query_side, layout.query_order)
    if layout.key_order is not None:
        key_side = _in_sequence_order(key_side, layout.key_order)
    return Bias(steer.bias, query_side, key_side.repeat(1, keys // layout.key_count))


def _inside(mask: Tensor | None, span: Span, batch: int, name: str) -> Tensor:
    """1 for each token of a span inside a mask, 0 for the others: (1 or batch, length)."""
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
    # A mask smaller than a token means the token it covers most.
    enough = covered.amax(1, keepdim=True).clamp(max=0.5)
    return (covered >= enough).float().repeat(1, span.grid.frames)


def _on_axis(inside: Tensor, span: Span, length: int) -> Tensor:
    """Values of a span on an axis of so many tokens, 0 elsewhere: (1 or batch, length)."""
    return pad(inside, (span.start, length - span.stop))


def _in_sequence_order(values: Tensor, order: tuple[int, ...]) -> Tensor:
    """Values in a layout's order of tokens → in the order of the sequence."""
    return torch.zeros_like(values).index_copy(1, torch.tensor(order), values)


def biased_query_key(
    q: Tensor, k: Tensor, biases: Sequence[tuple[slice, Bias]], scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """q and k → longer ones, with logits q·kᵀ/√d that are scaled and biased.

    q: (batch, heads, queries, dim), k: (batch, heads or fewer, keys, dim). scale: of the logits,
    1/√dim by default. biases: each with the rows of the batch it is for; it adds at least two
    features.
    """
    dim = q.shape[-1]
    longer = -(-(dim + _FEATURES * len(biases)) // _ALIGNED) * _ALIGNED
    root = math.sqrt(longer)
    flag = 2.0 ** round(math.log2(root))  # of q inside the mask: about √d, exact in any precision
    rows = q.new_zeros(q.shape[0], 1, q.shape[2], longer - dim)
    columns = k.new_zeros(k.shape[0], 1, k.shape[2], longer - dim)
    for number, (items, bias) in enumerate(biases):
        value = torch.tensor(bias.value * root / flag, dtype=torch.float64)
        high = value.to(k.dtype)
        low = (value - high.double()).to(k.dtype)
        for feature, part in zip(range(2 * number, 2 * number + 2), (high, low), strict=True):
            rows[items, 0, :, feature] = bias.queries.to(rows) * flag
            columns[items, 0, :, feature] = bias.keys.to(columns) * float(part)
    factor = (dim**-0.5 if scale is None else scale) * root
    return (
        torch.cat((q * factor, rows.expand(-1, q.shape[1], -1, -1)), -1),
        torch.cat((k, columns.expand(-1, k.shape[1], -1, -1)), -1),
    )
