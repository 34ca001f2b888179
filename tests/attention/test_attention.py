"""One attention call's sums against dense float64 matrices."""

from __future__ import annotations

import pytest
import torch
from dense_attention import assert_right, call, dense, named
from recordings import rand
from torch import Tensor

from i2am.attention import attention_marginals
from i2am.errors import LayoutMismatch
from i2am.tokens import Grid, Role, Span, TokenLayout

pytestmark = pytest.mark.usefixtures("both_ways")


class TestAgainstDense:
    @pytest.mark.parametrize("text", [0, 3])
    @pytest.mark.parametrize("scale", [None, 0.05, 1.0])
    def test_plain(self, text: int, scale: float | None) -> None:
        q, k, spans = call(text=text)
        found = attention_marginals(q, k, spans, scale=scale)
        assert_right(found, dense(q, k, spans, scale))

    def test_shared_key_heads(self) -> None:
        """Four query heads share two key heads: 0 and 1 the first, 2 and 3 the second."""
        q, k, spans = call()
        assert_right(attention_marginals(q, k[:, :2], spans), dense(q, k[:, :2], spans))

    def test_fewer_queries_than_keys(self) -> None:
        """References that are cached keys, and have no queries."""
        q, k, spans = call()
        queries = spans.queries[:2]
        cached = TokenLayout(queries, spans.keys)
        q = q[:, :, : queries[-1].stop]
        assert_right(attention_marginals(q, k, cached), dense(q, k, cached))

    def test_cross_attention(self) -> None:
        """All queries are the picture's, the reference lies between texts."""
        grid = Grid(2, 3)
        keys = (Span(Role.TEXT, 0, 2), Span(Role.REFERENCE, 2, 8, grid), Span(Role.TEXT, 8, 9))
        spans = TokenLayout((Span(Role.GENERATED, 0, 12, Grid(3, 4)),), keys)
        q, k = rand(0, 2, 2, 12, 8), rand(1, 2, 2, 9, 8)
        found = attention_marginals(q, k, spans)
        assert_right(found, dense(q, k, spans))
        assert not found.share[:, :, 1].any()

    @pytest.mark.parametrize("shape", ["(n,n)", "(b,n,n)", "(1,n,n)", "(b,1,n)", "(b,h,n,n)"])
    @pytest.mark.parametrize("kind", ["bool", "additive", "half"])
    def test_masks(self, shape: str, kind: str) -> None:
        """Every shape and kind a host may give, with keys and reference rows hidden altogether."""
        q, k, spans = call()
        sizes = {"n": spans.key_count, "b": 2, "h": 4, "1": 1}
        size = [sizes[name] for name in shape.strip("()").split(",")]
        keep = torch.rand(size, generator=torch.Generator().manual_seed(5)) > 0.3
        keep[..., 2:14] = True  # nothing hides a picture from itself
        keep[..., 15] = False  # a reference token no query may see
        keep[..., -3:, :] = keep[..., -3:, :]
        bias = torch.zeros(size).masked_fill(~keep, -torch.inf)
        if kind != "bool":
            bias = bias + rand(6, *size)
        if kind == "half":
            bias = bias.half()
        mask = keep if kind == "bool" else bias
        whole = bias.unsqueeze(1) if bias.ndim == 3 else bias
        assert_right(
            attention_marginals(q, k, spans, mask=mask), dense(q, k, spans, bias=whole), 1e-4
        )

    def test_a_whole_reference_hidden(self) -> None:
        """It gets nothing, and what is left is what it was without it."""
        q, k, spans = call()
        first = spans.references[0]
        keep = torch.ones(spans.key_count, spans.key_count, dtype=torch.bool)
        keep[:, first.start : first.stop] = False
        found = attention_marginals(q, k, spans, mask=keep)
        for name, array in named(found).items():
            assert bool(array.isfinite().all()), name
        assert not found.share[:, :, 2].any()
        assert not found.paper_r2g[:, :, 0].any()
        torch.testing.assert_close(found.share.sum(2), torch.ones_like(found.share[:, :, 0]))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        """Computed in float32 from what the model has."""
        q, k, spans = call()
        q, k = q.to(dtype), k.to(dtype)
        assert_right(attention_marginals(q, k, spans), dense(q, k, spans))

    @pytest.mark.parametrize("factor", [1e2, 1e4])
    def test_huge_logits(self, factor: float) -> None:
        """Logits of ±1e4 and beyond: no overflow, and as right as float32 logits can be."""
        q, k, spans = call()
        found = attention_marginals(q * factor, k, spans)
        for name, array in named(found).items():
            assert bool(array.isfinite().all()), name
        shares = found.share.sum(2)
        torch.testing.assert_close(shares, torch.ones_like(shares), atol=1e-2, rtol=0)
        one = torch.ones(2, 4, 2)
        torch.testing.assert_close(found.paper_r2g.sum(-1), one, atol=1e-2, rtol=0)
        if factor < 1e3:
            assert_right(found, dense(q * factor, k, spans), 1e-2)  # of float32's logits

    @pytest.mark.parametrize("scratch", [1, 20_000, 2**28])
    def test_a_column_far_below_all_others(self, scratch: int) -> None:
        """A reference token that no query attends to has a column of M_g like any other."""
        q, k, spans = call(batch=1, heads=1)
        spread = torch.zeros(8)
        spread[0] = 1.0
        token = spans.references[0].start
        q[..., 0] = 30.0 + q[..., 0] / 100
        k[..., token, :] = -100 * spread + k[..., token, :] / 10
        wanted = dense(q, k, spans)
        found = attention_marginals(q, k, spans, scratch_bytes=scratch)
        assert float(found.g2r[0][..., 0, 0].max()) < 1e-30
        assert_right(found, wanted, 1e-3)

    @pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
    @pytest.mark.parametrize("scratch", [1, 8_000, 2**28])
    @pytest.mark.parametrize("reach", [20, 60, 120, 400])
    def test_rows_and_columns_of_all_levels(self, reach: float, scratch: int, masked: bool) -> None:
        """Rows and columns scaled by up to e^±reach: none of them gets lost."""
        q, k, spans = call(batch=2, heads=3)
        ones = torch.ones_like(q[..., :1])
        rows, columns = (reach * (rand(seed, *ones.shape) / 2).clamp(-1, 1) for seed in (7, 8))
        q, k = torch.cat((q, rows, ones), -1), torch.cat((k, ones, columns), -1)
        mask = torch.zeros(spans.key_count, spans.key_count) if masked else None
        found = attention_marginals(q, k, spans, scale=1.0, mask=mask, scratch_bytes=scratch)
        assert_right(found, dense(q, k, spans, 1.0), 2e-3)


class TestBlocks:
    """Invariant 24: however a call is cut, the sums are the same."""

    @pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
    @pytest.mark.parametrize("scratch", [1, 1_000, 4_000, 12_000, 30_000, 60_000, 200_000])
    def test_invariant_24_scratch(self, scratch: int, masked: bool) -> None:
        q, k, spans = call(batch=3)
        mask = rand(9, 3, 1, spans.key_count, spans.key_count) if masked else None
        whole = named(attention_marginals(q, k, spans, mask=mask))
        cut = named(attention_marginals(q, k, spans, mask=mask, scratch_bytes=scratch))
        for name, array in whole.items():
            torch.testing.assert_close(cut[name], array, atol=1e-6, rtol=1e-5, msg=name)

    def test_inputs_are_untouched(self) -> None:
        q, k, spans = call()
        mask = rand(3, spans.key_count, spans.key_count)
        copies = [x.clone() for x in (q, k, mask)]
        attention_marginals(q, k, spans, mask=mask, scratch_bytes=1)
        assert all(torch.equal(*pair) for pair in zip((q, k, mask), copies, strict=True))

    def test_without_correspondence(self) -> None:
        q, k, spans = call()
        found = attention_marginals(q, k, spans, correspondence=False)
        assert found.correspondence == ()
        whole = named(attention_marginals(q, k, spans))
        for name, array in named(found).items():
            assert torch.equal(array, whole[name]), name

    def test_correspondence_is_pooled(self) -> None:
        """Beyond 32 cells a side neighbours are added up over the reference, averaged over the
        result, and rows still sum to one."""
        big = Grid(64, 2)
        q, k, spans = call(batch=1, heads=2, generated=big, references=(big,))
        found = attention_marginals(q, k, spans)
        pairs = dense(q, k, spans)["pairs 0"].reshape(1, 32, 2, 2, 32, 2, 2)
        wanted = pairs.sum((5, 6), keepdim=True)[:, :, :, :, :, :, 0].mean((2, 3)).squeeze(-1)
        assert found.correspondence[0].shape == (1, 2, 32, 32)
        torch.testing.assert_close(found.correspondence[0][:, 0], wanted.float())


class TestRefuses:
    def test_another_number_of_keys(self) -> None:
        q, k, spans = call()
        with pytest.raises(LayoutMismatch, match="24 keys, but the layout accounts for 26"):
            attention_marginals(q, k[:, :, :-2], spans)

    def test_no_reference(self) -> None:
        q, k, spans = call(references=())
        with pytest.raises(LayoutMismatch, match="no reference"):
            attention_marginals(q, k, spans)


def two_softmaxes(seed: int) -> tuple[Tensor, Tensor, TokenLayout, Tensor]:
    """20 places; 3 keys of text; 2 + 6 of one adapter, 4 of another; both off somewhere."""
    keys = (
        Span(Role.TEXT, 0, 3),
        Span(Role.TEXT, 3, 5, softmax=1),
        Span(Role.REFERENCE, 5, 11, Grid(2, 3), softmax=1),
        Span(Role.REFERENCE, 11, 15, Grid(1, 4), softmax=2),
    )
    spans = TokenLayout((Span(Role.GENERATED, 0, 20, Grid(4, 5)),), keys)
    weights = rand(seed + 2, 2, 3, 20).abs()
    weights[:, 0] = 1
    weights[:, 1, :7] = 0
    weights[1, 2] = 0
    return rand(seed, 2, 4, 20, 8), rand(seed + 1, 2, 4, 15, 8), spans, weights


@pytest.mark.parametrize("scratch", [1, 1_000, 4_000, 12_000, 2**28])
def test_softmaxes_beside_each_other(scratch: int) -> None:
    """Each is a softmax of its own; shares are of the weighted sum, places count by weight."""
    q, k, spans, weights = two_softmaxes(5)
    found = attention_marginals(q, k, spans, weights=weights, scratch_bytes=scratch)
    logits = q.double() @ k.double().mT * q.shape[-1] ** -0.5
    portions = (weights / weights.sum(1, keepdim=True)).double()
    parts = [logits[..., a:b].softmax(-1) for a, b in ((0, 3), (3, 11), (11, 15))]
    model = torch.cat([part * portions[:, None, i, :, None] for i, part in enumerate(parts)], -1)
    wanted = {"text": model[..., :5].sum(-1), "self": torch.zeros(2, 4, 20)}
    for r, (softmax, own) in enumerate(((1, slice(5, 11)), (2, slice(11, 15)))):
        by = weights[:, None, softmax].double()
        m_g = logits[..., own].softmax(-2).mean(-1) * by
        mean = by.mean(-1, keepdim=True)
        m_r = logits[..., own].softmax(-1) * torch.where(mean > 0, by / mean, 0)[..., None]
        wanted |= {
            f"share {r}": model[..., own].sum(-1),
            f"paper r2g {r}": (m_g / m_g.sum(-1, keepdim=True)).nan_to_num(0),
            f"paper g2r {r}": m_r.mean(-2),
            f"model g2r {r}": model[..., own].mean(-2),
            f"pairs {r}": m_r.mean(1),
            f"model pairs {r}": model[..., own].mean(1),
        }
    assert_right(found, wanted)
    torch.testing.assert_close(found.share.sum(2), torch.ones(2, 4, 20))


def test_even_weights_change_no_map() -> None:
    """The paper's maps do not see how strong an adapter is; the shares do."""
    q, k, spans, weights = two_softmaxes(9)
    one, other = (
        attention_marginals(q, k, spans, weights=torch.ones_like(weights) * strength)
        for strength in (1.0, torch.tensor([1.0, 0.5, 3.0])[:, None])
    )
    torch.testing.assert_close(one.paper_r2g, other.paper_r2g)
    for r in range(2):
        torch.testing.assert_close(one.g2r[r][:, :, 0], other.g2r[r][:, :, 0])
    torch.testing.assert_close(other.share[:, :, 3], torch.full((2, 4, 20), 3 / 4.5))
