"""The marginals of a call by torch's own fused attention, for devices without Triton."""

from .backend import operator_marginals

__all__ = ["operator_marginals"]
