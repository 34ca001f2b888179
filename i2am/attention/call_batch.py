"""Small calls wait for others like them: computing a batch takes hardly more operations than one.

For a call that lasts microseconds, the number of operations is all that its sums cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ..tokens import TokenLayout
from .dense import SMALL_BYTES

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
    """Calls of one signature, stacked along the batch of q and k."""

    names: tuple[_Name, ...]
    q: Tensor
    k: Tensor
    kind: CallSignature


class CallBatch(Generic[_Name]):
    """A queue of calls of one signature."""

    def __init__(self) -> None:
        self._kind: CallSignature | None = None
        self._calls: list[tuple[_Name, Tensor, Tensor]] = []

    def has_room(self, kind: CallSignature) -> bool:
        """Whether a call has the signature of those queued, and fits with them."""
        if self._kind is None:
            return True
        return self._kind == kind and (1 + len(self._calls)) * kind.bytes <= SMALL_BYTES

    def put(self, name: _Name, q: Tensor, k: Tensor, kind: CallSignature) -> None:
        """Queue a call; there must be room for it."""
        self._kind = kind
        # Copies: after the call the model may use its memory for something else.
        self._calls.append((name, q.clone(), k.clone()))

    def take(self) -> StackedCalls[_Name] | None:
        """The queued calls as one, or None; the queue is empty then."""
        kind, calls = self._kind, self._calls
        self._kind, self._calls = None, []
        if kind is None:
            return None
        names, q, k = zip(*calls, strict=True)
        return StackedCalls(names, torch.cat(q), torch.cat(k), kind)
