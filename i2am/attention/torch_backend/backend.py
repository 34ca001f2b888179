"""The door of the torch backend: which calls its operators serve.

Windows builds of torch and AMD's cards have no Triton kernels of ours, but they have torch's fused
attention. If that is missing, or disagrees with the blocked computation in a trial before its first
use, the blocked computation is used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...tokens import TokenLayout
from ..marginals import Marginals
from ..trials import Trials
from .passes import computed_marginals

# Masses in cells are rounded to half precision, each to 2^-9 of itself.
_TRIALS = Trials(
    "sums by torch's fused attention", computed_marginals, half_close={"correspondence": 5e-3}
)


def operator_marginals(
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
    """What `blocked_marginals` gives, or None if torch's operators do not serve this call.

    q: of the generated tokens alone. log_sum: of their rows over all keys, if it is known.
    """
    if mask is not None or not _suits(q, k, layout):
        return None
    if weights is None and any(span.softmax for span in layout.keys):
        return None
    given = {"scale": scale, "correspondence": correspondence, "weights": weights}
    return _TRIALS.marginals(q, k, layout, **given, paper=paper, log_sum=log_sum)


def _suits(q: Tensor, k: Tensor, layout: TokenLayout) -> bool:
    """Whether the operators can compute such a call, and faster than block by block."""
    return (
        _is_card(q.device)
        and q.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and k.dtype == q.dtype
        and q.shape[1] % k.shape[1] == 0
        and all(span.length > 0 for span in layout.keys)
    )


def _is_card(device: torch.device) -> bool:
    """Whether torch has fast fused attention there: on NVIDIA's cards, and on AMD's."""
    return device.type == "cuda"
