"""One attention call → its marginals: sums over the result and over each reference.

`marginals` has the definitions, `compute` chooses a way, and each way has a file: `softmax_tap`
(the model's own softmax), `dense` (small calls), `triton_backend` (NVIDIA cards), `blocked`.
"""

from .bias import Bias, Steer, attention_bias, biased_query_key
from .call_batch import CallBatch, CallSignature
from .compute import attention_marginals
from .effects import Effects, attention_effects
from .exact_points import PointMarginals, point_coverage, point_marginals
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
    "Effects",
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
    "correspondence_grid",
    "point_coverage",
    "point_marginals",
]
