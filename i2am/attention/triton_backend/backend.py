"""The door of the Triton backend: which calls the kernels serve.

Triton comes with torch's CUDA builds. If it is missing, cannot compile, or disagrees with the
blocked computation in a trial before its first use, the blocked computation is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...tokens import TokenLayout
from ..marginals import Marginals
from ..trials import Trials
from .passes import kernel_marginals

LARGEST_DIM = 256
_LARGEST_OFFSET = 2**31  # within one item and head, where the kernels count in 32 bits
# Maps and correspondence add up exponentials rounded to half precision, each to 2^-8 of itself.
HALF_CLOSE = {"R2G": 4e-3, "G2R": 4e-3, "correspondence": 8e-3}
_TRIALS = Trials("the fused kernels", kernel_marginals, HALF_CLOSE, masks=True)


def triton_marginals(q: Tensor, k: Tensor, layout: TokenLayout, **call: Any) -> Marginals | None:
    """What `blocked_marginals` gives, or None if the kernels do not serve this call.

    q: of the generated tokens alone. call: as in `kernel_marginals`.
    """
    return _TRIALS.marginals(q, k, layout, **call) if _suits(q, k) else None


def _suits(q: Tensor, k: Tensor) -> bool:
    """Whether the kernels run there and can count so many numbers."""
    return (
        q.device.type == "cuda"
        and torch.version.hip is None
        and q.shape[-1] <= LARGEST_DIM
        and all(x.shape[2] * max(x.stride(2), x.shape[3]) < _LARGEST_OFFSET for x in (q, k))
    )
