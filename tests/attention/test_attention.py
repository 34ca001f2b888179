"""One attention call's sums against dense float64 matrices, and the invariants of the method.

Numbers in test names are those of the method's list of invariants.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from dense_attention import assert_right, block, call, dense, few, named
from hypothesis import given
from hypothesis import strategies as st
from recordings import rand
from torch import Tensor

import i2am.attention.dense
from i2am.attention import attention_marginals
from i2am.errors import LayoutMismatch
from i2am.tokens import Grid, Role, Span, TokenLayout


@pytest.fixture(scope="module", autouse=True, params=["at once", "in blocks"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small calls are made at once unless they are kept from it."""
    with pytest.MonkeyPatch.context() as patched:
        if request.param == "in blocks":
            patched.setattr(i2am.attention.dense, "SMALL_BYTES", 0)
        yield


SEEDS = st.integers(0, 10_000)
GRIDS = st.builds(Grid, st.integers(1, 4), st.integers(1, 4))


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
        """A reference token nobody looks at has a column of M_g that counts like any other."""
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
        """Rows and columns lifted or lowered by up to e^±reach: none of them gets lost."""
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


def r2g(q: Tensor, k: Tensor) -> Tensor:
    return block(q, k).paper_r2g[0, 0, 0]


def g2r(q: Tensor, k: Tensor) -> Tensor:
    return block(q, k).g2r[0][0, 0, 0]


SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9), SEEDS)


def pair(sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    generated, reference, seed = sizes
    return rand(seed, generated, 6), rand(seed + 1, reference, 6)


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@few
@given(SIZES)
def test_invariants_1_and_2_sums(sizes: tuple[int, int, int]) -> None:
    q, k = pair(sizes)
    for maps in (r2g(q, k), g2r(q, k)):
        assert bool((maps >= 0).all())
        close(maps.sum(), torch.tensor(1.0))


@few
@given(SIZES)
def test_invariant_4_permutation(sizes: tuple[int, int, int]) -> None:
    """A side's order changes its own map's order, and nothing on the other side."""
    q, k = pair(sizes)
    order = torch.randperm(len(k), generator=torch.Generator().manual_seed(sizes[2]))
    close(r2g(q, k[order]), r2g(q, k))
    close(g2r(q, k[order]), g2r(q, k)[order])
    order = torch.randperm(len(q), generator=torch.Generator().manual_seed(sizes[2]))
    close(r2g(q[order], k), r2g(q, k)[order])
    close(g2r(q[order], k), g2r(q, k))


@few
@given(SIZES, st.integers(2, 4))
def test_invariant_18_a_batch_permuted(sizes: tuple[int, int, int], batch: int) -> None:
    """Batch items do not meet: in another order, the same results in that order."""
    generated, reference, seed = sizes
    q, k = rand(seed, batch, 1, generated, 6), rand(seed + 1, batch, 1, reference, 6)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    spans = TokenLayout(
        (Span(Role.GENERATED, 0, generated),), (Span(Role.REFERENCE, 0, reference),)
    )
    there, back = (attention_marginals(q[o], k[o], spans) for o in (torch.arange(batch), order))
    close(back.paper_r2g, there.paper_r2g[order])
    close(back.g2r[0], there.g2r[0][order])
    close(back.share, there.share[order])


@few
@given(SIZES)
def test_invariant_5_duality(sizes: tuple[int, int, int]) -> None:
    """One direction is the other with queries and keys exchanged."""
    q, k = pair(sizes)
    close(r2g(q, k), g2r(k, q))


@few
@given(SIZES)
def test_invariants_6_and_7_shifts(sizes: tuple[int, int, int]) -> None:
    """What shifts all logits of a column leaves R2G alone; of a row, G2R."""
    q, k = pair(sizes)
    u = rand(sizes[2] + 2, 6)
    close(r2g(q + u, k), r2g(q, k))
    close(g2r(q, k + u), g2r(q, k))
    spans = TokenLayout((Span(Role.GENERATED, 0, len(q)),), (Span(Role.REFERENCE, 0, len(k)),))
    per_row, per_column = rand(sizes[2] + 3, len(q), 1), rand(sizes[2] + 4, 1, len(k))
    shifted = [
        attention_marginals(q[None, None], k[None, None], spans, mask=mask.expand(len(q), len(k)))
        for mask in (per_row, per_column)
    ]
    close(shifted[0].g2r[0][0, 0, 0], g2r(q, k))
    close(shifted[1].paper_r2g[0, 0, 0], r2g(q, k))


@few
@given(SIZES)
def test_invariant_8_constant_and_single(sizes: tuple[int, int, int]) -> None:
    """Constant logits give even maps; one reference token gives a plain softmax over the result."""
    q, k = pair(sizes)
    even = torch.zeros_like(q)
    close(r2g(even, k), torch.full((len(q),), 1 / len(q)))
    close(g2r(even, k), torch.full((len(k),), 1 / len(k)))
    close(g2r(q, k[:1]), torch.ones(1))
    close(r2g(q, k[:1]), (q @ k[0] / 6**0.5).softmax(0))


@few
@given(SIZES)
def test_invariant_9_the_daam_reduction_is_constant(sizes: tuple[int, int, int]) -> None:
    """A softmax over the reference, averaged over the reference, says nothing: 1/N everywhere."""
    q, k = pair(sizes)
    looks = block(q, k).correspondence[0][0, 0]
    close(looks.mean(-1), torch.full((len(q),), 1 / len(k)))


@few
@given(SIZES)
def test_invariant_10_cross_identity(sizes: tuple[int, int, int]) -> None:
    """M_g = M_r · exp(LSE over r − LSE over g), so the maps follow from one another's logits."""
    q, k = pair(sizes)
    logits = q @ k.T / 6**0.5
    m_r = logits.softmax(1)
    factor = (logits.logsumexp(1, keepdim=True) - logits.logsumexp(0, keepdim=True)).exp()
    close(r2g(q, k), (m_r * factor).mean(1))


@few
@given(SIZES, st.integers(1, 5))
def test_invariant_11_others(sizes: tuple[int, int, int], more: int) -> None:
    """Text keys change no paper map; other queries change no G2R."""
    q, k = pair(sizes)
    text = rand(sizes[2] + 5, more, 6)
    rows = (Span(Role.TEXT, 0, more), Span(Role.GENERATED, more, more + len(q)))
    columns = (Span(Role.TEXT, 0, more), Span(Role.REFERENCE, more, more + len(k)))
    both = [torch.cat((text, x))[None, None] for x in (q, k)]
    found = attention_marginals(both[0], both[1], TokenLayout(rows, columns))
    close(found.paper_r2g[0, 0, 0], r2g(q, k))
    close(found.g2r[0][0, 0, 0], g2r(q, k))


@few
@given(GRIDS, GRIDS, SEEDS)
def test_invariant_12_rows(generated: Grid, reference: Grid, seed: int) -> None:
    """A place's own row sums to one, is its own affair, and the mean of all rows is G2R."""
    q, k = rand(seed, generated.area, 6), rand(seed + 1, reference.area, 6)
    rows = block(q, k, generated, reference).correspondence[0][0, 0]
    assert bool((rows >= 0).all())
    close(rows.sum(1), torch.ones(generated.area))
    close(rows.mean(0), g2r(q, k))
    other = q.clone()
    other[1:] += 1
    close(block(other, k, generated, reference).correspondence[0][0, 0, 0], rows[0])


@few
@given(SIZES)
def test_invariant_13_duplicates(sizes: tuple[int, int, int]) -> None:
    """A reference token given twice: its G2R is 2e/(2e + rest), R2G is weighted anew."""
    q, k = pair(sizes)
    twice = torch.cat((k, k[:1]))
    e = (q @ k.T / 6**0.5).double().exp()
    wanted = 2 * e[:, 0] / (e.sum(1) + e[:, 0])
    doubled = g2r(q, twice)
    close(doubled[0] + doubled[-1], wanted.mean().float())
    column = (q @ k[0] / 6**0.5).softmax(0)
    close(r2g(q, twice), (r2g(q, k) * len(k) + column) / (len(k) + 1))


@few
@given(st.integers(2, 8), SEEDS)
def test_invariant_14_perfect_match(side: int, seed: int) -> None:
    """Every place looks at one token of its own: rows are that token, and both maps are even."""
    order = torch.randperm(side, generator=torch.Generator().manual_seed(seed))
    k = torch.eye(side)
    q = 200 * k[order]
    grid = Grid(1, side)
    rows = block(q, k, grid, grid).correspondence[0][0, 0]
    close(rows, torch.eye(side)[order])
    even = torch.full((side,), 1 / side)
    close(r2g(q, k), even)
    close(g2r(q, k), even)


@few
@given(GRIDS, GRIDS, SEEDS, st.booleans())
def test_shares_account_for_everything(one: Grid, other: Grid, seed: int, text: bool) -> None:
    """Text, self and references share out all attention, and the model's G2R holds its share."""
    q, k, spans = call(seed, 1, 2, generated=one, references=(other, one), text=2 * text)
    found = attention_marginals(q, k, spans)
    close(found.share.sum(2), torch.ones(1, 2, one.area))
    for r, pairs in itertools.product((0, 1), (found.correspondence,)):
        share = found.share[:, :, 2 + r]
        close(found.g2r[r][:, :, 1].sum(-1), share.mean(-1))
        close(pairs[r][:, 1].sum(-1), share.mean(1))


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
