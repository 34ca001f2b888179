"""One attention call's marginals on an NVIDIA card, by two Triton kernels.

`backend` decides whether they serve a call, `trials` tries them first, `passes` runs `kernels`.
"""

from .backend import triton_marginals

__all__ = ["triton_marginals"]
