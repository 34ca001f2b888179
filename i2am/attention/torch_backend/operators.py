"""torch's fused attention as a calculator of log-sum-exps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_EIGHT = 8  # the operators take heads of a multiple of so many columns
BIAS_COLUMNS = _EIGHT
# How many numbers add up to a float32; of float16, to one that is beyond its reach, too.
_PARTS = {torch.bfloat16: 3, torch.float16: 6, torch.float32: 1}


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """softmax(scale · q·kᵀ)·v, (batch, heads, rows, dim), and each row's log-sum-exp, (…, rows).

    All (batch, heads, tokens, dim), of a multiple of eight columns. The log-sum-exp is float32 in
    every precision, and torch's own call sums it up in any case. Raises RuntimeError if torch has
    no operator for such inputs here.
    """
    aten = torch.ops.aten
    if q.device.type == "cpu":
        return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale)
    if torch.backends.cuda.can_use_flash_attention(_question(q, k, v)):
        found = aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)
    else:
        found = aten._scaled_dot_product_efficient_attention(q, k, v, None, True, scale=scale)
    return found[0], found[1][..., : q.shape[2]]  # the efficient one's rows are padded


def _question(q: Tensor, k: Tensor, v: Tensor) -> torch.backends.cuda.SDPAParams:
    """What torch is asked whether an operator serves it: a call without mask, dropout or cause."""
    given = q, k, v, None, 0.0, False
    try:
        return torch.backends.cuda.SDPAParams(*given, False)
    except TypeError:  # before torch 2.5, heads could not share keys
        return torch.backends.cuda.SDPAParams(*given)  # pyright: ignore[reportCallIssue]


def padded(x: Tensor) -> Tensor:
    """The columns made a multiple of eight, with zeros; scores stay the same."""
    return F.pad(x, (0, -x.shape[-1] % _EIGHT)) if x.shape[-1] % _EIGHT else x


def with_bias(x: Tensor, bias: Tensor) -> Tensor:
    """Keys (…, tokens, dim) that add `bias` (…, tokens) to their products with `with_ones`.

    As numbers of the keys' precision, each the rest of those before, which add up to a float32 even
    where it is beyond half precision's reach.
    """
    most = torch.finfo(x.dtype).max
    rest = bias.float()
    parts: list[Tensor] = []
    for _ in range(_PARTS[x.dtype]):
        parts.append(rest.clamp(-most, most).to(x.dtype))
        rest = rest - parts[-1].float()
    columns = F.pad(torch.stack(parts, -1), (0, BIAS_COLUMNS - len(parts)))
    return torch.cat((x, columns), -1)


def with_ones(x: Tensor) -> Tensor:
    """Queries (…, tokens, dim) that pick up the bias of keys `with_bias`."""
    return F.pad(x, (0, BIAS_COLUMNS), value=1.0)
