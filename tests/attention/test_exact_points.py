"""Rows and columns of named points against dense float64 matrices, and their invariants.

Numbers in test names are those of the method's list of invariants.
"""

from __future__ import annotations

import pytest
import torch
from dense_attention import call, few
from hypothesis import given
from hypothesis import strategies as st
from recordings import GENERATED, REFERENCES, layout, rand, recording
from torch import Tensor

from i2am.attention import (
    ObservedSoftmax,
    PointMarginals,
    SoftmaxSums,
    exact_points,
    point_marginals,
)
from i2am.tokens import RESULT, Grid, PointQuery, Role, Span, TokenLayout

SEEDS = st.integers(0, 10_000)
GRIDS = st.builds(Grid, st.integers(1, 4), st.integers(1, 4))
WHOLE = PointQuery(RESULT, 0, 0, 1, 1)


def point(x: float, y: float, reference: int = RESULT) -> PointQuery:
    return PointQuery(reference, x, y, x, y)


def every(grid: Grid, reference: int = RESULT) -> tuple[PointQuery, ...]:
    """A point in each cell, row by row."""
    return tuple(
        point((column + 0.4) / grid.covered[1], (row + 0.4) / grid.covered[0], reference)
        for row in range(grid.height)
        for column in range(grid.width)
    )


def dense(
    q: Tensor,
    k: Tensor,
    spans: TokenLayout,
    places: tuple[PointQuery, ...],
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
    weights: Tensor | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Rows and columns of each reference from full matrices, token by token."""
    q, k = q.double(), k.double().repeat_interleave(q.shape[1] // k.shape[1], 1)
    logits = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        logits = logits + bias.double()
    logits = logits[:, :, spans.generated.slice]
    rows: list[Tensor] = []
    columns: list[Tensor] = []
    for r, span in enumerate(spans.references):
        own = logits[..., span.slice]
        together = torch.cat(
            [logits[..., s.slice] for s in spans.keys if s.softmax == span.softmax], -1
        )
        m_r, m_g = own.softmax(-1).nan_to_num(0), own.softmax(-2).nan_to_num(0)
        model = (own - together.logsumexp(-1, keepdim=True)).exp().nan_to_num(0)
        if weights is not None:
            own_weight = weights.double()[:, span.softmax, spans.generated.slice]
            part = own_weight / weights.double()[..., spans.generated.slice].sum(1)
            model = model * part[:, None, :, None]
            m_r = m_r * (own_weight / own_weight.mean(-1, keepdim=True))[:, None, :, None]
            m_g = m_g * own_weight[:, None, :, None]
        m_g = (m_g / m_g.sum(-2, keepdim=True)).nan_to_num(0)
        m_r, m_g, model = (matrix.mean(1) for matrix in (m_r, m_g, model))
        result, picture = spans.generated.grid, span.grid
        assert result is not None
        assert picture is not None
        of_result = [p.weights(result).double() for p in places if p.reference == RESULT]
        mine = [p.weights(picture).double() for p in places if p.reference == r]
        if of_result:
            means = torch.stack([one / one.sum() for one in of_result])
            rows.append(torch.stack((means @ m_r, means @ model), 1))
        found = torch.zeros(len(q), 2, 0, result.area).double()
        if mine:
            sums = torch.stack(mine)
            means = sums / sums.sum(1, keepdim=True)
            found = torch.stack((means @ m_g.mT, sums @ model.mT / result.area), 1)
        columns.append(found)
    return rows, columns


def assert_right(
    found: PointMarginals, wanted: tuple[list[Tensor], list[Tensor]], tolerance: float = 1e-5
) -> None:
    ours = [
        (sums / weight).double() for sums, weight in zip(found.sums, found.weights, strict=True)
    ]
    assert len(ours) == len(wanted[0]) + len(wanted[1])
    for one, other in zip(ours, (*wanted[0], *wanted[1]), strict=True):
        assert one.shape == other.shape
        if other.numel():
            assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())


SOME = (
    *(point(0.1, 0.6), point(0.9, 0.1), PointQuery(RESULT, 0.1, 0.2, 0.7, 0.9), WHOLE),
    *(point(0.4, 0.4, 0), PointQuery(0, 0, 0.3, 0.8, 1), point(0.9, 0.9, 1)),
)


class TestAgainstDense:
    @given(SEEDS, GRIDS, GRIDS, st.integers(0, 3), st.sampled_from([None, 0.05, 1.0]))
    @few
    def test_plain(
        self, seed: int, result: Grid, reference: Grid, text: int, scale: float | None
    ) -> None:
        q, k, spans = call(seed, generated=result, references=(reference, Grid(2, 2)), text=text)
        assert_right(
            point_marginals(q, k, spans, SOME, scale=scale), dense(q, k, spans, SOME, scale=scale)
        )

    @pytest.mark.parametrize("heads", [1, 3, 4])
    @pytest.mark.parametrize("cache", [1, 200, 4_000])
    def test_tiles_do_not_show(
        self, cache: int, heads: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A few logits at once, or all; one head, as on a CPU, or several, as on a device."""
        monkeypatch.setattr(exact_points, "CACHE_BYTES", cache)
        slices = [slice(first, min(first + heads, 4)) for first in range(0, 4, heads)]
        monkeypatch.setattr(exact_points._Call, "head_groups", lambda _: iter(slices))
        q, k, spans = call()
        assert_right(point_marginals(q, k, spans, SOME), dense(q, k, spans, SOME))

    def test_shared_key_heads(self) -> None:
        q, k, spans = call()
        assert_right(point_marginals(q, k[:, :2], spans, SOME), dense(q, k[:, :2], spans, SOME))

    @pytest.mark.parametrize("shape", ["(n,n)", "(b,n,n)", "(b,1,n)", "(b,h,n,n)", "(1,1,1,n)"])
    @pytest.mark.parametrize("kind", ["bool", "additive", "half"])
    def test_masks(self, shape: str, kind: str) -> None:
        """Every shape and kind a host may give, with a reference token hidden altogether."""
        q, k, spans = call()
        sizes = {"n": spans.key_count, "b": 2, "h": 4, "1": 1}
        size = [sizes[name] for name in shape.strip("()").split(",")]
        keep = torch.rand(size, generator=torch.Generator().manual_seed(5)) > 0.3
        keep[..., 2:14] = True  # nothing hides a picture from itself
        keep[..., 17] = False  # a token of a rectangle asked about that no query may see
        bias = torch.zeros(size).masked_fill(~keep, -torch.inf)
        if kind != "bool":
            bias = bias + rand(6, *size)
        if kind == "half":
            bias = bias.half()
        whole = bias.unsqueeze(1) if bias.ndim == 3 else bias
        assert_right(
            point_marginals(q, k, spans, SOME, mask=keep if kind == "bool" else bias),
            dense(q, k, spans, SOME, bias=whole),
            1e-4,
        )

    @pytest.mark.parametrize("masked", [False, True])
    def test_what_was_tapped_is_not_computed_again(
        self, masked: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The model's columns take the log-sum-exps of the tapped softmax."""
        q, k, spans = call()
        bias = rand(3, spans.key_count, spans.key_count) if masked else None
        logits = q @ k.mT * q.shape[-1] ** -0.5
        logits = logits if bias is None else logits + bias
        observed = SoftmaxSums(spans, correspondence=False)
        observed.add(ObservedSoftmax(logits, logits.softmax(-1)))
        monkeypatch.setattr(exact_points._Call, "row_log_sum", lambda *_: 1 / 0)
        assert_right(
            point_marginals(q, k, spans, SOME, mask=bias, observed=observed),
            dense(q, k, spans, SOME, bias=bias),
        )

    @given(SEEDS)
    @few
    def test_in_the_layouts_order(self, seed: int) -> None:
        """Where the tokens of a picture do not stand together, with a mask."""
        q, k, spans = call(seed)
        count = spans.key_count
        mask = rand(seed + 2, count, count)
        mixed = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        places = mixed.argsort()
        ordered = TokenLayout(spans.queries, spans.keys, *[tuple(places.tolist())] * 2)
        assert_right(
            point_marginals(
                q[:, :, mixed], k[:, :, mixed], ordered, SOME, mask=mask[mixed][:, mixed]
            ),
            dense(q, k, spans, SOME, bias=mask),
        )

    @given(SEEDS)
    @few
    def test_several_softmaxes(self, seed: int) -> None:
        """Adapters beside the text, whose weight differs from place to place and may be none."""
        first = Span(Role.REFERENCE, 2, 8, REFERENCES[0], 1)
        second = Span(Role.REFERENCE, 8, 14, REFERENCES[1], 2)
        spans = TokenLayout(
            (Span(Role.GENERATED, 0, 12, GENERATED),),
            (Span(Role.TEXT, 0, 2), first, second, Span(Role.TEXT, 14, 15, None, 2)),
        )
        q, k = rand(seed, 2, 3, 12, 8), rand(seed + 1, 2, 3, 15, 8)
        weights = rand(seed + 2, 2, 3, 12).clamp(min=0)
        weights[:, 0] = 1
        weights[:, :, 3] += 0.1
        assert_right(
            point_marginals(q, k, spans, SOME, weights=weights),
            dense(q, k, spans, SOME, weights=weights),
        )

    @given(SEEDS)
    @few
    def test_video(self, seed: int) -> None:
        """A place is in all frames: rows are their mean, the model's columns their sum."""
        grids = Grid(2, 3, frames=3), Grid(3, 2, frames=2)
        q, k, spans = call(seed, generated=grids[0], references=(grids[1], Grid(1, 2)))
        assert_right(point_marginals(q, k, spans, SOME), dense(q, k, spans, SOME))


class TestInvariants:
    @given(SEEDS, GRIDS, GRIDS)
    @few
    def test_1_2_sums(self, seed: int, result: Grid, reference: Grid) -> None:
        """The paper's rows and columns sum to one, and nothing is below zero."""
        q, k, spans = call(seed, generated=result, references=(reference,))
        asked = (*every(result), *every(reference, 0))
        found = point_marginals(q, k, spans, asked)
        for sums in found.sums:
            assert float(sums.min()) >= 0
            torch.testing.assert_close(sums[:, 0].sum(-1), torch.ones(sums[:, 0].shape[:2]))
            assert float(sums[:, 1].sum(-1).max()) <= 1 + 1e-5

    @given(SEEDS)
    @few
    def test_5_duality(self, seed: int) -> None:
        """Rows of a call are the columns of the one whose sides are exchanged."""
        a, b = Grid(2, 3), Grid(3, 2)
        q, k = rand(seed, 2, 3, 6, 8), rand(seed + 1, 2, 3, 6, 8)

        def spans(result: Grid, reference: Grid) -> TokenLayout:
            keys = (Span(Role.REFERENCE, 0, 6, reference),)
            return TokenLayout((Span(Role.GENERATED, 0, 6, result),), keys)

        there = point_marginals(q, k, spans(a, b), every(a))
        back = point_marginals(k, q, spans(b, a), every(a, 0))
        torch.testing.assert_close(there.rows[0][:, 0], back.columns[0][:, 0])

    @given(SEEDS)
    @few
    def test_11_other_tokens(self, seed: int) -> None:
        """The paper's rows and columns do not depend on the text; nor on other rows."""
        q, k, spans = call(seed, text=3, references=(REFERENCES[0],))
        asked = (*every(GENERATED), *every(REFERENCES[0], 0))
        found = point_marginals(q, k, spans, asked)
        fewer = layout(references=(REFERENCES[0],), text=0)
        without = point_marginals(q[:, :, 3:], k[:, :, 3:], fewer, asked)
        for one, other in zip(found.sums, without.sums, strict=True):
            torch.testing.assert_close(one[:, 0], other[:, 0])

    def test_12_all_places_together_are_the_layers_maps(self) -> None:
        """Mean of all rows, and of all columns, of each layer and step: its G2R and R2G map; the
        whole picture asked about at once gives the same; the model's columns add up to its R2G."""
        whole = "0,0-1,1"
        texts = [
            "; ".join(place.name for place in every(grid)) for grid in (GENERATED, REFERENCES[0])
        ]
        made = recording(places=f"{texts[0]}; {whole}", reference_places=f"{texts[1]}; {whole}")
        for definition in ("paper", "model"):
            rows = made.arrays[f"point.{definition}.g2r.0"]
            maps = made.arrays[f"{definition}.g2r.0.step_layer"]
            torch.testing.assert_close(rows[:, :, :, :12].mean(3), maps)
            torch.testing.assert_close(rows[:, :, :, 12], maps)
            columns = made.arrays[f"point.{definition}.r2g.0"]
            over_result = made.arrays[f"{definition}.r2g.0.step_layer"]
            together = columns[:, :, :, :6]
            together = together.mean(3) if definition == "paper" else together.sum(3)
            torch.testing.assert_close(together, over_result)
            torch.testing.assert_close(columns[:, :, :, 6], over_result)

    @given(SEEDS)
    @few
    def test_14_a_perfect_match(self, seed: int) -> None:
        """Orthonormal keys and queries that point at one each: a row and a column are one-hot."""
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        k = torch.linalg.qr(rand(seed, 6, 8).mT)[0].mT[None, None]
        grid, other = Grid(2, 3), Grid(3, 2)
        spans = TokenLayout(
            (Span(Role.GENERATED, 0, 6, grid),), (Span(Role.REFERENCE, 0, 6, other),)
        )
        found = point_marginals(300 * k[:, :, order], k, spans, (*every(grid), *every(other, 0)))
        hot = torch.eye(6)[order]
        torch.testing.assert_close(found.rows[0][0, 0], hot)
        torch.testing.assert_close(found.columns[0][0, 0], hot.mT)

    @given(SEEDS)
    @few
    def test_18_batches(self, seed: int) -> None:
        """Each item of a batch is what it is alone."""
        q, k, spans = call(seed, batch=3)
        found = point_marginals(q, k, spans, SOME)
        for item in range(3):
            alone = point_marginals(q[item : item + 1], k[item : item + 1], spans, SOME)
            for one, other in zip(found.sums, alone.sums, strict=True):
                torch.testing.assert_close(one[item : item + 1], other)
