"""One attention call → its marginals: sums over the result and over each reference.

One file per way to compute them (dense, blocked, Triton, or tapped from the model's own softmax).
"""

from .bias import Bias, Steer, attention_bias, biased_query_key
from .call_batch import CallBatch, CallSignature
from .compute import attention_marginals
from .dense import ObservedSoftmax, SoftmaxSums
from .exact_points import PointMarginals, point_marginals
from .marginals import SCRATCH_BYTES, Marginals, Workspace
from .pooling import CORRESPONDENCE_SIDE, correspondence_grid
from .softmax_tap import SoftmaxTap, can_tap

__all__ = [
    "CORRESPONDENCE_SIDE",
    "SCRATCH_BYTES",
    "Bias",
    "CallBatch",
    "CallSignature",
    "Marginals",
    "ObservedSoftmax",
    "PointMarginals",
    "SoftmaxSums",
    "SoftmaxTap",
    "Steer",
    "Workspace",
    "attention_bias",
    "attention_marginals",
    "biased_query_key",
    "can_tap",
    "correspondence_grid",
    "point_marginals",
]
