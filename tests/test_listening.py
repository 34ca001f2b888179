"""Listening to softmaxes: what is told, what is understood, and that its sums are the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recordings import rand
from test_attention import assert_right, call, dense, few
from torch import Tensor

import i2am.attention
from i2am.attention import attention_marginals
from i2am.geometry import Grid, Role, Span, TokenLayout
from i2am.listening import Listening, is_worth_it, understood
from i2am.whole import Overheard

SEEDS = st.integers(0, 10_000)


def logits_of(q: Tensor, k: Tensor, scale: float | None = None) -> Tensor:
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    return q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)


def heard_of(logits: Tensor) -> Overheard:
    return Overheard(logits, logits.softmax(-1))


def layout_of(rows: Grid, columns: tuple[Grid, ...], text: int) -> TokenLayout:
    """[text | generated | references]."""
    spans = [Span(Role.TEXT, 0, text)] if text else []
    spans.append(Span(Role.GENERATED, text, text + rows.area, rows))
    for grid in columns:
        spans.append(Span(Role.REFERENCE, spans[-1].stop, spans[-1].stop + grid.area, grid))
    return TokenLayout(tuple(spans), tuple(spans))


SOFTMAXES: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.softmax(dim=-1),
    lambda x: torch.softmax(x, -1),
    lambda x: torch.nn.functional.softmax(x, dim=-1),
]


@pytest.mark.parametrize("softmax", SOFTMAXES)
def test_tells_of_every_softmax_and_changes_nothing(softmax: Callable[[Tensor], Tensor]) -> None:
    told: list[tuple[Tensor, Tensor]] = []
    q, k, _ = call()
    with Listening(lambda *heard: told.append(heard)):
        logits = q @ k.mT
        found = softmax(logits) @ k
    assert torch.equal(found, softmax(q @ k.mT) @ k)
    [(given, gave)] = told
    assert given is logits
    assert torch.equal(gave, softmax(logits))
    softmax(logits)
    assert len(told) == 1  # nothing after it is left


class TestUnderstood:
    def test_the_call_itself(self) -> None:
        q, k, _ = call()
        logits = logits_of(q, k)
        flat = logits.flatten(0, 1)
        found = understood(flat, flat.softmax(-1), q, k, None, None)
        assert found is not None
        assert torch.equal(found.logits, logits)
        assert torch.equal(found.of(slice(1, 2)).softmax, logits.softmax(-1)[1:2])

    def test_shared_key_heads_a_scale_and_a_mask(self) -> None:
        q, k, _ = call()
        mask = rand(7, 1, 1, q.shape[2], k.shape[2])
        logits = logits_of(q, k[:, :2], 0.7) + mask
        assert understood(logits, logits.softmax(-1), q, k[:, :2], 0.7, mask) is not None

    def test_the_first_piece_of_the_queries(self) -> None:
        q, k, _ = call()
        logits = logits_of(q, k)
        first, rest = logits[:, :, :9], logits[:, :, 9:]
        found = understood(first, first.softmax(-1), q, k, None, None)
        assert found is not None
        assert found.logits.shape[2] == 9
        assert understood(rest, rest.softmax(-1), q, k, None, None) is None

    def test_others(self) -> None:
        """Another call's, other queries, another precision, some of the keys, another function."""
        q, k, _ = call()
        logits = logits_of(q, k)
        tampered = logits_of(q * 1.01, k)
        some = logits[..., :-1]
        for other in (tampered, some, logits.half(), logits[:1], logits[0, 0], logits_of(k, q)):
            assert understood(other, other.softmax(-1), q, k, None, None) is None
        assert understood(logits, logits.softmax(-1)[..., :3], q, k, None, None) is None
        assert understood(logits, logits.softmax(-1), q, k, 0.5, None) is None
        assert understood(logits * math.nan, logits, q, k, None, None) is None
        keep = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        assert understood(logits, logits.softmax(-1), q, k, None, keep) is None

    def test_small_calls_are_not_worth_it(self) -> None:
        q, k, _ = call()
        assert not is_worth_it(q, k)
        assert is_worth_it(q.expand(2, 4, -1, 8).repeat(1, 1, 99, 1), k.repeat(1, 1, 99, 1))
        meta = torch.empty(1, 8, 4096, 8, device="meta")
        assert not is_worth_it(meta, meta)


class TestTheSumsAreTheSame:
    @few
    @given(
        SEEDS,
        st.builds(Grid, st.integers(1, 40), st.integers(1, 5)),
        st.lists(st.builds(Grid, st.integers(1, 3), st.integers(1, 34)), min_size=1, max_size=3),
        st.integers(0, 3),
    )
    def test_as_dense(self, seed: int, rows: Grid, columns: list[Grid], text: int) -> None:
        spans = layout_of(rows, tuple(columns), text)
        q, k = rand(seed, 2, 3, spans.key_count, 4), rand(seed + 1, 2, 3, spans.key_count, 4)
        found = attention_marginals(q, k, spans, heard=heard_of(logits_of(q, k)))
        computed = attention_marginals(q, k, spans)
        small = dense(q, k, spans)
        if all(max(grid.sides) <= 32 for grid in (rows, *columns)):
            assert_right(found, small)
        for index in range(len(columns)):  # pooled as the others are
            pair = found.correspondence[index], computed.correspondence[index]
            assert torch.allclose(*pair, rtol=1e-4, atol=1e-7)
        assert_right(
            attention_marginals(q, k, spans, heard=heard_of(logits_of(q, k)), correspondence=False),
            small,
        )

    @pytest.mark.parametrize("level", [40.0, 200.0, 1000.0])
    @pytest.mark.parametrize("of", ["rows", "reference", "columns"])
    def test_rows_and_columns_far_below_the_others(self, of: str, level: float) -> None:
        """What a softmax over all keys loses is computed by itself."""
        q, k, spans = call()
        bias = torch.zeros(1, 1, q.shape[2], k.shape[2])
        if of == "rows":
            bias[:, :, ::3] = -level
        elif of == "reference":
            bias[:, :, ::2, spans.references[0].start : spans.references[0].stop] = -level
        else:
            bias[..., spans.references[0].start :: 2] = -level
        logits = logits_of(q, k) + bias
        bias = logits.double() - logits_of(q.double(), k.double())  # as rounded
        found = attention_marginals(q, k, spans, mask=bias.float(), heard=heard_of(logits))
        assert_right(found, dense(q, k, spans, bias=bias), 1e-4)

    @pytest.mark.parametrize("small", [0, 2**20])
    def test_only_some_queries_were_heard(
        self, small: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A piece that holds the result is used, one that does not is not."""
        monkeypatch.setattr(i2am.attention, "SMALL_BYTES", small)
        q, k, spans = call()
        heard = heard_of(3 * logits_of(q, k))
        stop = spans.generated.stop
        wanted = dense(q, k, spans)
        short = Overheard(heard.logits[:, :, : stop - 1], heard.softmax[:, :, : stop - 1])
        assert_right(attention_marginals(q, k, spans, heard=short), wanted)
        enough = heard_of(logits_of(q, k)[:, :, :stop])
        assert_right(attention_marginals(q * 2, k, spans, heard=enough), wanted)
