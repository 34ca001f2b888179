"""Small calls that wait for others like them: the same sums, of the same calls."""

from __future__ import annotations

import pytest
import torch
from recordings import layout, recording
from torch import Tensor

from i2am.attention import CallBatch, CallSignature
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


def call(seed: int, spans: TokenLayout = SPANS) -> tuple[Tensor, Tensor, CallSignature]:
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(2, 3, spans.key_count, 8, generator=generator) for _ in range(2))
    return q, k, CallSignature.of(q, k, spans, None)


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
    assert batches == [2, 1, 1]


def test_no_more_wait_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, batches: list[int]
) -> None:
    q, k, signature = call(0)
    monkeypatch.setattr("i2am.attention.call_batch.SMALL_BYTES", 2 * signature.bytes)
    queue = CallBatch[str]()
    for name in "ab":
        assert queue.has_room(signature)
        queue.put(name, q, k, signature)
    assert signature.is_small
    assert not queue.has_room(signature)
    monkeypatch.setattr("i2am.attention.call_batch.SMALL_BYTES", 2 * signature.bytes - 1)
    assert not signature.is_small


def test_another_kind_has_no_room() -> None:
    q, k, signature = call(0)
    queue = CallBatch[str]()
    queue.put("a", q, k, signature)
    assert not queue.has_room(CallSignature.of(q, k, SPANS, 0.5))
    assert not queue.has_room(CallSignature.of(q.double(), k.double(), SPANS, None))
    assert not queue.has_room(CallSignature.of(q, k[:, :1], SPANS, None))
    rows = (Span(Role.GENERATED, 0, 16, Grid(2, 8)),)
    assert not queue.has_room(CallSignature.of(q, k, TokenLayout(rows, SPANS.keys), None))


def test_what_waits_is_a_copy() -> None:
    """A model may use a call's memory again as soon as it is over."""
    queue = CallBatch[str]()
    wanted = [call(seed)[:2] for seed in (1, 2)]
    for name, seed in (("a", 1), ("b", 2)):
        q, k, signature = call(seed)
        queue.put(name, q, k, signature)
        q.zero_()
        k.zero_()
    batch = queue.take()
    assert batch is not None
    assert batch.names == ("a", "b")
    assert torch.equal(batch.q, torch.cat([q for q, _ in wanted]))
    assert torch.equal(batch.k, torch.cat([k for _, k in wanted]))
    assert queue.take() is None
