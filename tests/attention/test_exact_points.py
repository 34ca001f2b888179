"""Places named before sampling: texts, tokens, rows and columns against dense float64 matrices.

Numbers in test names are those of the method's list of invariants.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
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
from i2am.display import recording_report
from i2am.errors import I2AMError
from i2am.maps import (
    AttributionMap,
    Location,
    Selection,
    attribution_map,
    check_pooled,
    correspondence_of,
    exact_point_map,
    point_map,
    recorded_places,
    recorded_point,
    without_sinks,
)
from i2am.recording import Definition, Direction, point_sums, recorder
from i2am.tokens import (
    RESULT,
    Grid,
    PointQuery,
    Rectangle,
    Role,
    Span,
    TokenLayout,
    check_point_count,
    parse_point_queries,
)

R2G, G2R = Direction.REFERENCE_TO_GENERATED, Direction.GENERATED_TO_REFERENCE
PAPER, MODEL = Definition.PAPER, Definition.MODEL
SEEDS = st.integers(0, 10_000)
GRIDS = st.builds(Grid, st.integers(1, 4), st.integers(1, 4))
PART = st.floats(0, 1)
few = settings(max_examples=25, deadline=None)
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


ALL = (*every(GENERATED), *every(REFERENCES[0], 0), *every(REFERENCES[1], 1))


class TestText:
    def test_points_and_rectangles(self) -> None:
        found = parse_point_queries(" 0.5,0.4;.25 , 1. ;; 0,0.1-0.3,0.25 ", "points")
        assert found == (
            point(0.5, 0.4),
            point(0.25, 1),
            PointQuery(RESULT, 0, 0.1, 0.3, 0.25),
        )
        assert [place.name for place in found] == ["0.5,0.4", "0.25,1", "0,0.1-0.3,0.25"]

    def test_references(self) -> None:
        found = parse_point_queries(
            "0.5,0.4; 2: 0.1,0.2; 12:0,0-1,1", "reference_points", numbered=True
        )
        assert [place.reference for place in found] == [0, 1, 11]

    @given(st.lists(st.tuples(PART, PART), max_size=5))
    def test_what_is_written_is_read(self, pairs: list[tuple[float, float]]) -> None:
        pairs = [(round(x, 4), round(y, 4)) for x, y in pairs]
        text = ";".join(f"{x:.4f},{y:.4f}" for x, y in pairs)
        assert parse_point_queries(text, "points") == tuple(point(x, y) for x, y in pairs)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("0.5", "points cannot be read: found “0.5”"),
            ("0.5,0.4,0.3", "found “0.5,0.4,0.3”. Write x,y from 0 to 1"),
            ("left", "found “left”"),
            ("-0.1,0.2", "found “-0.1,0.2”"),
            ("nan,0.2", "found “nan,0.2”"),
            ("1e-1,0.2", "found “1e-1,0.2”"),
            ("2: 0.5,0.4", "found “2: 0.5,0.4”"),
            ("0.1,0.1; 320,240", "“320,240”, which is outside the picture"),
            ("0.5,0.5-0.2,0.9", "which is outside the picture"),
            ("0.5,0.5-0.5,0.9", "an empty rectangle"),
        ],
    )
    def test_errors(self, text: str, words: str) -> None:
        with pytest.raises(I2AMError) as error:
            parse_point_queries(text, "points")
        assert words in str(error.value)

    def test_references_count_from_one(self) -> None:
        with pytest.raises(I2AMError, match="references are counted from 1"):
            parse_point_queries("0: 0.5,0.5", "reference_points", numbered=True)

    def test_too_many(self) -> None:
        check_point_count(ALL[:16])
        with pytest.raises(I2AMError, match="17 points are named, but at most 16"):
            check_point_count(ALL[:17])


class TestTokens:
    @given(PART, PART, GRIDS, st.integers(1, 3))
    def test_a_point_is_one_token_in_every_frame(
        self, x: float, y: float, grid: Grid, frames: int
    ) -> None:
        found = point(x, y).weights(replace(grid, frames=frames)).reshape(frames, -1)
        cell = min(int(y * grid.height), grid.height - 1) * grid.width
        wanted = torch.zeros(grid.area)
        wanted[cell + min(int(x * grid.width), grid.width - 1)] = 1
        assert torch.equal(found, wanted.expand(frames, -1))

    @given(PART, PART, PART, PART, GRIDS)
    def test_a_rectangle_covers_its_area(
        self, left: float, right: float, top: float, bottom: float, grid: Grid
    ) -> None:
        place = PointQuery(RESULT, min(left, right), min(top, bottom), max(left, right), 1.0)
        found = place.weights(grid)
        wanted = (place.right - place.left) * (place.bottom - place.top)
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        if not place.is_point:
            assert float(found.mean()) == pytest.approx(wanted, abs=1e-6)

    def test_cells_that_stick_out(self) -> None:
        """Two rows cover one and a half cells of picture: its lower third is half a cell."""
        grid = Grid(2, 1, (1.5, 1.0))
        assert PointQuery(0, 0, 2 / 3, 1, 1).weights(grid).tolist() == [0, 1]
        assert PointQuery(0, 0, 1 / 3, 1, 1).weights(grid).tolist() == [0.5, 1]
        assert point(0.5, 0.6, 0).weights(grid).tolist() == [1, 0]

    def test_it_does_not_touch_where_it_ends(self) -> None:
        found = PointQuery(RESULT, 0.2, 0.4, 0.6, 0.8).weights(Grid(5, 5)).reshape(5, 5)
        assert found.nonzero().tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]

    def test_of_a_part_of_the_picture(self) -> None:
        part, grid = Rectangle(0.5, 0.0, 0.5, 0.5), Grid(2, 2)
        assert not point(0.6, 0.6).weights(grid, part).any()
        assert point(0.3, 0.8).weights(grid, part).tolist() == [0, 0, 0, 1]
        assert WHOLE.weights(grid, part).tolist() == [1, 1, 1, 1]
        assert PointQuery(RESULT, 0, 0, 0.125, 1).weights(grid, part).tolist() == [0.5, 0, 0.5, 0]


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


def call(seed: int = 0, batch: int = 2, heads: int = 4, dim: int = 8, **options: Any) -> Any:
    """Random queries and keys, and their layout."""
    spans = layout(**options)
    shape = (batch, heads, spans.key_count, dim)
    return rand(seed, *shape), rand(seed + 1, *shape), spans


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
    def test_what_was_heard_is_not_computed_again(
        self, masked: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The model's columns take what its own rows were divided by."""
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


def exact(
    made: recorder.Recording, direction: Direction, number: int, **selection: Any
) -> AttributionMap:
    return exact_point_map(made, PAPER, direction, 0, number, Selection(**selection))


class TestRecording:
    def test_nothing_asked_costs_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("i2am.recording.call.point_marginals", lambda *_, **__: 1 / 0)
        made = recording()
        assert not [name for name in made.arrays if name.startswith("point")]
        assert (made.header.token_grids, made.header.step_groups) == ((), ())

    def test_layers_of_other_grids(self) -> None:
        """Rows are as they are; columns are spread over the finest grid, sums kept."""
        grids = Grid(2, 3), Grid(4, 6)
        made = recording(
            heads=(2, 3), generated=grids, places="0.3,0.6", reference_places="0.9,0.1"
        )
        assert made.header.token_grids == (grids[1], *REFERENCES)
        columns = made.arrays["point.paper.r2g.0"]
        assert columns.shape == (2, 4, 2, 1, 4, 6)
        torch.testing.assert_close(columns.sum((-1, -2)), torch.ones(2, 4, 2, 1))
        coarse = columns[:, :, 0]
        assert torch.equal(coarse[..., ::2, ::2], coarse[..., 1::2, 1::2])

    def test_missing_steps_weigh_on_no_mean(self) -> None:
        made = recording(missing=((1, 2), (3, 2)), places="0.3,0.6")
        kept = made.arrays["point.paper.g2r.0"]
        assert not kept[:, [1, 3], 2].any()
        found = exact(made, G2R, 0, layers="2").values
        torch.testing.assert_close(found[:, 0], kept[:, [0, 2], 2, 0].mean(1))

    @pytest.mark.parametrize("groups", [4, 2, 1])
    @pytest.mark.parametrize("generated", [(GENERATED,) * 3, (Grid(2, 1), Grid(4, 3), Grid(4, 2))])
    def test_steps_are_put_together_where_room_is_short(
        self, generated: tuple[Grid, ...], groups: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And their means are the means of the steps they hold, whatever the layers' grids."""
        asked: dict[str, Any] = {"places": "0.3,0.6; 0,0-1,1", "reference_places": "2: 0.4,0.9"}
        asked["generated"] = generated
        apart = recording(**asked)
        whole = sum(4 * a.numel() for name, a in apart.arrays.items() if name.startswith("point"))
        monkeypatch.setattr(point_sums, "POINT_BYTES", whole * groups // 4)
        made = recording(**asked)
        each = 4 // groups
        assert made.header.step_groups == tuple(step // each for step in range(4))
        for name, kept in apart.arrays.items():
            if name.startswith("point"):
                means = kept.unflatten(1, (groups, each)).mean(2)
                torch.testing.assert_close(made.arrays[name], means)
        unified = exact(made, G2R, 1).values
        torch.testing.assert_close(unified, attribution_map(made, PAPER, G2R).values)
        if groups == 2:
            part = exact(made, G2R, 0, steps="2-3").values
            torch.testing.assert_close(part, exact(apart, G2R, 0, steps="2-3").values)
            with pytest.raises(I2AMError, match="Choose whole groups: 0-1, 2-3"):
                exact(made, G2R, 0, steps="1-3")

    def test_all_steps_of_a_fast_budget_are_whole(self) -> None:
        """Places that a budget leaves out of the maps are not left out of what was asked."""
        big = Grid(32, 33)
        asked: dict[str, Any] = {"places": "0.52,0.49", "reference_places": "0.2,0.1"}
        options: dict[str, Any] = {"generated": big, "heads": (2,), "steps": 1, "batch": 1}
        exactly, fast = (recording(budget=b, **options, **asked) for b in ("exact", "fast"))
        for name, kept in exactly.arrays.items():
            if name.startswith("point"):
                assert torch.equal(fast.arrays[name], kept)
        assert fast.header.token_grids[0] == big

    def test_without_correspondence(self) -> None:
        made = recording(correspondence=False, places="0.3,0.6")
        assert exact(made, G2R, 0).values.shape == (2, 1, 2, 3)

    def test_a_reference_that_is_not_there(self) -> None:
        made = recording(references=(REFERENCES[0],), reference_places="0.5,0.5; 3: 0.5,0.5")
        assert set(made.arrays) >= {"point.paper.r2g.0"}
        assert "point.paper.r2g.2" not in made.arrays
        text = recording_report(made)
        assert "reference 1: 0.5,0.5" in text
        assert "reference 3: 0.5,0.5 not recorded: the model was not given this reference" in text


class TestReading:
    MADE = recording(places="0.1,0.1; 0.9,0.6; 0,0-0.5,0.5", reference_places="0.2,0.2; 2: 0.7,0.3")

    def test_a_range_is_the_mean_of_its_layers_and_steps(self) -> None:
        kept = self.MADE.arrays["point.paper.g2r.0"]
        found = exact(self.MADE, G2R, 1, layers="0,2", steps="1-2")
        wanted = kept[:, 1:3][:, :, [0, 2], 1].mean((1, 2))
        torch.testing.assert_close(found.values[:, 0], wanted)
        assert found.notes == ("from 0.9,0.6 of the result, exact", "steps 1-2", "layers 0,2")
        assert found.grid == REFERENCES[0]

    def test_where_nothing_is_pooled_both_ways_agree(self) -> None:
        """The correspondence's row of the same place, and the model's column."""
        for definition in Definition:
            pairs = correspondence_of(self.MADE, definition, 0)
            pooled = point_map(pairs, definition, G2R, Location(0.9, 0.6))
            found = exact_point_map(self.MADE, definition, G2R, 0, 1, Selection())
            torch.testing.assert_close(found.values, pooled.values)
        pooled = point_map(correspondence_of(self.MADE, MODEL, 1), MODEL, R2G, Location(0.7, 0.3))
        found = exact_point_map(self.MADE, MODEL, R2G, 1, 0, Selection())
        torch.testing.assert_close(found.values, pooled.values)
        assert found.notes == ("to 0.7,0.3 of the reference, exact",)

    def test_a_video_gives_its_mean_frame(self) -> None:
        grid = Grid(2, 3, frames=2)
        made = recording(generated=grid, places="0,0-1,1", reference_places="0,0-1,1")
        for definition in Definition:
            found = exact_point_map(made, definition, R2G, 0, 0, Selection())
            assert found.grid == grid.one_frame
            whole = attribution_map(made, definition, R2G).values
            torch.testing.assert_close(found.values, whole)

    def test_places_are_found_by_their_token(self) -> None:
        header = self.MADE.header  # the result has 4×3 tokens, reference 2 3×2 of which 2.5×2 show
        assert len(recorded_places(header, RESULT)) == 3
        assert recorded_point(header, RESULT, 0.33, 0.24) == 0
        assert recorded_point(header, RESULT, 0.34, 0.24) is None  # in the rectangle alone
        assert recorded_point(header, RESULT, 1.0, 0.51) == 1
        assert recorded_point(header, 1, 0.51, 0.39) == 0
        assert recorded_point(header, 1, 0.51, 0.41) is None
        assert recorded_point(recording().header, RESULT, 0.1, 0.1) is None

    def test_the_correspondence_cannot_tell_of_ranges(self) -> None:
        header = self.MADE.header
        check_pooled(header, Selection(layers="0-2", steps="0-3"), Location(0.5, 0.5))
        for selection in (Selection(layers="1"), Selection(steps="0-2")):
            with pytest.raises(I2AMError, match=r"of 0\.50, 0\.50 there is only the mean of all"):
                check_pooled(header, selection, Location(0.5, 0.5))

    def test_sinks_are_taken_out(self) -> None:
        found = without_sinks(exact(self.MADE, G2R, 0), correspondence_of(self.MADE, PAPER, 0))
        assert "no sinks found" in found.notes

    def test_the_report_says_what_was_asked(self) -> None:
        text = recording_report(self.MADE)
        assert "Exact points, each step on its own, " in text
        assert "  result: 0.1,0.1; 0.9,0.6; 0,0-0.5,0.5\n  reference 1: 0.2,0.2\n" in text
        assert "Exact points" not in recording_report(recording())
