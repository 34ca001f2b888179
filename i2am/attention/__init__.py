"""One attention call → its marginals: sums over the result and over each reference.

`marginals` has the definitions, `compute` chooses a way, and each way has a file: `softmax_tap`
(the model's own softmax), `dense` (small calls), `triton_backend` (NVIDIA cards), `torch_backend`
(cards without Triton), `blocked`. `log_sum_tap` reads what torch's fused attention sums up anyway.
"""

from .bias import Bias, Steer, attention_bias, biased_query_key
from .call_batch import CallBatch, CallSignature, CallTensors
from .compute import attention_marginals
from .effects import Effects, attention_effects
from .exact_points import PointMarginals, point_coverage, point_marginals
from .log_sum_tap import LogSumTap, can_tap_log_sum
from .marginals import Marginals
from .pooling import CORRESPONDENCE_SIDE, correspondence_grid
from .softmax_sums import ObservedSoftmax, SoftmaxSums
from .softmax_tap import SoftmaxTap, can_tap
from .workspace import SCRATCH_BYTES, Workspace

__all__ = [
    "CORRESPONDENCE_SIDE",
    "SCRATCH_BYTES",
    "Bias",
    "CallBatch",
    "CallSignature",
    "CallTensors",
    "Effects",
    "LogSumTap",
    "Marginals",
    "ObservedSoftmax",
    "PointMarginals",
    "SoftmaxSums",
    "SoftmaxTap",
    "Steer",
    "Workspace",
    "attention_bias",
    "attention_effects",
    "attention_marginals",
    "biased_query_key",
    "can_tap",
    "can_tap_log_sum",
    "correspondence_grid",
    "point_coverage",
    "point_marginals",
]
