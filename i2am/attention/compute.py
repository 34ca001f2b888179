"""One attention call → what it says about its references, without ever holding its full matrix.

With the logits S = q·kᵀ/√d of the generated tokens g (rows) and the tokens r of one reference
(columns), the paper's two score matrices are (I2AM, section 3):

    M_g = softmax of S over g, one distribution over the result for each reference token;  (R2G)
    M_r = softmax of S over r, one distribution over the reference for each generated token. (G2R)

Their mean over the other side's tokens is a map over one picture. The model's own softmax runs
over *all* keys; summed over the reference it is the share of its attention a generated token
gives it, which is the model's R2G, and its column means are the model's G2R. Both definitions are
built from generated queries: in the last block the queries of reference tokens are never trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import LayoutMismatch
from ..tokens import Span, TokenLayout
from .blocked import blocked_marginals, can_read_back
from .dense import SMALL_BYTES, SoftmaxSums, dense_softmax
from .marginals import SCRATCH_BYTES, Marginals, Workspace
from .triton_backend import triton_marginals


def attention_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    correspondence: bool = True,
    scratch_bytes: int = SCRATCH_BYTES,
    workspace: Workspace | None = None,
    observed: SoftmaxSums | None = None,
) -> Marginals:
    """Sum the attention between the generated tokens and each reference.

    q: (batch, heads, queries, dim), k: (batch, heads or fewer, keys, dim), as the model's own
    attention gets them, after positions and norms; fewer key heads are shared by groups of heads.
    scale: of the logits, 1/√dim if left out. mask: as torch's scaled_dot_product_attention takes
    it, broadcastable to (batch, heads, queries, keys). weights: (batch, softmaxes, queries), how
    strongly what each softmax found counts at each place, where the layout has several; shares
    are of the sum, and both definitions count a place by its weight.

    workspace: buffers of earlier calls to use again, by one thread at a time. observed: the sums
    of this very call as its softmax was tapped, so that nothing is computed again.

    Works in float32, block by block within `scratch_bytes`. Raises LayoutMismatch if the layout
    does not account for every key, or holds no reference.
    """
    q, k, mask = _in_order(q, k, mask, layout)
    if layout.key_count != k.shape[2]:
        raise LayoutMismatch(f"{k.shape[2]} keys, but the layout accounts for {layout.key_count}")
    references = layout.references
    if not references:
        raise LayoutMismatch("the call holds no reference")
    rows = layout.generated
    batch, heads, _, dim = q.shape
    q = q[:, :, rows.slice]
    if mask is not None:
        mask = _rows_of(mask, rows, q.shape[2], k.shape[2])
    factor = dim**-0.5 if scale is None else scale
    one_softmax = weights is None and not any(span.softmax for span in layout.keys)
    if observed is None and one_softmax and can_read_back(q.device):
        if 4 * batch * heads * rows.length * k.shape[2] <= SMALL_BYTES:
            observed = SoftmaxSums(layout, correspondence)
            observed.add(dense_softmax(q, k, factor, mask), rows.start)
    if observed is not None:
        found = observed.marginals(q, k, factor, mask)
        if found is not None:
            return found
    if weights is not None:
        weights = weights[..., rows.slice]
    found = triton_marginals(
        q, k, layout, scale=factor, mask=mask, weights=weights, correspondence=correspondence
    )
    if found is not None:
        return found
    return blocked_marginals(
        q,
        k,
        layout,
        scale=factor,
        mask=mask,
        weights=weights,
        correspondence=correspondence,
        scratch_bytes=scratch_bytes,
        workspace=workspace or Workspace(),
    )


def _in_order(
    q: Tensor, k: Tensor, mask: Tensor | None, layout: TokenLayout
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tokens in the order of the layout's spans."""
    if layout.query_order is not None:
        order = torch.tensor(layout.query_order, device=q.device)
        q = q[:, :, order]
        mask = mask[..., order, :] if mask is not None and mask.shape[-2] > 1 else mask
    if layout.key_order is not None:
        order = torch.tensor(layout.key_order, device=k.device)
        k = k[:, :, order]
        mask = mask[..., order] if mask is not None and mask.shape[-1] > 1 else mask
    return q, k, mask


def _rows_of(mask: Tensor, rows: Span, queries: int, keys: int) -> Tensor:
    """The generated rows of a mask, additive, as a (batch|1, heads|1, generated, keys) view."""
    while mask.ndim < 4:
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
    if mask.shape[-2] != 1:
        mask = mask[:, :, rows.slice]
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -math.inf)
    return mask.expand(*mask.shape[:2], queries, keys)
