"""A queue of small calls that are computed together.

A call of microseconds costs as much as the number of operations on it, and a batch of calls takes
hardly more operations than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ..tokens import TokenLayout
from .workspace import SMALL_BYTES

_Name = TypeVar("_Name")


@dataclass(frozen=True)
class CallSignature:
    """What calls must have in common to make one batch."""

    queries: torch.Size  # (batch, heads, queries, dim)
    keys: torch.Size  # (batch, heads or fewer, keys, dim)
    dtype: torch.dtype
    device: torch.device
    layout: TokenLayout
    scale: float | None

    @staticmethod
    def of(q: Tensor, k: Tensor, layout: TokenLayout, scale: float | None) -> CallSignature:
        """The signature of a call without a mask; arguments as in `attention_marginals`."""
        return CallSignature(q.shape, k.shape, q.dtype, q.device, layout, scale)

    @property
    def bytes(self) -> int:
        """Bytes of a call's logits, or of its copies in float32 if those take more."""
        batch, heads, queries, dim = self.queries
        logits = batch * heads * queries * self.keys[2]
        return 4 * max(logits, batch * heads * queries * dim + self.keys.numel())

    @property
    def is_small(self) -> bool:
        """Whether there is room for a second call."""
        return 2 * self.bytes <= SMALL_BYTES


@dataclass(frozen=True)
class StackedCalls(Generic[_Name]):
    """Calls of one signature, stacked along the batch of q and k, and of v if all have them."""

    names: tuple[_Name, ...]
    q: Tensor
    k: Tensor
    v: Tensor | None
    signature: CallSignature


class CallBatch(Generic[_Name]):
    """A queue of calls of one signature."""

    def __init__(self) -> None:
        self._signature: CallSignature | None = None
        self._calls: list[tuple[_Name, Tensor, Tensor, Tensor | None]] = []

    def has_room(self, signature: CallSignature) -> bool:
        """Whether a call has the signature of those queued, and fits with them."""
        if self._signature is None:
            return True
        fits = (1 + len(self._calls)) * signature.bytes <= SMALL_BYTES
        return self._signature == signature and fits

    def put(
        self,
        name: _Name,
        q: Tensor,
        k: Tensor,
        signature: CallSignature,
        v: Tensor | None = None,
    ) -> None:
        """Queue a call; there must be room for it."""
        self._signature = signature
        # Copies: after the call the model may use its memory for something else.
        self._calls.append((name, q.clone(), k.clone(), None if v is None else v.clone()))

    def take(self) -> StackedCalls[_Name] | None:
        """The queued calls as one, or None; the queue is empty then."""
        signature, calls = self._signature, self._calls
        self._signature, self._calls = None, []
        if signature is None:
            return None
        names, q, k, v = zip(*calls, strict=True)
        values = None if None in v else torch.cat(v)
        return StackedCalls(names, torch.cat(q), torch.cat(k), values, signature)
