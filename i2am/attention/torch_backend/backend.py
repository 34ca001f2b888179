"""The door of the torch backend: which calls its operators serve.

Windows builds of torch and AMD's cards have no Triton kernels of ours, but they have torch's fused
attention. If that is missing, or disagrees with the blocked computation in a trial before its first
use, the blocked computation is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...tokens import TokenLayout
from ..marginals import Marginals
from ..trials import Trials
from .passes import computed_marginals

_TRIALS = Trials("sums by torch's fused attention", computed_marginals, half_close={})


def operator_marginals(q: Tensor, k: Tensor, layout: TokenLayout, **call: Any) -> Marginals | None:
    """What `blocked_marginals` gives, or None if torch's operators do not serve this call.

    q: of the generated tokens alone. call: as in `computed_marginals`, and a mask.
    """
    return _TRIALS.marginals(q, k, layout, **call) if _is_card(q.device) else None


def _is_card(device: torch.device) -> bool:
    """Whether torch has fast fused attention there: on NVIDIA's cards, and on AMD's."""
    return device.type == "cuda"
