"""Listening to softmaxes: what is told, what is understood, and that its sums are the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from dense_attention import assert_right, call, dense, few
from hypothesis import given
from hypothesis import strategies as st
from recordings import rand
from torch import Tensor

from i2am.attention import ObservedSoftmax, SoftmaxSums, SoftmaxTap, attention_marginals, can_tap
from i2am.attention.softmax_tap import observed_softmax
from i2am.tokens import Grid, Role, Span, TokenLayout

SEEDS = st.integers(0, 10_000)


def logits_of(q: Tensor, k: Tensor, scale: float | None = None) -> Tensor:
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    return q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)


def observed_of(
    logits: Tensor, spans: TokenLayout, pieces: int = 1, correspondence: bool = True
) -> SoftmaxSums:
    """All of a call, told in so many pieces of its queries."""
    observed, first = SoftmaxSums(spans, correspondence), 0
    for some in logits.tensor_split(pieces, dim=2):
        observed.add(ObservedSoftmax(some, some.softmax(-1)), first)
        first += some.shape[2]
    return observed


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
    told: list[tuple[ObservedSoftmax, int]] = []
    q, k, _ = call()
    with SoftmaxTap(q, k, None, None, lambda *observed: told.append(observed)):
        softmax(q)  # of something else
        logits = logits_of(q, k)
        found = softmax(logits) @ k
        softmax(logits)  # again
    assert torch.equal(found, softmax(logits) @ k)
    [(observed, first)] = told
    assert first == 0
    assert torch.equal(observed.logits, logits)
    assert torch.equal(observed.softmax, softmax(logits))
    softmax(logits)
    assert len(told) == 1  # nothing after it is left


def test_tells_of_pieces_in_order() -> None:
    told: list[tuple[ObservedSoftmax, int]] = []
    q, k, _ = call()
    logits = logits_of(q, k)
    pieces = logits.tensor_split(4, dim=2)
    with SoftmaxTap(q, k, None, None, lambda *observed: told.append(observed)):
        for number in (1, 0, 0, 1, 2, 3, 3):  # out of order and again: not next to what is known
            pieces[number].softmax(-1)
    assert torch.equal(torch.cat([observed.logits for observed, _ in told], 2), logits)
    sizes = [piece.shape[2] for piece in pieces]
    assert [first for _, first in told] == [sum(sizes[:n]) for n in range(4)]


class TestUnderstood:
    def test_the_call_itself(self) -> None:
        q, k, _ = call()
        logits = logits_of(q, k)
        flat = logits.flatten(0, 1)
        found = observed_softmax(flat, flat.softmax(-1), q, k, None, None)
        assert found is not None
        assert torch.equal(found.logits, logits)
        assert torch.equal(found.of(slice(1, 2)).softmax, logits.softmax(-1)[1:2])

    def test_shared_key_heads_a_scale_and_a_mask(self) -> None:
        q, k, _ = call()
        mask = rand(7, 1, 1, q.shape[2], k.shape[2])
        logits = logits_of(q, k[:, :2], 0.7) + mask
        assert observed_softmax(logits, logits.softmax(-1), q, k[:, :2], 0.7, mask) is not None

    @pytest.mark.parametrize("masked", [False, True])
    def test_pieces_of_the_queries(self, masked: bool) -> None:
        q, k, _ = call()
        mask = rand(7, 1, 1, q.shape[2], k.shape[2]) if masked else None
        logits = logits_of(q, k) + (0 if mask is None else mask)
        start, rest = logits[:, :, :9], logits[:, :, 9:]
        for piece, first in ((start, 0), (rest, 9)):
            found = observed_softmax(piece, piece.softmax(-1), q, k, None, mask, first)
            assert found is not None
            assert torch.equal(found.logits, piece)
            for other in (9 - first, 1, q.shape[2]):
                assert observed_softmax(piece, piece.softmax(-1), q, k, None, mask, other) is None

    def test_others(self) -> None:
        """Another call's, other queries, another precision, some of the keys, another function."""
        q, k, _ = call()
        logits = logits_of(q, k)
        tampered = logits_of(q * 1.01, k)
        some = logits[..., :-1]
        for other in (tampered, some, logits.half(), logits[:1], logits[0, 0], logits_of(k, q)):
            assert observed_softmax(other, other.softmax(-1), q, k, None, None) is None
        assert observed_softmax(logits, logits.softmax(-1)[..., :3], q, k, None, None) is None
        assert observed_softmax(logits, logits.softmax(-1), q, k, 0.5, None) is None
        assert observed_softmax(logits * math.nan, logits, q, k, None, None) is None
        keep = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        assert observed_softmax(logits, logits.softmax(-1), q, k, None, keep) is None

    def test_small_calls_are_not_worth_it(self) -> None:
        q, k, _ = call()
        assert not can_tap(q, k)
        assert can_tap(q.expand(2, 4, -1, 8).repeat(1, 1, 99, 1), k.repeat(1, 1, 99, 1))
        meta = torch.empty(1, 8, 4096, 8, device="meta")
        assert not can_tap(meta, meta)


class TestTheSumsAreTheSame:
    @few
    @given(
        SEEDS,
        st.builds(Grid, st.integers(1, 40), st.integers(1, 5)),
        st.lists(st.builds(Grid, st.integers(1, 3), st.integers(1, 34)), min_size=1, max_size=3),
        st.integers(0, 3),
        st.integers(1, 5),
    )
    def test_as_dense(
        self, seed: int, rows: Grid, columns: list[Grid], text: int, pieces: int
    ) -> None:
        spans = layout_of(rows, tuple(columns), text)
        q, k = rand(seed, 2, 3, spans.key_count, 4), rand(seed + 1, 2, 3, spans.key_count, 4)
        logits = logits_of(q, k)
        found = attention_marginals(q, k, spans, observed=observed_of(logits, spans, pieces))
        computed = attention_marginals(q, k, spans)
        small = dense(q, k, spans)
        if all(max(grid.sides) <= 32 for grid in (rows, *columns)):
            assert_right(found, small)
        for index in range(len(columns)):  # pooled as the others are
            pair = found.correspondence[index], computed.correspondence[index]
            assert torch.allclose(*pair, rtol=1e-4, atol=1e-7)
        observed = observed_of(logits, spans, pieces, correspondence=False)
        assert_right(
            attention_marginals(q, k, spans, observed=observed, correspondence=False), small
        )

    def test_shared_key_heads_a_scale_and_a_mask_in_pieces(self) -> None:
        q, k, spans = call()
        k, bias = k[:, :2], rand(9, 1, 1, q.shape[2], k.shape[2])
        logits = logits_of(q, k, 0.4) + bias
        observed = observed_of(logits, spans, 3)
        found = attention_marginals(q, k, spans, scale=0.4, mask=bias, observed=observed)
        assert_right(found, dense(q, k, spans, scale=0.4, bias=bias))

    @pytest.mark.parametrize("level", [40.0, 200.0, 1000.0])
    @pytest.mark.parametrize("of", ["rows", "reference", "columns"])
    @pytest.mark.parametrize("pieces", [1, 4])
    def test_rows_and_columns_far_below_the_others(
        self, of: str, level: float, pieces: int
    ) -> None:
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
        observed = observed_of(logits, spans, pieces)
        found = attention_marginals(q, k, spans, mask=bias.float(), observed=observed)
        assert_right(found, dense(q, k, spans, bias=bias), 1e-4)

    def test_only_some_queries_were_observed(self) -> None:
        """What holds the result is used, and what does not is not."""
        q, k, spans = call()
        logits = 3 * logits_of(q, k)
        stop = spans.generated.stop
        short = observed_of(logits[:, :, : stop - 1], spans)
        assert not short.complete
        assert_right(attention_marginals(q, k, spans, observed=short), dense(q, k, spans))
        enough = observed_of(logits[:, :, :stop], spans)
        assert enough.complete
        assert_right(attention_marginals(q, k, spans, observed=enough), dense(3 * q, k, spans))
