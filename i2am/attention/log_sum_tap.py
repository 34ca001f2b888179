"""Tap torch's fused attention: read each row's log-sum-exp, which it computes and throws away.

The operators behind torch's scaled_dot_product_attention (flash, cuDNN, memory-efficient) sum up
every row's softmax over all keys. Their second output is the logarithm of that sum: the one number
a row needs for the model's own softmax to be known from a few logits.
"""

from __future__ import annotations

import logging
import threading
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .call_inputs import additive_mask
from .workspace import SMALL_BYTES

_WHOLE = "aten::scaled_dot_product_attention"
_OPERATORS = {
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
}
_ASKED = "compute_log_sumexp"
_SUMS = {"logsumexp", "log_sumexp"}  # how torch calls the second output
_ROWS = 3  # compared once, of the first head
_CLOSE = 2e-2  # how far apart their log-sum-exps may be, where half precision adds up
_log = logging.getLogger(__name__)


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
    scale, mask: as in `attention_marginals`.
    """

    def __init__(
        self, q: Tensor, k: Tensor, scale: float | None = None, mask: Tensor | None = None
    ) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._call = q, k, scale, mask
        self._found: list[Tensor] = []
        self._operators: set[str] = set()

    @property
    def log_sum(self) -> Tensor | None:
        """(batch, heads, queries), float32.

        None unless all of the call was seen, only once, and such sums are what they should be. The
        first call of each kind waits for the device to find that out.
        """
        q = self._call[0]
        if sum(len(one) for one in self._found) != len(q) or len(self._operators) != 1:
            return None
        found = self._found[0] if len(self._found) == 1 else torch.cat(self._found)
        masked = self._call[3] is not None
        kind = (*self._operators, q.device, q.dtype, q.shape[-1], masked)
        return found if _AGREEMENT.of(kind, found, *self._call) else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _name_of_attention(func)
        if not name:
            return func(*args, **kwargs)
        if name == _WHOLE:  # shown whole in inference mode: go on to what it is made of
            with self:
                result = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if result is NotImplemented else result
        place = _place_to_ask(func)
        if place is not None and len(args) > place:
            args = (*args[:place], True, *args[place + 1 :])
        elif place is not None:
            kwargs = {**kwargs, _ASKED: True}
        result = func(*args, **kwargs)
        self._read(name, args[0], args[1], result[1])
        return result

    def _read(self, name: str, q: Tensor, k: Tensor, sums: Tensor) -> None:
        of, keys = self._call[:2]
        if (*q.shape[1:3], k.shape[2]) == (*of.shape[1:3], keys.shape[2]):
            # cuDNN's have a last axis, others padded rows.
            self._found.append(sums.flatten(2)[..., : q.shape[2]])
            self._operators.add(name)


@lru_cache(maxsize=256)  # an attention function calls a dozen operators around it
def _name_of_attention(operator: Any) -> str:
    """The name of an operator that is attention, whole or with its sums as the second output.

    "" for any other.
    """
    name, returned = operator.name(), operator._schema.returns
    gives_sums = len(returned) > 1 and returned[1].name in _SUMS
    return name if name == _WHOLE or (name in _OPERATORS and gives_sums) else ""


@lru_cache(maxsize=16)
def _place_to_ask(operator: Any) -> int | None:
    """Where among its arguments an operator is asked for its sums; None if it always gives them.

    Asking changes no bit of its output. The place differs from one version of torch to the next.
    """
    names = [argument.name for argument in operator._schema.arguments]
    return names.index(_ASKED) if _ASKED in names else None


class _Agreement:
    """Which kinds of calls (operator, device, dtype, head size, mask) give sums that are right."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._right: dict[tuple[Any, ...], bool] = {}

    def of(self, kind: tuple[Any, ...], found: Tensor, *call: Any) -> bool:
        """Whether the sums of such calls are right, judging by the first one."""
        with self._lock:
            if kind not in self._right:
                try:
                    self._right[kind] = _agrees(found, *call)
                except Exception as error:
                    _log.debug("I2AM: an attention call of unknown shapes", exc_info=error)
                    self._right[kind] = False
                if not self._right[kind]:
                    _log.warning(
                        "I2AM: the row sums of %s on %s are not what they should be. They are "
                        "computed again; recording takes longer and gives the same results.",
                        *(str(kind[0]).removeprefix("aten::"), kind[1]),
                    )
            return self._right[kind]


_AGREEMENT = _Agreement()


def _agrees(found: Tensor, q: Tensor, k: Tensor, scale: float | None, mask: Tensor | None) -> bool:
    """Whether a few rows' sums are what their logits add up to."""
    queries = q.shape[2]
    rows = torch.arange(_ROWS, device=q.device) * max(queries - 1, 0) // (_ROWS - 1)
    logits = q[0, 0, rows].double() @ k[0, 0].double().mT
    logits *= q.shape[-1] ** -0.5 if scale is None else scale
    if mask is not None:
        logits += additive_mask(mask).expand(-1, -1, queries, -1)[0, 0, rows]
    wanted = logits.logsumexp(-1)
    return bool(torch.allclose(found[0, 0, rows].double(), wanted, 0.0, _CLOSE, equal_nan=True))
