"""Logits in float32, of queries and keys in any precision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Tokens = slice | Tensor


@dataclass(frozen=True)
class Factors:
    """Queries (…, rows, dim) and keys (…, keys, dim), ready to be multiplied by float32 products.

    On a card, half-precision numbers stay as they are for the tensor cores: their products are
    exact, and added up in float32. Elsewhere they become float32, and queries are scaled.
    """

    q: Tensor
    k: Tensor
    scale: float

    @staticmethod
    def of(q: Tensor, k: Tensor, scale: float) -> Factors:
        """scale: of the logits."""
        if _multiplies_to_float32(q.device, q.dtype):
            return Factors(q, k, scale)
        return Factors(q.float() * scale, k.float(), 1.0)

    def logits(self, rows: Tokens, keys: Tokens, out: Tensor | None = None) -> Tensor:
        """Of some rows and keys: (…, rows, keys), float32."""
        q, k = self.q[..., rows, :], self.k[..., keys, :]
        if q.dtype == torch.float32:
            return torch.matmul(q, k.mT, out=out)
        if out is None:
            out = torch.empty(*q.shape[:-1], k.shape[-2], device=q.device)
        into = out.view(-1, *out.shape[-2:])
        _multiply(into, q.flatten(0, -3), k.flatten(0, -3), self.scale)
        return out


def _multiply(out: Tensor, q: Tensor, k: Tensor, scale: float) -> None:
    """Half precision into float32, three dimensions each. Newer builds of torch can, on cards."""
    product = torch.ops.aten.baddbmm.dtype_out
    product(out, q, k.mT, torch.float32, beta=0, alpha=scale, out=out)


@lru_cache(maxsize=16)
def _multiplies_to_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch multiplies such matrices to float32 there. Tries it, the first time."""
    if device.type != "cuda" or dtype == torch.float32:
        return False
    ones = torch.ones(1, 8, 8, dtype=dtype, device=device)
    found = torch.empty(1, 8, 8, device=device)
    try:
        _multiply(found, ones, ones, 1 / 512)
    except (AttributeError, TypeError, RuntimeError):
        return False
    return bool((found == 8 / 512).all())
