"""Tap torch's fused attention: read each row's log-sum-exp, which it computes and throws away.

The operators behind torch's scaled_dot_product_attention (flash, cuDNN, memory-efficient) sum up
every row's softmax over all keys. Their second output is the logarithm of that sum: the one number
a row needs for the model's own softmax to be known from a few logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .workspace import SMALL_BYTES

_WHOLE = "aten::scaled_dot_product_attention"
# Where an operator is asked to give its sums, among its positional arguments; None if it always
# does. Asking changes no bit of its output.
_OPERATORS = {
    "aten::_scaled_dot_product_flash_attention": None,
    "aten::_scaled_dot_product_flash_attention_for_cpu": None,
    "aten::_scaled_dot_product_efficient_attention": 4,
    "aten::_scaled_dot_product_cudnn_attention": 4,
}
_ASKED = "compute_log_sumexp"


def can_tap_log_sum(q: Tensor, k: Tensor) -> bool:
    """Whether a call's log-sum-exps are of use, and the call is large enough for a tap to pay.

    On a processor, blocks of logits in its cache are faster than what could be done with them.
    q: (batch, heads, queries, dim), k: (batch, heads or fewer, keys, dim).
    """
    return q.device.type == "cuda" and 4 * q[..., 0].numel() * k.shape[2] > SMALL_BYTES


class LogSumTap(TorchDispatchMode):
    """While entered, reads the log-sum-exps of one attention call in this thread.

    Every operator is called as it is, once, and its result is passed on. The call may come in
    pieces of its batch. q: (batch, heads, queries, dim), k: (batch, heads or fewer, keys, dim).
    """

    def __init__(self, q: Tensor, k: Tensor) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._batch, self._tokens = q.shape[0], (q.shape[1], q.shape[2], k.shape[2])
        self._found: list[Tensor] = []

    @property
    def log_sum(self) -> Tensor | None:
        """(batch, heads, queries), float32; None unless all of the call was seen, and only once."""
        if sum(len(one) for one in self._found) != self._batch:
            return None
        return self._found[0] if len(self._found) == 1 else torch.cat(self._found)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict[str, Any](kwargs or {})
        name = func.name()
        if name == _WHOLE:  # shown whole in inference mode: go on to what it is made of
            with self:
                result = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if result is NotImplemented else result
        if name not in _OPERATORS:
            return func(*args, **kwargs)
        place = _OPERATORS[name]
        if place is not None and len(args) > place:
            args = (*args[:place], True, *args[place + 1 :])
        elif place is not None:
            kwargs[_ASKED] = True
        result = func(*args, **kwargs)
        self._read(args[0], args[1], result[1])
        return result

    def _read(self, q: Tensor, k: Tensor, sums: Tensor) -> None:
        heads, queries, keys = self._tokens
        if (q.shape[1], q.shape[2], k.shape[2]) == (heads, queries, keys):
            sums = sums.flatten(2)[..., :queries]  # cuDNN's has a last axis, others padded rows
            self._found.append(sums)
