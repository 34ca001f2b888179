"""Small calls of one step that wait for others like them and are computed together.

A call of microseconds costs as much as the number of operations on it, and a batch of calls takes
hardly more operations than one. On a card, each operation also has to be started by the processor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..tokens import TokenLayout
from .workspace import SMALL_BYTES, can_read_back

_Name = TypeVar("_Name")

CARD_LOGITS = 2**25  # a card is done with a call of so many in the time that starting it takes
CARD_BYTES = 64 * 2**20  # of inputs of like calls that wait on a card


class CallTensors(NamedTuple):
    """The tensors of a call, each with its batch first; as in `attention_marginals`, and v."""

    q: Tensor
    k: Tensor
    v: Tensor | None = None
    log_sum: Tensor | None = None
    weights: Tensor | None = None

    def copied(self) -> CallTensors:
        """In memory of their own."""
        v, log_sum, weights = (None if x is None else x.clone() for x in self[2:])
        return CallTensors(self.q.clone(), self.k.clone(), v, log_sum, weights)

    @staticmethod
    def stacked(calls: Sequence[CallTensors]) -> CallTensors:
        """Those of like calls, along the batch."""
        first = calls[0]

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(call, name) for call in calls])

        return CallTensors(
            joined("q"),
            joined("k"),
            None if first.v is None else joined("v"),
            None if first.log_sum is None else joined("log_sum"),
            None if first.weights is None else joined("weights"),
        )


@dataclass(frozen=True)
class CallSignature:
    """What calls must have in common to make one batch.

    shapes: of the tensors of `CallTensors`, None for those that are not there.
    """

    shapes: tuple[torch.Size | None, ...]
    dtype: torch.dtype
    device: torch.device
    layout: TokenLayout
    scale: float | None

    @staticmethod
    def of(tensors: CallTensors, layout: TokenLayout, scale: float | None) -> CallSignature:
        """The signature of a call without a mask; layout and scale as in `attention_marginals`."""
        shapes = tuple(None if tensor is None else tensor.shape for tensor in tensors)
        return CallSignature(shapes, tensors.q.dtype, tensors.q.device, layout, scale)

    @property
    def logits(self) -> int:
        """How many a call has."""
        (batch, heads, queries, _), keys = self._queries_and_keys
        return batch * heads * queries * keys[2]

    @property
    def bytes(self) -> int:
        """Bytes of a call's logits, or of its copies in float32 if those take more.

        On a card, where logits are never stored, bytes of the copies that wait.
        """
        queries, keys = self._queries_and_keys
        if can_read_back(self.device):
            return 4 * max(self.logits, queries.numel() + keys.numel())
        numbers = sum(math.prod(shape) for shape in self.shapes if shape is not None)
        return numbers * self.dtype.itemsize

    @property
    def is_small(self) -> bool:
        """Whether waiting pays, and there is room for a second call."""
        if not can_read_back(self.device) and self.logits > CARD_LOGITS:
            return False
        return 2 * self.bytes <= self.room

    @property
    def room(self) -> int:
        """Bytes of all calls with this signature that may wait."""
        return SMALL_BYTES if can_read_back(self.device) else CARD_BYTES

    @property
    def _queries_and_keys(self) -> tuple[torch.Size, torch.Size]:
        queries, keys = self.shapes[:2]
        assert queries is not None
        assert keys is not None
        return queries, keys


@dataclass(frozen=True)
class StackedCalls(Generic[_Name]):
    """Calls of one signature, stacked along the batch of their tensors."""

    names: tuple[_Name, ...]
    tensors: CallTensors
    signature: CallSignature


class CallBatch(Generic[_Name]):
    """The calls that wait, by signature."""

    def __init__(self) -> None:
        self._waiting: dict[CallSignature, list[tuple[_Name, CallTensors]]] = {}

    def has_room(self, signature: CallSignature) -> bool:
        """Whether another call with this signature fits."""
        count = len(self._waiting.get(signature, ()))
        return count == 0 or (1 + count) * signature.bytes <= signature.room

    def put(self, name: _Name, tensors: CallTensors, signature: CallSignature) -> None:
        """Let a call wait; there must be room for it."""
        # Copies: after the call the model may use its memory for something else.
        self._waiting.setdefault(signature, []).append((name, tensors.copied()))

    def take(self, signature: CallSignature | None = None) -> Iterator[StackedCalls[_Name]]:
        """The calls with this signature as one, or those of each; none of them waits any longer."""
        for kind in list(self._waiting) if signature is None else [signature]:
            names, calls = zip(*self._waiting.pop(kind), strict=True)
            yield StackedCalls(names, CallTensors.stacked(calls), kind)
