"""The tap reads torch's row sums, changes no bit, and trusts no operator before it was compared.

The processor's fused attention stands for a card's: the same operator in every other respect.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from dense_attention import call, log_sums
from torch import Tensor

from i2am.attention import LogSumTap, log_sum_tap


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [True, False])
def test_tap_changes_no_bit(mode: Any, dtype: torch.dtype, masked: bool) -> None:
    with mode():
        q, k, _ = call(dim=40)
        q, k = q.to(dtype), k.to(dtype)
        mask = torch.randn(1, 1, q.shape[2], k.shape[2]).to(dtype) if masked else None
        alone = F.scaled_dot_product_attention(q, k, k, attn_mask=mask)
        with LogSumTap(q, k, mask=mask) as tap:
            assert torch.equal(F.scaled_dot_product_attention(q, k, k, attn_mask=mask), alone)
        logits = q.double() @ k.double().mT * 40**-0.5
        wanted = (logits if mask is None else logits + mask.double()).logsumexp(-1)
        assert tap.log_sum is not None
        assert (tap.log_sum - wanted).abs().max() < (1e-5 if dtype == torch.float32 else 1e-3)


def test_tap_of_a_batch_in_pieces() -> None:
    q, k, _ = call(batch=5)
    with LogSumTap(q, k) as tap:
        for piece in (slice(0, 2), slice(2, 5)):
            F.scaled_dot_product_attention(q[piece], k[piece], k[piece])
    assert tap.log_sum is not None
    assert torch.allclose(tap.log_sum, log_sums(q, k))


@pytest.mark.parametrize("count", [0, 2])
def test_tap_of_another_call(count: int) -> None:
    """Not the call's attention, or more than it: nothing is known."""
    q, k, _ = call()
    with LogSumTap(q, k) as tap:
        F.scaled_dot_product_attention(q[:, :, 1:], k, k)
        for _ in range(count):
            F.scaled_dot_product_attention(q, k, k)
    assert tap.log_sum is None


class Operator:
    """An operator of a card, with its arguments; what it was given, and gives, is made up."""

    def __init__(self, name: str, arguments: list[str], sums: Tensor, returned: str) -> None:
        self._name, self._sums, self.given = name, sums, list[Any]()
        self._schema = SimpleNamespace(
            arguments=[SimpleNamespace(name=argument) for argument in arguments],
            returns=[SimpleNamespace(name=name) for name in ("output", returned)],
        )

    def name(self) -> str:
        return f"aten::{self._name}"

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        self.given = [args, kwargs]
        return args[2], self._sums


INPUTS = ["query", "key", "value"]
FLASH = "_scaled_dot_product_flash_attention"
EFFICIENT = "_scaled_dot_product_efficient_attention"
CUDNN = "_scaled_dot_product_cudnn_attention"
REST = ["attn_bias", "compute_log_sumexp", "dropout_p", "is_causal"]


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What operators give is made up, and is not compared."""
    monkeypatch.setattr(log_sum_tap, "_agrees", lambda *_: True)
    monkeypatch.setattr(log_sum_tap, "_AGREEMENT", log_sum_tap._Agreement())


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(
    ("name", "arguments", "shape", "returned"),
    [
        (EFFICIENT, [*INPUTS, *REST], (2, 4, 160), "log_sumexp"),
        (CUDNN, [*INPUTS, *REST], (2, 4, 133, 1), "logsumexp"),
        # As torch 2.4 had it: what is asked for elsewhere in the fifth place would be causal.
        (CUDNN, [*INPUTS, "dropout_p", "is_causal"], (2, 4, 133), "logsumexp"),
        (FLASH, [*INPUTS, "dropout_p", "is_causal"], (2, 4, 133), "logsumexp"),
    ],
)
@pytest.mark.parametrize("by_name", [True, False])
def test_operators_of_cards(
    name: str, arguments: list[str], shape: tuple[int, ...], returned: str, by_name: bool
) -> None:
    """Those that can be asked for their sums are; nothing else they are given changes."""
    q = k = v = torch.zeros(2, 4, 133, 8)
    operator = Operator(
        name, arguments, torch.arange(float(math.prod(shape))).view(shape), returned
    )
    rest: list[Any] = [None if a == "attn_bias" else False for a in arguments[3:]]
    args, kwargs = (q, k, v, *rest), {"scale": 0.5}
    if by_name:
        args, kwargs = (q, k, v), kwargs | dict(zip(arguments[3:], rest, strict=True))
    tap = LogSumTap(q, k)
    result = tap.__torch_dispatch__(operator, (), args, kwargs)
    assert result[0] is v
    assert tap.log_sum is not None
    assert torch.equal(tap.log_sum, result[1].flatten(2)[..., :133])
    got = dict(zip(arguments, operator.given[0], strict=False)) | operator.given[1]
    wanted = dict(zip(arguments, args, strict=False)) | kwargs
    if "compute_log_sumexp" in arguments:
        wanted["compute_log_sumexp"] = True
    assert got.keys() == wanted.keys()
    assert all(got[name] is wanted[name] for name in wanted)


@pytest.mark.usefixtures("trusting")
def test_an_operator_without_sums() -> None:
    q = k = v = torch.zeros(2, 4, 133, 8)
    operator = Operator(FLASH, INPUTS, torch.zeros(2, 4, 133), "philox_seed")
    tap = LogSumTap(q, k)
    tap.__torch_dispatch__(operator, (), (q, k, v), {})
    assert tap.log_sum is None


@pytest.mark.parametrize("wrong", [1.4426950408889634, math.nan])
def test_other_sums_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: float
) -> None:
    """A build whose sums are to another base, say; it is told once."""
    monkeypatch.setattr(log_sum_tap, "_AGREEMENT", log_sum_tap._Agreement())
    q, k, _ = call()
    sums = (q @ k.mT * q.shape[-1] ** -0.5).logsumexp(-1)
    for factor in (wrong, wrong):
        tap = LogSumTap(q, k)
        operator = Operator(FLASH, INPUTS, sums * factor, "logsumexp")
        tap.__torch_dispatch__(operator, (), (q, k, k), {})
        assert tap.log_sum is None
    (line,) = caplog.messages
    assert f"the row sums of {FLASH} on cpu are not what they should be" in line
