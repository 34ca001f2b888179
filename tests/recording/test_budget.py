"""Budgets: the steps they choose, the queries they keep, and the maps of what is left."""

from __future__ import annotations

import pytest
import torch
from recordings import layout, rand

from i2am.attention import attention_marginals
from i2am.recording import BUDGETS, Plan, planned_steps
from i2am.recording.call import RecordedCall
from i2am.tokens import Grid, Role, Span, TokenLayout


class TestSteps:
    @pytest.mark.parametrize(
        ("budget", "count", "wanted"),
        [
            ("exact", 4, [0, 1, 2, 3]),
            ("balanced", 1, [0]),
            ("balanced", 4, [1, 3]),
            ("balanced", 9, [1, 4, 7]),
            ("fast", 1, [0]),
            ("fast", 4, [2]),
            ("fast", 20, [2, 7, 12, 17]),
        ],
    )
    def test_spread_evenly(self, budget: str, count: int, wanted: list[int]) -> None:
        assert planned_steps(Plan(budget=budget), count) == wanted

    @pytest.mark.parametrize("budget", BUDGETS)
    def test_among_those_asked_for(self, budget: str) -> None:
        steps = planned_steps(Plan(steps=((3, 5), (9, 9)), budget=budget), 20)
        assert steps
        assert set(steps) <= {3, 4, 5, 9}

    def test_nothing_of_nothing(self) -> None:
        assert planned_steps(Plan(steps=((7, 9),), budget="fast"), 4) == []


class TestQueries:
    @pytest.mark.parametrize(
        ("turn", "down", "across"), [(0, 0, 0), (1, 1, 1), (2, 0, 1), (3, 1, 0), (4, 0, 0)]
    )
    def test_each_query_keeps_its_attention(self, turn: int, down: int, across: int) -> None:
        """The maps of a thinned call are those of the queries it keeps, in their order."""
        big, other = Grid(33, 32, frames=2), Grid(3, 4)
        spans = layout(generated=big, references=(other,), text=2)
        q, k = (rand(seed, 1, 2, spans.key_count, 8) for seed in (1, 2))
        mask = rand(3, spans.key_count, spans.key_count)
        call = RecordedCall(q, k, spans, mask=mask).thinned(2, turn)
        coarse = call.layout
        assert coarse.generated.grid == Grid(17, 16, (16.5, 16.0), frames=2)
        found = attention_marginals(call.q, k, coarse, mask=call.mask).share
        whole = attention_marginals(q, k, spans, mask=mask).share.unflatten(-1, big.shape)
        rows = torch.tensor([*range(down, 32, 2), 32])
        wanted = whole[..., rows, :][..., across::2].flatten(-3)
        torch.testing.assert_close(found, wanted)

    def test_in_the_layouts_order(self) -> None:
        """If the tokens of the result are not in the order of their grid."""
        big = Grid(32, 32)
        order = torch.randperm(big.area, generator=torch.Generator().manual_seed(4))
        keys = (Span(Role.REFERENCE, 0, 6, Grid(2, 3)),)
        spans = TokenLayout((Span(Role.GENERATED, 0, big.area, big),), keys)
        q = rand(1, 1, 2, big.area, 8)
        plain = RecordedCall(q, q, spans).thinned(2, 1)
        shuffled = torch.empty_like(q)
        shuffled[:, :, order] = q
        ordered = TokenLayout(spans.queries, keys, query_order=tuple(order.tolist()))
        mixed = RecordedCall(shuffled, q, ordered).thinned(2, 1)
        assert torch.equal(mixed.q, plain.q)
        assert mixed.layout == plain.layout

    def test_small_grids_are_not_thinned(self) -> None:
        q, spans = rand(1, 1, 2, 31 * 40, 8), Grid(31, 40)
        whole = TokenLayout(
            (Span(Role.GENERATED, 0, spans.area, spans),), (Span(Role.REFERENCE, 0, 4),)
        )
        call = RecordedCall(q, q, whole)
        assert call.thinned(2, 1) is call
