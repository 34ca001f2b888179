"""Tensors on their way from a card to the CPU, which nothing waits for until they are needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

_log = logging.getLogger(__name__)


class HostCopy:
    """Copies of tensors to the CPU, in the order of their card's work.

    A card works behind the processor. Asking it for a number makes the processor wait until all
    work so far is done, and then the card for more work, once for each tensor and step.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._copies = [_started(tensor) for tensor in tensors]
        self._done: list[torch.cuda.Event] = []
        for device in {tensor.device for tensor in tensors if tensor.is_cuda}:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
            self._done.append(event)

    @property
    def on_the_way(self) -> bool:
        """Whether asking for them can make the processor wait for a card."""
        return bool(self._done)

    def arrived(self) -> list[Tensor]:
        """The tensors on the CPU, once they are there."""
        for event in self._done:
            event.synchronize()
        return self._copies


def _started(tensor: Tensor) -> Tensor:
    """A copy that will be complete when its card has come so far."""
    if not tensor.is_cuda:
        return tensor.cpu()
    try:
        there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    except RuntimeError as error:  # the system lends no more memory that a card can write to
        _log.debug("I2AM: waiting for a copy", exc_info=error)
        return tensor.cpu()
    return there.copy_(tensor, non_blocking=True)
