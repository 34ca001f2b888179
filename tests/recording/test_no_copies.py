"""While steps are recorded, nothing is copied between the processor and a card but what is on its
way: such a copy makes the processor wait until the card has done all its work so far.

The card is made up, and kernels are not launched.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from recordings import JOINT, layout
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from i2am.attention import products
from i2am.attention.torch_backend import backend as torch_ways
from i2am.attention.torch_backend import passes as torch_passes
from i2am.attention.triton_backend import backend as triton_ways
from i2am.attention.triton_backend import passes as triton_passes
from i2am.recording import BUDGETS, Plan, Prompt, Recorder, Run, running_sums
from i2am.recording import point_sums as of_points
from i2am.tokens import Grid, Rectangle, Region, TokenLayout, parse_point_queries
from i2am.tokens.architectures import Layer

CARD = torch.device("meta")  # whose tensors hold nothing
SCHEDULE = (1.0, 0.9, 0.8, 0.7, 0.5, 0.25, 0.0)
LAYERS = (Layer("double", 0), Layer("double", 1))
POINTS = parse_point_queries("0.2,0.3; 0.5,0.5-0.9,0.9", "points")
POINTS += parse_point_queries("0.4,0.6", "reference_points", numbered=True)
SMALL = layout(text=5)
LARGE = layout(generated=Grid(66, 32), references=(Grid(4, 66),), text=5)  # maps are kept smaller


class Copies(TorchDispatchMode):
    """Notes each operation that takes numbers from the processor's memory to a card's, or back."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        if len({x.device.type for x in tensors if x.ndim}) > 1:
            self.found.append(func.name())
        return result


class Launched:
    """In place of the Triton kernels."""

    def __getattr__(self, name: str) -> Any:
        class Kernel:
            def __getitem__(self, grid: tuple[int, ...]) -> Any:
                return lambda *_, **__: None

        return Kernel()


class OnTheWay:
    """In place of copies that nothing waits for."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors

    def arrived(self) -> list[Tensor]:
        return self._tensors


@pytest.fixture(params=["Triton kernels", "torch's fused attention", "block by block"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A made-up card, on which calls are computed in one way: which."""

    class Current:
        def __init__(self, device: Any) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return q.new_zeros(*q.shape[:-1], v.shape[-1]), q[..., 0].float()

    for ways, its in ((triton_ways, "Triton kernels"), (torch_ways, "torch's fused attention")):
        passed = its == request.param
        monkeypatch.setattr(ways._TRIALS, "passed", lambda *_, passed=passed: passed)
    monkeypatch.setattr(triton_ways, "_suits", lambda *_: True)
    monkeypatch.setattr(torch_ways, "_is_card", lambda _: True)
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(triton_passes, "_kernels", Launched)
    monkeypatch.setattr(triton_passes, "_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch_passes, "attend", attend)
    monkeypatch.setattr(products, "_multiplies_to_float32", lambda *_: False)
    for module in (running_sums, of_points):
        monkeypatch.setattr(module, "HostCopy", OnTheWay)
    return request.param


def in_any_order(spans: TokenLayout) -> TokenLayout:
    """The same with tokens in another order than the spans'."""
    order = tuple(reversed(range(spans.key_count)))
    return replace(spans, query_order=order, key_order=order)


@pytest.mark.parametrize(
    "spans", [SMALL, LARGE, in_any_order(LARGE)], ids=["small", "large", "any"]
)
@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(definitions="model", correspondence=False),
        Plan(definitions="all", places=POINTS),
        Plan(budget="fast"),
        Plan(words=True),
    ],
    ids=lambda plan: f"{plan.definitions} {plan.budget} {len(plan.places)} {plan.words}",
)
@pytest.mark.parametrize("acts", ["everywhere", "in an area", "with weights"])
def test_nothing_is_copied(way: str, spans: TokenLayout, plan: Plan, acts: str) -> None:
    """Once every kind of call was seen, which takes the budget `fast` four steps."""
    run = Run("Test", 1, 7, SCHEDULE, (8, 6), {})
    recorder = Recorder(replace(plan, budget="exact"), run, JOINT, LAYERS)
    recorder._budget = BUDGETS[plan.budget]  # but for the steps it leaves out
    more: dict[str, Any] = {"prompt": Prompt(0, 5) if plan.words else None}
    if acts == "in an area":
        portions = torch.ones(1, 1, 8, 6, device=CARD)
        more["region"] = Region(Rectangle(0.0, 0.0, 0.5, 0.5), portions)
    if acts == "with weights":
        more["weights"] = torch.ones(1, 1, spans.key_count, device=CARD)

    def record(step: int) -> None:
        recorder.begin_evaluation(SCHEDULE[step])
        for layer in LAYERS:
            like = {"dtype": torch.bfloat16, "device": CARD}
            q, k, v = (torch.empty(1, 2, spans.key_count, 8, **like) for _ in range(3))
            log_sum = torch.empty(1, 2, spans.key_count, device=CARD)
            recorder.add(layer, q, k, spans, v, log_sum=log_sum, **more)

    for step in range(4):
        record(step)
    with Copies() as copies:
        for step in range(4, len(SCHEDULE) - 1):
            record(step)
    assert not copies.found
    assert {one.partition(",")[0] for one in recorder._log.ways} == {way}
