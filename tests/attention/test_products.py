"""Half-precision products into float32, as cards make them: every way that uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from dense_attention import assert_right, call, dense, log_sums
from recordings import layout, rand
from torch import Tensor

import i2am.attention.dense
from i2am.attention import attention_effects, attention_marginals, products
from i2am.attention.torch_backend import passes
from i2am.tokens import Grid, TokenLayout

SMALL = layout(text=7, generated=Grid(4, 5), references=(Grid(3, 3),))


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The processor multiplies as a card would; the precisions that it was given."""
    given: list[torch.dtype] = []

    def multiply(out: Tensor, q: Tensor, k: Tensor, scale: float) -> None:
        assert out.dtype == torch.float32
        assert q.ndim == k.ndim == out.ndim == 3
        given.append(q.dtype)
        out.copy_(q.float() @ k.float().mT * scale)

    monkeypatch.setattr(products, "_multiplies_to_float32", lambda _, dtype: dtype != torch.float32)
    monkeypatch.setattr(products, "_multiply", multiply)
    monkeypatch.setattr(i2am.attention.dense, "SMALL_BYTES", 0)
    return given


def half_call() -> tuple[Tensor, Tensor, TokenLayout]:
    q, k, spans = call()
    return q.bfloat16(), k.bfloat16(), spans


@pytest.mark.parametrize("scratch", [1, 30_000, 2**28])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_block_by_block(multiplied: list[torch.dtype], scratch: int, key_heads: int) -> None:
    q, k, spans = half_call()
    k = k[:, :key_heads]
    mask = rand(3, 1, 1, q.shape[2], k.shape[2])
    found = attention_marginals(q, k, spans, mask=mask, scratch_bytes=scratch)
    assert_right(found, dense(q, k, spans, bias=mask), 1e-5)
    assert set(multiplied) == {torch.bfloat16}


def test_without_triton(multiplied: list[torch.dtype]) -> None:
    q, k, spans = half_call()
    rows = spans.generated.slice
    options: dict[str, Any] = {"scale": q.shape[-1] ** -0.5, "correspondence": True}
    options |= {"log_sum": log_sums(q, k)[:, :, rows], "scratch_bytes": 20_000}
    found = passes.computed_marginals(q[:, :, rows], k, spans, **options)
    assert_right(found, dense(q, k, spans), 1e-4)
    assert set(multiplied) == {torch.bfloat16}


def words(q: Tensor, k: Tensor) -> Tensor:
    found = attention_marginals(q, k, SMALL, prompt=7).words
    assert found is not None
    return found


def effect(q: Tensor, k: Tensor) -> Tensor:
    return attention_effects(q, k, k, SMALL).g2r[0]


@pytest.mark.parametrize("way", [words, effect])
def test_the_same_as_of_float32(
    multiplied: list[torch.dtype], way: Callable[[Tensor, Tensor], Tensor]
) -> None:
    q, k = (rand(seed, 2, 3, SMALL.key_count, 8).bfloat16() for seed in (1, 2))
    found = way(q, k)
    assert multiplied
    multiplied.clear()
    torch.testing.assert_close(found, way(q.float(), k.float()), rtol=1e-5, atol=1e-7)
    assert not multiplied


def test_a_processor_makes_float32() -> None:
    q, k, _ = half_call()
    factors = products.Factors.of(q, k, 0.5)
    assert factors.q.dtype == factors.k.dtype == torch.float32
