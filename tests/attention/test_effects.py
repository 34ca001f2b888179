"""The effect of each key and reference, against outputs computed without them in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dense_attention import call, few
from hypothesis import given
from hypothesis import strategies as st
from recordings import rand
from torch import Tensor

from i2am.attention import (
    Effects,
    Steer,
    attention_bias,
    attention_effects,
    biased_query_key,
)
from i2am.tokens import Grid, Role, Span, TokenLayout


def without(
    logits: Tensor, v: Tensor, spans: TokenLayout, hidden: slice | None, weights: Tensor | None
) -> Tensor:
    """The output of a call with some keys left out: (batch, heads, rows, value dim).

    logits: (batch, heads, rows, keys). weights: (batch, softmaxes, rows).
    """
    output = torch.zeros(())
    for softmax in {span.softmax for span in spans.keys}:
        keys = torch.tensor([span.softmax == softmax for span in spans.keys])
        keys = keys.repeat_interleave(torch.tensor([span.length for span in spans.keys]))
        if hidden is not None:
            keys[hidden] = False
        part = (logits[..., keys].softmax(-1).nan_to_num(0) @ v[:, :, keys]).double()
        output = output + (part if weights is None else weights[:, softmax, None, :, None] * part)
    return output


def each(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spans: TokenLayout,
    scale: float | None = None,
    bias: Tensor | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """‖o‖² (batch, heads, rows), ‖Δ‖² of each reference (batch, heads, references, rows), and for
    each reference ‖Δ‖² of its keys (batch, heads, rows, reference), left out one at a time."""
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    rows = spans.generated.slice
    logits = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    logits = (logits if bias is None else logits + bias.double())[:, :, rows]
    weights = None if weights is None else weights[..., rows].double()
    call = logits, v, spans
    output = without(*call, None, weights)

    def moved(hidden: slice) -> Tensor:
        return (without(*call, hidden, weights) - output).square().sum(-1)

    whole = torch.stack([moved(span.slice) for span in spans.references], 2)
    keys = [
        torch.stack([moved(slice(key, key + 1)) for key in range(span.start, span.stop)], -1)
        for span in spans.references
    ]
    return output.square().sum(-1), whole, keys


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-4) -> None:
    assert found.dtype == torch.float32
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def assert_right(
    found: Effects, output: Tensor, whole: Tensor, keys: list[Tensor], tolerance: float = 1e-4
) -> None:
    """Sums of a call without portions, on grids small enough not to be pooled."""
    close(found.output, output, tolerance)
    close(found.r2g, whole, tolerance)
    for r, moved in enumerate(keys):
        close(found.g2r[r], moved.mean(2), tolerance)
        close(found.correspondence[r], moved.mean(1), tolerance)


class TestAgainstLeavingOut:
    @pytest.mark.parametrize("text", [0, 3])
    @pytest.mark.parametrize("scale", [None, 0.05, 1.0])
    @pytest.mark.parametrize("scratch", [1, 8_000, 2**28])
    def test_plain(self, text: int, scale: float | None, scratch: int) -> None:
        q, k, spans = call(text=text)
        v = rand(2, *k.shape[:-1], 5)
        found = attention_effects(q, k, v, spans, scale=scale, scratch_bytes=scratch)
        assert_right(found, *each(q, k, v, spans, scale))

    @pytest.mark.parametrize("heads", [1, 2])
    def test_shared_key_heads(self, heads: int) -> None:
        q, k, spans = call()
        k, v = k[:, :heads], rand(2, *k.shape)[:, :heads]
        assert_right(attention_effects(q, k, v, spans), *each(q, k, v, spans))

    @pytest.mark.parametrize("shape", ["(n,n)", "(b,n,n)", "(b,1,n)", "(b,h,n,n)"])
    @pytest.mark.parametrize("scratch", [1, 2**28])
    def test_masks(self, shape: str, scratch: int) -> None:
        """With a reference token that no query may see."""
        q, k, spans = call()
        v = rand(2, *k.shape)
        sizes = {"n": spans.key_count, "b": 2, "h": 4}
        size = [int(sizes.get(name, 1)) for name in shape.strip("()").split(",")]
        keep = torch.rand(size, generator=torch.Generator().manual_seed(5)) > 0.3
        keep[..., 2:14] = True  # nothing hides a picture from itself
        keep[..., 15] = False
        bias = torch.zeros(size).masked_fill(~keep, -torch.inf)
        whole = bias.unsqueeze(1) if bias.ndim == 3 else bias
        found = attention_effects(q, k, v, spans, mask=keep, scratch_bytes=scratch)
        assert_right(found, *each(q, k, v, spans, bias=whole))
        assert not found.g2r[0][..., 15 - spans.references[0].start].any()

    @pytest.mark.parametrize("scratch", [1, 2**28])
    def test_several_softmaxes(self, scratch: int) -> None:
        """Two adapters beside the text; each is weighted, and nothing is left beside either."""
        grid = Grid(2, 3)
        rows = Span(Role.GENERATED, 0, 12, Grid(3, 4))
        keys = (
            Span(Role.TEXT, 0, 5),
            Span(Role.REFERENCE, 5, 11, grid, 1),
            Span(Role.REFERENCE, 11, 17, grid, 2),
        )
        spans = TokenLayout((rows,), keys)
        q, k, v = rand(0, 2, 3, 12, 8), rand(1, 2, 3, 17, 8), rand(2, 2, 3, 17, 8)
        weights = rand(3, 2, 3, 12).abs()
        found = attention_effects(q, k, v, spans, weights=weights, scratch_bytes=scratch)
        assert_right(found, *each(q, k, v, spans, weights=weights))

    def test_tokens_in_another_order(self) -> None:
        q, k, spans = call()
        v = rand(2, *k.shape)
        order = torch.randperm(spans.key_count, generator=torch.Generator().manual_seed(3))
        back = tuple(order.argsort().tolist())
        mixed = replace(spans, query_order=back, key_order=back)
        found = attention_effects(q[:, :, order], k[:, :, order], v[:, :, order], mixed)
        assert_right(found, *each(q, k, v, spans))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        """Computed in float32 from what the model has."""
        q, k, spans = call()
        q, k, v = (x.to(dtype) for x in (q, k, rand(2, *k.shape)))
        assert_right(attention_effects(q, k, v, spans), *each(q, k, v, spans))

    def test_a_key_with_nearly_all_attention(self) -> None:
        """Nothing is divided by the little that is left."""
        q, k, spans = call(batch=1, heads=1)
        v = rand(2, *k.shape)
        token = spans.references[0].start
        q[..., 0] = 6.0
        k[..., token, :] = 0.0
        k[..., token, 0] = 5.0
        found = attention_effects(q, k, v, spans)
        assert float(found.r2g.max()) > 0
        assert_right(found, *each(q, k, v, spans), 1e-2)

    def test_a_reference_of_one_token_alone_in_its_softmax(self) -> None:
        """Leaving it out leaves nothing: the whole of the adapter's output."""
        rows = Span(Role.GENERATED, 0, 12, Grid(3, 4))
        keys = Span(Role.TEXT, 0, 5), Span(Role.REFERENCE, 5, 6, Grid(1, 1), 1)
        spans = TokenLayout((rows,), keys)
        q, k, v = rand(0, 1, 2, 12, 8), rand(1, 1, 2, 6, 8), rand(2, 1, 2, 6, 8)
        weights = torch.full((1, 2, 12), 0.5)
        found = attention_effects(q, k, v, spans, weights=weights)
        assert_right(found, *each(q, k, v, spans, weights=weights))

    def test_points(self) -> None:
        """A point of several tokens has the sum of what each of them moves."""
        q, k, spans = call()
        v = rand(2, *k.shape)
        on_result = rand(4, 2, spans.generated.length).abs()
        on_references = tuple(
            rand(5 + n, n, s.length).abs() for n, s in enumerate(spans.references)
        )
        found = attention_effects(
            q, k, v, spans, result_points=on_result, reference_points=on_references,
            scratch_bytes=8_000,
        )  # fmt: skip
        _, _, keys = each(q, k, v, spans)
        for r, moved in enumerate(keys):
            close(found.rows[r], on_result.double() @ moved.mean(1))
            assert found.columns[r].shape == (2, r, spans.generated.length)
            if r:
                close(found.columns[r], on_references[r].double() @ moved.mean(1).mT)

    def test_portions_of_a_region(self) -> None:
        """Every place counts by its portion."""
        q, k, spans = call()
        v = rand(2, *k.shape)
        portions = rand(9, 1, spans.generated.length).abs()
        found = attention_effects(q, k, v, spans, portions=portions)
        output, whole, keys = each(q, k, v, spans)
        close(found.output, output * portions[:, None])
        close(found.r2g, whole * portions[:, None, None])
        for r, moved in enumerate(keys):
            close(found.g2r[r], (moved * portions[:, None, :, None]).mean(2))
            close(found.correspondence[r], (moved * portions[:, None, :, None]).mean(1))


class TestInvariants:
    @few
    @given(seed=st.integers(0, 1000))
    def test_values_that_change_nothing(self, seed: int) -> None:
        """All values alike: whatever the model looked at, it found the same."""
        q, k, spans = call(seed)
        v = rand(seed, 2, 4, 1, 8).expand_as(k)
        found = attention_effects(q, k, v, spans)
        for array in (found.r2g, *found.g2r, *found.correspondence):
            assert float(array.max()) < 1e-5

    @few
    @given(seed=st.integers(0, 1000), factor=st.floats(0.01, 100))
    def test_grows_with_the_square_of_the_values(self, seed: int, factor: float) -> None:
        q, k, spans = call(seed)
        v = rand(seed + 2, *k.shape)
        found, scaled = (attention_effects(q, k, values, spans) for values in (v, v * factor))
        torch.testing.assert_close(found.r2g * factor**2, scaled.r2g, atol=1e-9, rtol=1e-3)

    def test_a_hidden_reference_has_none(self) -> None:
        q, k, spans = call()
        first = spans.references[0]
        keep = torch.ones(spans.key_count, spans.key_count, dtype=torch.bool)
        keep[:, first.slice] = False
        found = attention_effects(q, k, rand(2, *k.shape), spans, mask=keep)
        assert not found.r2g[:, :, 0].any()
        assert not found.g2r[0].any()

    def test_what_muting_a_reference_changes(self) -> None:
        """Reference Strength 0 moves the output as far as its effect says."""
        q, k, spans = call()
        v = rand(2, *k.shape)
        found = attention_effects(q, k, v, spans)
        for r in range(2):
            bias = attention_bias(Steer(r, 0.0), spans, spans.key_count, 2)
            assert bias is not None
            steered = biased_query_key(q, k, [(slice(0, 2), bias)])
            muted, whole = (
                torch.nn.functional.scaled_dot_product_attention(*pair, v)
                for pair in (steered, (q, k))
            )
            moved = (muted - whole).square().sum(-1)[:, :, spans.generated.slice]
            close(found.r2g[:, :, r], moved)

    def test_a_batch_item_alone(self) -> None:
        q, k, spans = call()
        v = rand(2, *k.shape)
        both = attention_effects(q, k, v, spans)
        alone = attention_effects(q[1:], k[1:], v[1:], spans)
        torch.testing.assert_close(both.r2g[1:], alone.r2g)
        torch.testing.assert_close(both.g2r[0][1:], alone.g2r[0])

    def test_more_tokens_than_are_kept_are_pooled(self) -> None:
        """A correspondence of coarse cells: the mean of their rows, the sum of their keys."""
        grid = Grid(40, 4)
        rows, keys = Span(Role.GENERATED, 0, 160, grid), Span(Role.REFERENCE, 160, 320, grid)
        spans = TokenLayout(
            (rows, replace(keys, role=Role.TEXT)), (Span(Role.GENERATED, 0, 160), keys)
        )
        q, k, v = (rand(n, 1, 2, 320, 8) for n in range(3))
        found = attention_effects(q, k, v, spans)
        (pairs,) = found.correspondence
        assert pairs.shape[1] < 160
        torch.testing.assert_close(
            pairs.mean(1).sum(-1), found.g2r[0].mean(1).sum(-1), atol=1e-5, rtol=1e-3
        )
