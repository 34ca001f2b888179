"""Small calls that wait for others like them: the same sums, of the same calls."""

from __future__ import annotations

import pytest
import torch
from recordings import layout, recording
from torch import Tensor

from i2am.attention import CallBatch, CallSignature, CallTensors
from i2am.attention.workspace import SMALL_BYTES
from i2am.recording import Recording
from i2am.recording import call as recorded_call
from i2am.tokens import Grid, Role, Span, TokenLayout

GRID, WIDE = Grid(4, 4), Grid(3, 5)
SPANS = layout(GRID, (Grid(2, 3),))


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each computation had."""
    found: list[int] = []
    whole = recorded_call.attention_marginals

    def noted(q: Tensor, *args: object, **options: object) -> object:
        found.append(len(q))
        return whole(q, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(recorded_call, "attention_marginals", noted)
    return found


def one_by_one(monkeypatch: pytest.MonkeyPatch, **options: object) -> Recording:
    with monkeypatch.context() as patched:
        patched.setattr("i2am.attention.call_batch.SMALL_BYTES", 0)
        return recording(**options)  # type: ignore[arg-type]


def call(seed: int) -> tuple[CallTensors, CallSignature]:
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(2, 3, SPANS.key_count, 8, generator=generator) for _ in range(2))
    tensors = CallTensors(q, k, log_sum=q[..., 0].clone())
    return tensors, CallSignature.of(tensors, SPANS, None)


@pytest.mark.parametrize(
    "options",
    [
        {"heads": (3, 3, 3, 3)},
        {"heads": (3, 2, 2, 3)},
        {"heads": (2, 2, 2), "generated": (GRID, WIDE, GRID)},
        {"heads": (2, 2), "batch": 3, "references": (Grid(2, 3), Grid(4, 2))},
        {"heads": (2, 2, 2), "missing": {(0, 1), (1, 2)}},
        {"heads": (2, 2), "correspondence": False},
        {"heads": (2, 2), "places": "0.5,0.5", "reference_places": "1:0.2,0.7"},
    ],
    ids=["alike", "heads", "grids", "references", "missing", "no correspondence", "places"],
)
def test_the_same_recording(monkeypatch: pytest.MonkeyPatch, options: dict[str, object]) -> None:
    """As each call by itself gives it, to the rounding of another order of adding up."""
    found, wanted = recording(**options), one_by_one(monkeypatch, **options)  # type: ignore[arg-type]
    assert found.header == wanted.header
    assert found.arrays.keys() == wanted.arrays.keys()
    for name, array in wanted.arrays.items():
        torch.testing.assert_close(found.arrays[name], array, rtol=1e-5, atol=1e-7)


def test_a_step_is_computed_at_once(batches: list[int]) -> None:
    recording(steps=2, heads=(3, 3, 3, 3), batch=2)
    assert batches == [8, 8]


def test_what_is_not_alike_is_not_put_together(batches: list[int]) -> None:
    recording(steps=1, heads=(3, 3, 2, 3), batch=1)
    assert batches == [3, 1]


def test_no_more_wait_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, batches: list[int]
) -> None:
    tensors, signature = call(0)
    monkeypatch.setattr("i2am.attention.call_batch.SMALL_BYTES", 2 * signature.bytes)
    queue = CallBatch[str]()
    for name in "ab":
        assert queue.has_room(signature)
        queue.put(name, tensors, signature)
    assert signature.is_small
    assert not queue.has_room(signature)
    monkeypatch.setattr("i2am.attention.call_batch.SMALL_BYTES", 2 * signature.bytes - 1)
    assert not signature.is_small


def test_other_kinds_wait_by_themselves() -> None:
    tensors, signature = call(0)
    q, k, _, log_sum, _ = tensors
    rows = (Span(Role.GENERATED, 0, 16, Grid(2, 8)),)
    others = (
        CallSignature.of(tensors, SPANS, 0.5),
        CallSignature.of(CallTensors(q.double(), k.double(), log_sum=log_sum), SPANS, None),
        CallSignature.of(CallTensors(q, k[:, :1], log_sum=log_sum), SPANS, None),
        CallSignature.of(CallTensors(q, k), SPANS, None),
        CallSignature.of(tensors, TokenLayout(rows, SPANS.keys), None),
    )
    queue = CallBatch[int]()
    for number, kind in enumerate((signature, *others)):
        queue.put(number, tensors, kind)
    assert [batch.names for batch in queue.take()] == [(number,) for number in range(6)]


def test_what_waits_is_a_copy() -> None:
    """A model may use a call's memory again as soon as it is over."""
    queue = CallBatch[str]()
    wanted = [call(seed)[0] for seed in (1, 2)]
    for name, seed in (("a", 1), ("b", 2)):
        tensors, signature = call(seed)
        queue.put(name, tensors, signature)
        for tensor in tensors:
            if tensor is not None:
                tensor.zero_()
    (batch,) = queue.take()
    assert batch.names == ("a", "b")
    for found, one, other in zip(batch.tensors, *wanted, strict=True):
        if one is None or other is None or found is None:
            assert found is one is other is None
        else:
            assert torch.equal(found, torch.cat((one, other)))
    assert not list(queue.take())


@pytest.mark.parametrize(
    ("side", "small"), [(64, True), (192, False)], ids=["SD 1.5's largest", "too long for a card"]
)
def test_on_a_card(side: int, small: bool) -> None:
    """Calls wait there that take less time than starting them does, whatever their logits weigh."""
    spans = layout(text=0, generated=Grid(side, side), references=(Grid(16, 16),))
    cross = TokenLayout(spans.queries, spans.references)
    q, k = (torch.empty(1, 8, n, 40, device="meta").half() for n in (side * side, 256))
    signature = CallSignature.of(CallTensors(q, k), cross, None)
    assert signature.is_small == small
    assert signature.room > SMALL_BYTES
