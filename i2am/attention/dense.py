"""One small call → its marginals, with all its logits at once: the fewest operations."""

from __future__ import annotations

from torch import Tensor

from ..tokens import TokenLayout
from .marginals import Marginals
from .softmax_sums import ObservedSoftmax, SoftmaxSums
from .workspace import SMALL_BYTES, can_read_back


def dense_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float,
    mask: Tensor | None,
    weights: Tensor | None,
    correspondence: bool,
) -> Marginals | None:
    """What `blocked_marginals` gives, or None if the call is not small or float32 is not enough.

    q: of the generated tokens alone.
    """
    if weights is not None or not _suits(q, k, layout):
        return None
    sums = SoftmaxSums(layout, correspondence)
    sums.add(_softmax(q, k, scale, mask), layout.generated.start)
    return sums.marginals(q, k, scale, mask)


def _suits(q: Tensor, k: Tensor, layout: TokenLayout) -> bool:
    """Whether the call is small, has one softmax, and is on a device that can be read back."""
    return (
        not any(span.softmax for span in layout.keys)
        and can_read_back(q.device)
        and 4 * q[..., 0].numel() * k.shape[2] <= SMALL_BYTES
    )


def _softmax(q: Tensor, k: Tensor, scale: float, mask: Tensor | None) -> ObservedSoftmax:
    """q (batch, heads, queries, dim), k (batch, heads or fewer, keys, dim) → logits and softmax."""
    k = k.float()
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    logits = (q.float() * scale) @ k.mT
    if mask is not None:
        logits += mask
    return ObservedSoftmax(logits, logits.softmax(-1))
