"""The door: one attention call → its marginals, by the cheapest way that serves it.

    softmax_sums     the model's own softmax was tapped: only sums are left to compute
    dense            the call is small: all its logits at once
    triton_backend   an NVIDIA card: kernels that never store the logits
    torch_backend    a card without Triton: torch's own fused attention, asked for sums
    blocked          anything else: block by block within a memory budget

The definitions are in `marginals`; every way computes the same numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ..errors import LayoutMismatch
from ..tokens import Role, TokenLayout
from .blocked import blocked_marginals
from .call_inputs import additive_mask, generated_rows, in_layout_order
from .dense import dense_marginals
from .marginals import Marginals
from .softmax_sums import SoftmaxSums
from .torch_backend import operator_marginals
from .triton_backend import triton_marginals
from .words import of_cross_attention, of_text, prompt_maps, text_as_references
from .workspace import SCRATCH_BYTES, Workspace


def attention_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    correspondence: bool = True,
    paper: bool = True,
    scratch_bytes: int = SCRATCH_BYTES,
    workspace: Workspace | None = None,
    observed: SoftmaxSums | None = None,
    log_sum: Tensor | None = None,
    prompt: int = 0,
) -> Marginals:
    """Sum the attention between the generated tokens and each reference, and the prompt's tokens.

    q: (batch, heads, queries, dim), k: (batch, heads or fewer, keys, dim), as the model's own
    attention gets them, after positions and norms; fewer key heads are shared by groups of heads.
    scale: of the logits, 1/√dim by default. mask: as for torch's scaled_dot_product_attention,
    broadcastable to (batch, heads, queries, keys). weights: (batch, softmaxes, queries), how much
    each softmax counts at each place, for layouts with several; shares are fractions of all of
    them, and both definitions weight each place.

    paper: whether the paper's maps are of use. If not, what they cost extra on a card is left out,
    and they are zero where it was. workspace: buffers of earlier calls to use again, by one thread
    at a time. observed: the sums of this very call, if its softmax was tapped, so that nothing is
    computed again. log_sum: the log-sum-exp of each query's row over all keys, (batch, heads,
    queries), if it was tapped. prompt: how many tokens the conditioning's text has, if a map of
    each is asked for; a call without references then has shares and these maps alone.

    Works in float32 within `scratch_bytes`. Raises LayoutMismatch if the layout does not account
    for every key, or holds nothing that is asked for.
    """
    if log_sum is not None:
        log_sum = generated_rows(log_sum, layout)
    q, k, mask = in_layout_order(q, k, mask, layout)
    if layout.key_count != k.shape[2]:
        raise LayoutMismatch(f"{k.shape[2]} keys, but the layout accounts for {layout.key_count}")
    if not layout.references and not (prompt and layout.has_prompt):
        raise LayoutMismatch("the call holds no reference")
    rows = layout.generated.slice
    q = q[:, :, rows]
    if mask is not None:
        mask = additive_mask(mask, rows)
        mask = mask.expand(*mask.shape[:2], q.shape[2], k.shape[2])
    if weights is not None:
        weights = weights[..., rows]
    factor: float = q.shape[-1] ** -0.5 if scale is None else scale
    call: dict[str, Any] = {"scale": factor, "mask": mask, "weights": weights}
    asked: dict[str, Any] = {"correspondence": correspondence, "paper": paper}
    known: dict[str, Any] = {"log_sum": log_sum, "observed": observed, "workspace": workspace}
    if layout.references:
        found = _of_references(q, k, layout, scratch_bytes, **call, **asked, **known)
    else:
        found = _without_references(q, k, layout, scratch_bytes, **call, **known)
    if prompt and layout.has_prompt:
        size: dict[str, Any] = {"prompt": prompt, "scratch_bytes": scratch_bytes}
        found = replace(found, words=prompt_maps(q, k, layout, found.share, **call, **size))
    return found


def _without_references(
    q: Tensor, k: Tensor, layout: TokenLayout, scratch_bytes: int, **call: Any
) -> Marginals:
    """The shares of text and of the picture itself, in a call that holds no reference."""
    if not any(span.role is Role.GENERATED for span in layout.keys):
        return of_cross_attention(q, layout, call["weights"])
    as_references = text_as_references(layout)
    asked: dict[str, Any] = {"correspondence": False, "paper": False}
    return of_text(_of_references(q, k, as_references, scratch_bytes, **call, **asked))


def _of_references(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    scratch_bytes: int,
    *,
    correspondence: bool,
    paper: bool,
    log_sum: Tensor | None,
    observed: SoftmaxSums | None,
    workspace: Workspace | None,
    **call: Any,
) -> Marginals:
    """The marginals of the references, by the cheapest way that serves the call."""
    call["correspondence"] = correspondence
    more: dict[str, Any] = {"paper": paper, "log_sum": log_sum}
    if observed is not None:
        found = observed.marginals(q, k, call["scale"], call["mask"])
        way = "the model's own softmax"
    else:
        found, way = dense_marginals(q, k, layout, **call), "small calls at once"
    known = "" if log_sum is None else ", with the row sums of the model's own call"
    if found is None:
        found, way = triton_marginals(q, k, layout, **call, **more), f"Triton kernels{known}"
    if found is None:
        way = f"torch's fused attention{known}"
        found = operator_marginals(q, k, layout, **call, **more)
    if found is None:
        way, workspace = "block by block", workspace or Workspace()
        found = blocked_marginals(
            q, k, layout, **call, scratch_bytes=scratch_bytes, workspace=workspace
        )
    return replace(found, way=way)
