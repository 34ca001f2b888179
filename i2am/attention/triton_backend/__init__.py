"""One attention call → its marginals on an NVIDIA card, by Triton kernels.

They compute the logits again in each pass and never store them. `backend` decides which calls they
serve, `passes` runs the `kernels`, `pooling_plan` says what is averaged.
"""

from .backend import triton_marginals

__all__ = ["triton_marginals"]
