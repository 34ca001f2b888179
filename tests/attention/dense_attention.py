"""Random calls, and their marginals from full matrices in float64."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import settings
from recordings import layout, rand
from torch import Tensor

from i2am.attention import LogSumTap, Marginals, attention_marginals
from i2am.tokens import Grid, Role, Span, TokenLayout

few = settings(max_examples=25, deadline=None)


def dense(
    q: Tensor, k: Tensor, spans: TokenLayout, scale: float | None = None, bias: Tensor | None = None
) -> dict[str, Tensor]:
    """All sums from full matrices; what a mask hides altogether counts as nothing."""
    q, k = q.double(), k.double().repeat_interleave(q.shape[1] // k.shape[1], 1)
    rows = slice(spans.generated.start, spans.generated.stop)
    logits = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        logits = logits + bias.double()
    logits = logits[:, :, rows]
    model = logits.softmax(-1)

    def share(role: Role) -> Tensor:
        parts = [model[..., s.start : s.stop].sum(-1) for s in spans.keys if s.role is role]
        return sum(parts, torch.zeros_like(model[..., 0]))

    found = {"text": share(Role.TEXT), "self": share(Role.GENERATED)}
    for r, span in enumerate(spans.references):
        block = logits[..., span.start : span.stop]
        m_g, m_r = block.softmax(-2).nan_to_num(0), block.softmax(-1).nan_to_num(0)
        columns = (m_g.sum(-2) > 0).sum(-1)
        found[f"share {r}"] = model[..., span.start : span.stop].sum(-1)
        found[f"paper r2g {r}"] = m_g.sum(-1) / columns.unsqueeze(-1)
        found[f"paper g2r {r}"] = m_r.mean(-2)
        found[f"model g2r {r}"] = model[..., span.start : span.stop].mean(-2)
        found[f"pairs {r}"] = m_r.mean(1)
        found[f"model pairs {r}"] = model[..., span.start : span.stop].mean(1)
    return found


def named(found: Marginals) -> dict[str, Tensor]:
    """The sums under the names `dense` gives them."""
    result = {"text": found.share[:, :, 0], "self": found.share[:, :, 1]}
    for r in range(found.paper_r2g.shape[2]):
        result[f"share {r}"] = found.share[:, :, 2 + r]
        result[f"paper r2g {r}"] = found.paper_r2g[:, :, r]
        result[f"paper g2r {r}"] = found.g2r[r][:, :, 0]
        result[f"model g2r {r}"] = found.g2r[r][:, :, 1]
        if found.correspondence:
            result[f"pairs {r}"] = found.correspondence[r][:, 0]
            result[f"model pairs {r}"] = found.correspondence[r][:, 1]
    return result


def largest_of(name: str, wanted: Tensor) -> float:
    """What a difference is measured by: the largest value, or one for what others leave of one."""
    return 1.0 if name == "self" else max(float(wanted.abs().max()), 1e-9)


def assert_right(found: Marginals, wanted: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    for name, array in named(found).items():
        difference = (array.double() - wanted[name]).abs().max()
        assert float(difference) <= tolerance * largest_of(name, wanted[name]), name


def call(seed: int = 0, batch: int = 2, heads: int = 4, dim: int = 8, **options: Any) -> Any:
    """Random queries and keys, and their layout."""
    spans = layout(**options)
    shape = (batch, heads, spans.key_count, dim)
    return rand(seed, *shape), rand(seed + 1, *shape), spans


def log_sums(q: Tensor, k: Tensor) -> Tensor:
    """L of every row, by the tap on torch's own attention."""
    with LogSumTap(q, k) as tap:
        F.scaled_dot_product_attention(q, k, k, enable_gqa=q.shape[1] != k.shape[1])
    assert tap.log_sum is not None
    return tap.log_sum


def block(
    q: Tensor, k: Tensor, generated: Grid | None = None, reference: Grid | None = None
) -> Marginals:
    """Generated queries and reference keys alone: (generated, dim) and (reference, dim)."""
    rows = Span(Role.GENERATED, 0, len(q), generated)
    columns = Span(Role.REFERENCE, 0, len(k), reference)
    return attention_marginals(q[None, None], k[None, None], TokenLayout((rows,), (columns,)))
