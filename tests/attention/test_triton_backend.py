"""When the fused kernels are used, and when they are not; and what they give, in an interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from counted import FLUX, VIDEO, Counted
from dense_attention import assert_right, call, dense
from recordings import layout
from torch._subclasses.fake_tensor import FakeTensorMode

import i2am.attention.dense
from i2am.attention import Marginals, attention_marginals, trials
from i2am.attention.triton_backend import backend, passes
from i2am.attention.triton_backend.tiles import tiles_for
from i2am.tokens import TokenLayout
from tools.comfyui.server import ROOT

SPANS = layout()
linux = pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux alone")


def run(*arguments: str, **env: str) -> None:
    result = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@linux
def test_kernels_in_the_interpreter() -> None:
    """A process of its own: Triton asks for its interpreter when it is imported."""
    run("-m", "pytest", "-q", "tests/attention/interpreted_kernels.py", TRITON_INTERPRET="1")


@linux
def test_kernels_fit_cards(tmp_path: Path) -> None:
    """They are compiled for cards, of which none need be there."""
    run("-m", "pytest", "-q", "tests/attention/compiled_kernels.py", TRITON_CACHE_DIR=str(tmp_path))


def test_without_a_card_triton_stays_out() -> None:
    """Neither the pack nor a call on the CPU imports it."""
    run("-c", ON_THE_CPU, PYTHONPATH=str(ROOT))


ON_THE_CPU = """
import sys, torch
import i2am.attention.dense
from i2am.attention import Marginals, attention_marginals, trials
from i2am.tokens import Grid, Role, Span, TokenLayout

i2am.attention.dense.SMALL_BYTES = 0
grid = Grid(2, 3)
keys = Span(Role.GENERATED, 0, 6, grid), Span(Role.REFERENCE, 6, 12, grid)
q = k = torch.ones(1, 1, 12, 8)
attention_marginals(q, k, TokenLayout(keys, keys))
assert not {"triton", "i2am.attention.triton_backend.kernels"} & set(sys.modules)
"""


# --- which calls they are for ------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The kinds of inputs that the kernels were asked for; they are given none."""
    kinds: list[tuple[Any, ...]] = []
    monkeypatch.setattr(backend._TRIALS, "passed", lambda *kind: kinds.append(kind))
    return kinds


@pytest.fixture
def card() -> Iterator[None]:
    """Tensors say that they are on a card; they hold nothing."""
    with FakeTensorMode():
        yield


def ask(spans: TokenLayout = SPANS, keys: int = 4, dim: int = 8, **options: Any) -> None:
    like = {"device": options.pop("device", "cuda"), "dtype": options.pop("dtype", torch.bfloat16)}
    q = torch.empty(2, 4, spans.generated.length, dim, **like)
    k = torch.empty(2, keys, spans.key_count, dim, **like)
    options = {"mask": None, "weights": None, "paper": True, "log_sum": None, **options}
    assert backend.triton_marginals(q, k, spans, scale=1.0, correspondence=True, **options) is None


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("keys", [1, 2, 4])
@pytest.mark.parametrize("dim", [40, 256])
@pytest.mark.parametrize("masked", [True, False])
def test_made_for(asked: list[Any], dtype: torch.dtype, keys: int, dim: int, masked: bool) -> None:
    mask = torch.empty(2, 1, SPANS.generated.length, SPANS.key_count) if masked else None
    ask(dtype=dtype, keys=keys, dim=dim, mask=mask)
    assert asked == [(torch.device("cuda", 0), dtype, dim)]


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    "options",
    [
        {"device": "cpu"},
        {"dtype": torch.float64},
        {"keys": 3},
        {"dim": 257},
        {"spans": replace(SPANS, keys=(*SPANS.keys[:-1], replace(SPANS.keys[-1], softmax=1)))},
    ],
    ids=str,
)
def test_not_made_for(asked: list[Any], options: dict[str, Any]) -> None:
    """Nothing is tried, and nothing waits, for a call that they would not serve."""
    ask(**options)
    assert not asked


def test_other_makers_cards(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch calls them by the same name."""
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with FakeTensorMode():
        ask()
    assert not asked


# --- what happens where they do not work ---------------------------------------------------------


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls on the CPU are taken for calls on a card, which fail there without an interpreter."""
    monkeypatch.setattr(backend, "_suits", lambda q, k: True)
    monkeypatch.setattr(
        backend,
        "_TRIALS",
        trials.Trials("the fused kernels", backend.kernel_marginals, backend.HALF_CLOSE, True),
    )
    monkeypatch.setattr(i2am.attention.dense, "SMALL_BYTES", 0)


def assert_plain(caplog: pytest.LogCaptureFixture, trouble: str) -> None:
    """Every call gives what it should, and the log tells once why by the plain path."""
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        q, k, spans = call()
        q, k = q.to(dtype), k.to(dtype)
        assert_right(attention_marginals(q, k, spans), dense(q, k, spans))
    (line,) = caplog.messages
    assert "the fused kernels are off for float32 heads of size 8 on cpu" in line
    assert trouble in line


@pytest.mark.usefixtures("forced")
def test_no_triton(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert_plain(caplog, "triton")


@pytest.mark.usefixtures("forced")
def test_failing_kernel(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("no such instruction\nin line 1")

    monkeypatch.setattr(passes, "_kernels", Failing)
    assert_plain(caplog, "gives the same results. Reason: no such instruction")
    assert "line 1" not in caplog.text


@pytest.mark.usefixtures("forced")
def test_fails_later(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A shape that was not in the trial: from then on the plain path, for all."""
    tries: list[int] = []

    def fail(*_: Any, **__: Any) -> Marginals:
        tries.append(1)
        raise RuntimeError("too many blocks")

    monkeypatch.setattr(trials.Trials, "trouble", lambda *_: "")
    monkeypatch.setattr(backend, "_TRIALS", trials.Trials("the fused kernels", fail, {}))
    assert_plain(caplog, "too many blocks")
    assert len(tries) == 2, "once a kind of inputs"


@pytest.mark.usefixtures("forced")
def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has its own way with that, so it gets to know, and the kernels stay on."""

    def fail(*_: Any, **__: Any) -> Marginals:
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(trials.Trials, "trouble", lambda *_: "")
    monkeypatch.setattr(backend, "_TRIALS", trials.Trials("the fused kernels", fail, {}))
    q, k, spans = call()
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            attention_marginals(q, k, spans)


# --- what a call costs ----------------------------------------------------------------------------


class Launches:
    """In place of the kernels: which were launched, and how many programs of each."""

    def __init__(self) -> None:
        self.found: list[tuple[str, tuple[int, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        launches = self.found

        class Kernel:
            def __getitem__(self, grid: tuple[int, ...]) -> Any:
                return lambda *_, **__: launches.append((name, grid))

        return Kernel()


@pytest.mark.parametrize(("spans", "operations"), [(FLUX, 18), (VIDEO, 28)], ids=["flux", "video"])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("paper", [True, False])
@pytest.mark.parametrize("correspondence", [True, False])
def test_cost_of_a_call(
    monkeypatch: pytest.MonkeyPatch,
    spans: TokenLayout,
    operations: int,
    known: bool,
    paper: bool,
    correspondence: bool,
) -> None:
    """With the tap, six launches for text and one reference, and two for the model's definition
    alone; nothing of the logits' size."""
    launches, rows = Launches(), spans.generated.length
    monkeypatch.setattr(passes, "_kernels", lambda: launches)
    tiles = tiles_for(torch.bfloat16, 128, (9, 0))
    passes._plans(spans.generated, spans.references[0], tiles, torch.device("cpu"))  # once
    with FakeTensorMode(allow_non_fake_inputs=True):
        q = torch.empty(1, 24, rows, 128, dtype=torch.bfloat16)
        k = torch.empty(1, 24, spans.key_count, 128, dtype=torch.bfloat16)
        log_sum = torch.empty(1, 24, rows) if known else None
        options = {"scale": 1.0, "correspondence": correspondence, "paper": paper}
        options["log_sum"] = log_sum
        with Counted() as counted:
            passes.kernel_marginals(q, k, spans, **options)
    names = [name for name, _ in launches.found]
    of_rows = ["row_sums"] * (2 if known else 3)
    of_maps = ["pair_sums", *["r2g_totals"] * paper] if correspondence else ["row_sums"] * paper
    if known and not (paper or correspondence):
        assert sorted(names) == ["model_sums", "row_sums"]
    else:
        assert names == [*of_rows, "row_factors", "column_sums", *of_maps]
    assert counted.operations <= operations
    assert counted.bytes <= 256 * 2**20
