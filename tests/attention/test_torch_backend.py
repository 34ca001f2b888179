"""Marginals by torch's fused attention, with the row sums of the tap and without.

The processor's fused attention stands for a card's: the same operator in every other respect.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from counted import FLUX, VIDEO, Counted
from dense_attention import assert_right, call, dense, few, log_sums, named
from hypothesis import given
from hypothesis import strategies as st
from recordings import rand
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import i2am.attention.dense
from i2am.attention import Marginals, attention_marginals, pooling, trials
from i2am.attention.torch_backend import backend, operators, passes
from i2am.tokens import Grid, TokenLayout

WIDE = Grid(40, 36, (39.5, 36.0))  # pooled, and not evenly
CLOSE = 1e-4  # in half precision, too: what is multiplied there is exact


def by_operators(q: Tensor, k: Tensor, spans: TokenLayout, **options: Any) -> Marginals:
    """What the operators give of a whole call, as `attention_marginals` takes it."""
    rows = spans.generated.slice
    log_sum = options.pop("log_sum", None)
    return passes.computed_marginals(
        q[:, :, rows],
        k,
        spans,
        **{"scale": q.shape[-1] ** -0.5, "correspondence": True, **options},
        log_sum=None if log_sum is None else log_sum[:, :, rows],
    )


# --- right ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("dim", [8, 20, 64])
@pytest.mark.parametrize("references", [(Grid(4, 5),), (Grid(3, 7), Grid(6, 2), Grid(1, 1))])
def test_float32(known: bool, dim: int, references: tuple[Grid, ...]) -> None:
    q, k, spans = call(dim=dim, references=references)
    log_sum = log_sums(q, k) if known else None
    assert_right(by_operators(q, k, spans, log_sum=log_sum), dense(q, k, spans))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spread", [1.0, 8.0])
def test_half_precision(dtype: torch.dtype, spread: float) -> None:
    q, k, spans = call(dim=64)
    q, k = (q * spread).to(dtype), k.to(dtype)
    found = by_operators(q, k, spans, log_sum=log_sums(q, k))
    wanted = dense(q, k, spans)
    for name, array in named(found).items():
        off = (array.double() - wanted[name]).abs().max() / wanted[name].max()
        assert off <= CLOSE, name


def test_shared_key_heads_and_any_scale() -> None:
    q, k, spans = call()
    k = k[:, :2].contiguous()
    found = by_operators(q, k, spans, log_sum=None, scale=0.7)
    assert_right(found, dense(q, k, spans, scale=0.7))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weighted_softmaxes(layers: int, dtype: torch.dtype) -> None:
    """Regions, and adapters with a softmax of their own; one of them has no weight at one place."""
    q, k, spans = call()
    q, k = q.to(dtype), k.to(dtype)
    keys = [replace(span, softmax=n % layers) for n, span in enumerate(spans.keys)]
    spans = replace(spans, keys=tuple(keys))
    weights = rand(9, 2, layers, spans.queries[-1].stop).abs()
    weights[:, -1, spans.generated.start] = 0.0 if layers > 1 else 1e-3
    found = by_operators(q, k, spans, weights=weights[..., spans.generated.slice])
    wanted = named(attention_marginals(q, k, spans, weights=weights))
    for name, array in named(found).items():
        assert (array - wanted[name]).abs().max() <= CLOSE * wanted[name].max(), name


def test_pooled() -> None:
    """Cells are means over the rows of each, and sums over the reference tokens of each."""
    q, k, spans = call(batch=1, heads=2, generated=WIDE, references=(WIDE,))
    found = by_operators(q, k, spans)
    wanted = attention_marginals(q, k, spans)
    torch.testing.assert_close(
        found.correspondence[0], wanted.correspondence[0], rtol=1e-4, atol=1e-8
    )


def test_rows_and_columns_far_apart() -> None:
    """A reference with e^-300 of a row's attention, and a token with as little of a column's."""
    q, k, spans = call(batch=1, heads=1, dim=16)
    q[..., 0], k[..., 1] = q[..., 0].clamp(-1, 1) * 300, k[..., 1].clamp(-1, 1) * 300
    q[..., 1] = k[..., 0] = 1.0
    found = by_operators(q, k, spans, scale=1.0)
    assert_right(found, dense(q, k, spans, scale=1.0), 1e-3)


@few
@given(seed=st.integers(0, 99), fitting=st.sampled_from([1, 20_000, 2**28]))
def test_the_same_in_pieces(seed: int, fitting: int) -> None:
    q, k, spans = call(seed, batch=3)
    found = by_operators(q, k, spans, scratch_bytes=fitting)
    assert_right(found, dense(q, k, spans))


def test_memory_grows_with_tokens() -> None:
    """No operator gives a tensor near the size of the logits."""
    q, k, spans = call(batch=1, heads=2, generated=Grid(64, 64), references=(Grid(64, 64),))
    largest: list[int] = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            found = result if isinstance(result, (tuple, list)) else (result,)
            largest.extend(x.numel() for x in found if isinstance(x, Tensor) and not x.is_meta)
            return result

    scratch = 2**25
    with Watched():
        by_operators(q, k, spans, scratch_bytes=scratch)
    assert 4 * max(largest) <= scratch // 4 < 4 * 4096**2 // 4


@pytest.mark.parametrize(
    ("spans", "operations"),
    [
        pytest.param(FLUX, (546, 81, 41), id="flux"),
        pytest.param(VIDEO, (2271, 297, 137), id="video"),
    ],
)
def test_cost_of_a_call(spans: TokenLayout, operations: tuple[int, int, int]) -> None:
    """Operations with everything, without the correspondence, and of the model alone."""
    for grid, mean in ((spans.generated.grid, True), (spans.references[0].grid, False)):
        assert grid is not None
        pooling._weights(grid, mean, torch.device("cpu"))
    asked = ((True, True), (False, True), (False, False))
    with FakeTensorMode(allow_non_fake_inputs=True):
        q = torch.empty(1, 24, spans.generated.length, 128, dtype=torch.bfloat16)
        k = torch.empty(1, 24, spans.key_count, 128, dtype=torch.bfloat16)
        log_sum = torch.empty(q.shape[:3])
        for (pairs, paper), most in zip(asked, operations, strict=True):
            options = {"correspondence": pairs, "paper": paper, "log_sum": log_sum}
            with Counted() as counted:
                passes.computed_marginals(q, k, spans, scale=0.1, **options)
            assert counted.operations <= most


# --- the door ------------------------------------------------------------------------------------


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls on the CPU are taken for calls on a card without Triton."""
    monkeypatch.setattr(backend, "_is_card", lambda device: True)
    half_close = backend._TRIALS._half_close
    monkeypatch.setattr(
        backend, "_TRIALS", trials.Trials("sums", passes.computed_marginals, half_close)
    )
    monkeypatch.setattr(i2am.attention.dense, "SMALL_BYTES", 0)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call knew its rows' sums."""
    calls: list[bool] = []
    own = backend._TRIALS.marginals

    def told(*args: Any, **options: Any) -> Any:
        calls.append(options["log_sum"] is not None)
        return own(*args, **options)

    monkeypatch.setattr(backend._TRIALS, "marginals", told)
    return calls


@pytest.mark.usefixtures("forced")
def test_from_the_door(served: list[bool], caplog: pytest.LogCaptureFixture) -> None:
    """Whatever order a call's tokens are in."""
    q, k, spans = call()
    wanted = dense(q, k, spans)
    log_sum = log_sums(q, k)
    assert_right(attention_marginals(q, k, spans, log_sum=log_sum), wanted)
    order = tuple(reversed(range(spans.key_count)))
    turned = TokenLayout(spans.queries, spans.keys, query_order=order, key_order=order)
    flipped = q.flip(2), k.flip(2)
    assert_right(attention_marginals(*flipped, turned, log_sum=log_sum.flip(2)), wanted)
    assert_right(attention_marginals(q, k, spans), wanted)
    assert served == [True, True, False]
    assert not caplog.records


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [40, 64, 128, 160])
def test_trials_pass(dtype: torch.dtype, dim: int) -> None:
    assert backend._TRIALS.trouble(torch.device("cpu"), dtype, dim) == ""


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wrong_sums_are_found(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dtype: torch.dtype
) -> None:
    """Sums that a build of torch gets wrong by a hundredth switch this way off, and it is told."""
    right = operators.attend

    def wrong(*args: Any) -> tuple[Tensor, Tensor]:
        output, log_sum = right(*args)
        return output, log_sum * 1.01

    monkeypatch.setattr(passes, "attend", wrong)
    q, k, spans = call()
    q, k = q.to(dtype), k.to(dtype)
    for _ in range(2):
        assert_right(attention_marginals(q, k, spans), dense(q, k, spans))
    (line,) = caplog.messages
    assert "sums are off" in line
    assert "differs" in line


def test_a_processor_keeps_to_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials.Trials, "passed", lambda *_: pytest.fail("tried"))
    q, k, spans = call(heads=32, generated=Grid(32, 32))
    attention_marginals(q, k, spans)
