"""Tap the softmax of an attention function: read its logits and softmax as it computes them.

Functions that hold all logits at once (ComfyUI's own on a CPU) call torch's softmax on them. Its
input and output are all that a call's marginals are made of, so nothing is computed again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .softmax_sums import ObservedSoftmax
from .workspace import SMALL_BYTES

_SOFTMAXES = {torch.softmax, Tensor.softmax, torch.nn.functional.softmax}
_ROWS, _KEYS = 4, 16  # how many logits of each head are compared
_CLOSE = 1e-3  # how far apart another order of adding up may bring them
_log = logging.getLogger(__name__)


def can_tap(q: Tensor, k: Tensor) -> bool:
    """Whether a call can be tapped, and is large enough for that to pay.

    q: (batch, heads, queries, dim), k: (batch, heads or fewer, keys, dim).
    """
    return q.device.type == "cpu" and 4 * q[..., 0].numel() * k.shape[2] > SMALL_BYTES


class SoftmaxTap(TorchFunctionMode):
    """While entered, observes the softmax of one attention call in this thread.

    Every function is called as it is, once, and its result is passed on. q, k, scale, mask: as in
    `observed_softmax`. on_softmax: called with each observed piece and its first row.
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        scale: float | None,
        mask: Tensor | None,
        on_softmax: Callable[[ObservedSoftmax, int], None],
    ) -> None:
        super().__init__()
        self._call = q, k, scale, mask
        self._on_softmax = on_softmax
        self._row_count = 0  # rows observed so far, from the first

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _SOFTMAXES and args:
            self._observe(args[0], result)
        return result

    def _observe(self, logits: Tensor, softmax: Tensor) -> None:
        first = self._row_count
        try:
            observed = observed_softmax(logits, softmax, *self._call, first)
        except Exception as error:
            _log.debug("I2AM: an attention function computes something unexpected", exc_info=error)
            return
        if observed is not None:
            self._row_count += observed.softmax.shape[2]
            self._on_softmax(observed, first)


def observed_softmax(
    logits: Tensor,
    softmax: Tensor,
    q: Tensor,
    k: Tensor,
    scale: float | None,
    mask: Tensor | None,
    first: int = 0,
) -> ObservedSoftmax | None:
    """Input and output of a softmax → the attention of q and k, or None if it is something else.

    q: (batch, heads, queries, dim), k: (batch, heads or fewer, keys, dim). scale, mask: as in
    `attention_marginals`. A function may work through the queries in pieces: this one starts at
    `first`. A few logits are computed again and compared.
    """
    batch, heads, queries, dim = q.shape
    keys = k.shape[2]
    rows = logits.shape[-2] if logits.ndim > 1 else 0
    if (
        logits.dtype != torch.float32
        or softmax.shape != logits.shape
        or not 0 < rows <= queries - first
        or logits.numel() != batch * heads * rows * keys
        or logits.shape[-1] != keys
    ):
        return None
    logits, softmax = (x.reshape(batch, heads, rows, keys) for x in (logits, softmax))
    piece = slice(first, first + rows)
    few_rows = slice(None, None, -(-rows // _ROWS))
    few_keys = slice(None, None, -(-keys // _KEYS))
    sampled = k[:, :, few_keys].float().repeat_interleave(heads // k.shape[1], dim=1)
    expected = q[:, :, piece][:, :, few_rows].float() @ sampled.mT
    expected *= dim**-0.5 if scale is None else scale
    if mask is not None:
        if mask.dtype == torch.bool or mask.ndim != 4:
            return None
        mask = mask.expand(*mask.shape[:2], queries, keys)
        expected += mask[:, :, piece][:, :, few_rows][..., few_keys]
    if not torch.allclose(logits[:, :, few_rows][..., few_keys], expected, _CLOSE, _CLOSE):
        return None
    return ObservedSoftmax(logits, softmax)
