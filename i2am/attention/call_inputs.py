"""The inputs of one attention call in one form: token order, masks, weights of its softmaxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..tokens import TokenLayout

LOWEST_LOG = -1e3  # e to this is zero in float32, whatever it is added to


@lru_cache(maxsize=32)  # copied for each call, it would make the processor wait for a card
def query_order(layout: TokenLayout, device: torch.device) -> Tensor | None:
    """Where the tokens of a layout lie among the queries; None if they are in its order."""
    return None if layout.query_order is None else torch.tensor(layout.query_order, device=device)


@lru_cache(maxsize=32)
def key_order(layout: TokenLayout, device: torch.device) -> Tensor | None:
    """The same of the keys."""
    return None if layout.key_order is None else torch.tensor(layout.key_order, device=device)


def in_layout_order(
    q: Tensor, k: Tensor, mask: Tensor | None, layout: TokenLayout
) -> tuple[Tensor, Tensor, Tensor | None]:
    """q, k and mask with their tokens in the order of the layout's spans."""
    order = query_order(layout, q.device)
    if order is not None:
        q = q[:, :, order]
        mask = mask[..., order, :] if mask is not None and mask.shape[-2] > 1 else mask
    order = key_order(layout, k.device)
    if order is not None:
        k = k[:, :, order]
        mask = mask[..., order] if mask is not None and mask.shape[-1] > 1 else mask
    return q, k, mask


def generated_rows(values: Tensor, layout: TokenLayout) -> Tensor:
    """(…, queries) of a call → the generated tokens' alone, in the order of the layout."""
    order = query_order(layout, values.device)
    if order is not None:
        values = values[..., order]
    return values[..., layout.generated.slice]


def key_heads(some: slice, heads: int, key_heads: int) -> slice | list[int]:
    """The key heads of some heads; groups of heads may share one."""
    if key_heads == heads:
        return some
    return [head * key_heads // heads for head in range(heads)[some]]


def part_of_mask(mask: Tensor | None, here: tuple[slice, slice]) -> Tensor | None:
    """Some items and heads of a mask, which may have one for all: (batch|1, heads|1, …)."""
    if mask is None:
        return None
    items, heads = (
        one if size > 1 else slice(None) for one, size in zip(here, mask.shape[:2], strict=True)
    )
    return mask[items, heads]


def additive_mask(mask: Tensor, rows: slice = slice(None)) -> Tensor:
    """Some rows of a mask as torch's attention takes it → (batch|1, heads|1, rows|1, keys|1).

    What comes out is added to the logits.
    """
    while mask.ndim < 4:
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
    if mask.shape[-2] != 1:
        mask = mask[:, :, rows]
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -math.inf)
    return mask


@dataclass(frozen=True)
class SoftmaxWeights:
    """How much each softmax of a call counts at each place; (batch, softmaxes, generated) each.

    portions: its part of all softmaxes there; the model's attention is multiplied by it.
    emphasis: its weight there relative to its mean over all places, or zero if it has no weight;
    the paper's M_r and M_g are multiplied by it.
    """

    portions: Tensor
    emphasis: Tensor

    @staticmethod
    def of(weights: Tensor) -> SoftmaxWeights:
        """From weights (batch, softmaxes, generated) of any scale."""
        weights = weights.float()
        return SoftmaxWeights(
            portions=weights / weights.sum(1, keepdim=True),
            emphasis=(weights / weights.mean(-1, keepdim=True)).nan_to_num(0.0),
        )

    @property
    def logarithms(self) -> SoftmaxWeights:
        """The logarithm of each number; of zero, one low enough for nothing to be left of it."""
        return SoftmaxWeights(
            self.portions.log().clamp(min=LOWEST_LOG), self.emphasis.log().clamp(min=LOWEST_LOG)
        )

    def one(self, softmax: int) -> SoftmaxWeights:
        """Those of one softmax, (batch, generated) each."""
        return SoftmaxWeights(self.portions[:, softmax], self.emphasis[:, softmax])

    def items(self, items: slice) -> SoftmaxWeights:
        """Those of some items of the batch."""
        return SoftmaxWeights(self.portions[items], self.emphasis[items])
