"""The door of the Triton backend: which calls the kernels serve.

Triton comes with torch's CUDA builds. If it is missing, cannot compile, or disagrees with the
blocked computation in a trial before its first use, the blocked computation is used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...tokens import TokenLayout
from ..marginals import Marginals
from ..trials import Trials
from .passes import kernel_marginals

LARGEST_DIM = 256
_LARGEST_OFFSET = 2**31  # within one item and head, where the kernels count in 32 bits
# What the correspondence adds up is rounded to half precision, each number to 2^-8 of itself.
HALF_CLOSE = {"correspondence": 8e-3}
_TRIALS = Trials("the fused kernels", kernel_marginals, HALF_CLOSE)


def triton_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float,
    mask: Tensor | None,
    weights: Tensor | None,
    correspondence: bool,
    paper: bool,
    log_sum: Tensor | None,
) -> Marginals | None:
    """What `blocked_marginals` gives, or None if the kernels do not serve this call.

    q: of the generated tokens alone. log_sum: of their rows over all keys, if it is known.
    """
    if mask is not None or not _suits(q, k, layout):
        return None
    if weights is None and any(span.softmax for span in layout.keys):
        return None
    given = {"scale": scale, "correspondence": correspondence, "weights": weights}
    return _TRIALS.marginals(q, k, layout, **given, paper=paper, log_sum=log_sum)


def _suits(q: Tensor, k: Tensor, layout: TokenLayout) -> bool:
    """Whether the kernels can compute such a call."""
    return (
        q.device.type == "cuda"
        and torch.version.hip is None
        and q.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and k.dtype == q.dtype
        and q.shape[-1] <= LARGEST_DIM
        and q.shape[1] % k.shape[1] == 0
        and all(x.shape[2] * max(x.stride(2), x.shape[3]) < _LARGEST_OFFSET for x in (q, k))
        and all(span.length > 0 for span in layout.keys)
    )
