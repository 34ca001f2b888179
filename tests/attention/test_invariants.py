"""The invariants of the method, on the sums of one attention call.

Numbers in test names are those of the method's list of invariants.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from dense_attention import block, call, few
from hypothesis import given
from hypothesis import strategies as st
from recordings import rand
from torch import Tensor

from i2am.attention import attention_marginals
from i2am.tokens import Grid, Role, Span, TokenLayout

pytestmark = pytest.mark.usefixtures("both_ways")

SEEDS = st.integers(0, 10_000)
GRIDS = st.builds(Grid, st.integers(1, 4), st.integers(1, 4))


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
    attention = block(q, k).correspondence[0][0, 0]
    close(attention.mean(-1), torch.full((len(q),), 1 / len(k)))


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
    """Every query attends to one token of its own: rows are that token, and both maps are even."""
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
