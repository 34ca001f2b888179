"""Moving maps between grids against brute force, and what grids and layouts refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from i2am.errors import I2AMError, LayoutMismatch
from i2am.tokens import Grid, Role, Span, TokenLayout, invert_spread, spread
from i2am.tokens.grids import picture_grid

# Parts in 64ths are exact in binary, so the brute force below can divide them evenly.
PARTS = st.integers(1, 64).map(lambda part: part / 64)
CELLS = st.integers(1, 9)
SEEDS = st.integers(0, 10_000)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    h, w = draw(CELLS), draw(CELLS)
    return Grid(h, w, (h - 1 + draw(PARTS), w - 1 + draw(PARTS)))


def maps_of(grid: Grid, *lead: int, seed: int = 0) -> Tensor:
    return torch.rand(*lead, grid.area, generator=torch.Generator().manual_seed(seed))


def areas(grid: Grid) -> Tensor:
    """How much of the picture each cell covers: (area,), which sums to one."""

    def line(cells: int, covered: float) -> Tensor:
        lengths = torch.ones(cells, dtype=torch.float64)
        lengths[-1] = covered - (cells - 1)
        return lengths / covered

    down, across = line(grid.height, grid.covered[0]), line(grid.width, grid.covered[1])
    return (down[:, None] * across).flatten()


class TestGrid:
    def test_covers_itself_when_nothing_is_said(self) -> None:
        assert Grid(3, 5).covered == (3.0, 5.0)
        assert Grid(3, 5).area == 15

    @pytest.mark.parametrize("size", [(0, 3), (3, 0), (-1, 1)])
    def test_needs_a_cell(self, size: tuple[int, int]) -> None:
        with pytest.raises(LayoutMismatch, match="at least one cell"):
            Grid(*size)

    @pytest.mark.parametrize("covered", [(2.0, 5.0), (3.1, 5.0), (3.0, 4.0), (3.0, 5.5), (-1, 5)])
    def test_the_picture_ends_in_the_last_cell(self, covered: tuple[float, float]) -> None:
        with pytest.raises(LayoutMismatch, match="cells of picture"):
            Grid(3, 5, covered)

    def test_errors_are_of_the_family(self) -> None:
        assert issubclass(LayoutMismatch, I2AMError)

    @pytest.mark.parametrize(
        ("height", "width", "grid"),
        [
            (1024, 768, Grid(64, 48)),
            (520, 512, Grid(33, 32, (32.5, 32))),
            (1, 17, Grid(1, 2, (1 / 16, 17 / 16))),
        ],
    )
    def test_picture_grid_pads_to_whole_cells(self, height: int, width: int, grid: Grid) -> None:
        assert picture_grid(height, width, 16) == grid

    def test_at_most_leaves_small_grids_alone(self) -> None:
        grid = Grid(33, 20, (32.5, 20))
        assert grid.shrunk_to(33) is grid

    @pytest.mark.parametrize(
        ("grid", "side", "expected"),
        [
            (Grid(128, 96), 64, Grid(64, 48)),
            (Grid(96, 128), 64, Grid(48, 64)),
            (Grid(130, 1), 64, Grid(64, 1)),
            (Grid(128, 128, (127.5, 128)), 64, Grid(64, 64, (63.75, 64))),
        ],
    )
    def test_at_most_keeps_the_shape(self, grid: Grid, side: int, expected: Grid) -> None:
        assert grid.shrunk_to(side) == expected

    @settings(deadline=None)
    @given(st.integers(1, 300), st.integers(1, 300), PARTS, PARTS, st.integers(1, 64))
    def test_at_most_is_near_the_shape(
        self, h: int, w: int, down: float, across: float, side: int
    ) -> None:
        grid = Grid(h, w, (h - 1 + down, w - 1 + across))
        small = grid.shrunk_to(side)
        assert max(small.height, small.width) == min(side, max(h, w))
        assert abs(small.height - max(1, h * side / max(h, w, side))) <= 0.5
        assert abs(small.width - max(1, w * side / max(h, w, side))) <= 0.5
        assert small.covered[0] / small.height == pytest.approx(grid.covered[0] / h)
        assert small.covered[1] / small.width == pytest.approx(grid.covered[1] / w)


class TestSpread:
    @settings(deadline=None)
    @given(grids(), grids(), SEEDS)
    def test_keeps_sums_and_is_never_negative(self, source: Grid, target: Grid, seed: int) -> None:
        maps = maps_of(source, 2, 3, seed=seed)
        moved = spread(maps, source, target)
        assert moved.shape == (2, 3, target.area)
        assert torch.allclose(moved.sum(-1), maps.sum(-1), rtol=1e-5)
        assert moved.min() >= 0

    @settings(deadline=None)
    @given(grids(), SEEDS)
    def test_same_grid_is_identity(self, grid: Grid, seed: int) -> None:
        maps = maps_of(grid, 2, seed=seed)
        assert torch.equal(spread(maps, grid, grid), maps)

    @settings(deadline=None)
    @given(grids(), grids())
    def test_even_over_the_area_stays_even(self, source: Grid, target: Grid) -> None:
        moved = spread(areas(source), source, target)
        assert torch.allclose(moved, areas(target), atol=1e-12)

    @settings(deadline=None)
    @given(CELLS, CELLS, st.integers(1, 4), st.integers(1, 4), SEEDS)
    def test_finer_cells_add_up_to_what_was(
        self, h: int, w: int, down: int, across: int, seed: int
    ) -> None:
        coarse, fine = Grid(h, w), Grid(h * down, w * across)
        maps = maps_of(coarse, 2, seed=seed)
        moved = spread(maps, coarse, fine)
        added = moved.view(2, h, down, w, across).sum((2, 4)).flatten(1)
        assert torch.allclose(added, maps, rtol=1e-5)
        assert torch.allclose(spread(moved, fine, coarse), maps, rtol=1e-5)

    @given(grids(), st.integers(0, 5), st.integers(0, 5), SEEDS)
    def test_unspread_is_its_inverse(self, grid: Grid, down: int, across: int, seed: int) -> None:
        finer = Grid(grid.height + down, grid.width + across)
        maps = maps_of(grid, 2, seed=seed).double()  # a sliver of a cell magnifies rounding
        back = invert_spread(spread(maps, grid, finer), finer, grid)
        torch.testing.assert_close(back, maps, atol=1e-8, rtol=1e-8)

    def test_nested_grids_with_padding_add_up_to_what_was(self) -> None:
        # 8 pixel and 16 pixel cells of one picture of 40 × 24 pixels.
        fine, coarse = picture_grid(40, 24, 8), picture_grid(40, 24, 16)
        maps = maps_of(coarse)
        there_and_back = spread(spread(maps, coarse, fine), fine, coarse)
        assert torch.allclose(there_and_back, maps, rtol=1e-5)

    def test_a_cell_goes_where_it_lies(self) -> None:
        one = torch.zeros(4)
        one[1] = 1  # the top right quarter
        moved = spread(one, Grid(2, 2), Grid(4, 6)).view(4, 6)
        expected = torch.zeros(4, 6)
        expected[:2, 3:] = 1 / 6
        assert torch.allclose(moved, expected)

    def test_padding_holds_nothing_back(self) -> None:
        # The second row is half padding: its mass lies in the last third of the picture.
        moved = spread(torch.tensor([0.0, 1.0]), Grid(2, 1, (1.5, 1)), Grid(3, 1))
        assert torch.allclose(moved, torch.tensor([0.0, 0.0, 1.0]), atol=1e-7)

    @settings(deadline=None, max_examples=30)
    @given(grids(), grids(), SEEDS)
    def test_equals_counting_samples(self, source: Grid, target: Grid, seed: int) -> None:
        def line(cells: int, covered: float, others: int, other: float) -> NDArray[np.float64]:
            """Each source cell's mass handed out sample by sample: (target, source)."""
            # So many samples that every border, a multiple of 64ths, falls between two.
            samples = math.lcm(round(covered * 64), round(other * 64))
            at = (np.arange(samples) + 0.5) / samples
            counts = np.zeros((others, cells))
            np.add.at(counts, ((at * other).astype(int), (at * covered).astype(int)), 1.0)
            return counts / counts.sum(0)

        down = line(source.height, source.covered[0], target.height, target.covered[0])
        across = line(source.width, source.covered[1], target.width, target.covered[1])
        maps = maps_of(source, seed=seed).double()
        expected = down @ maps.view(source.height, source.width).numpy() @ across.T
        moved = spread(maps, source, target).view(target.height, target.width)
        assert np.abs(moved.numpy() - expected).max() < 1e-9

    @settings(deadline=None)
    @given(grids(), grids(), SEEDS)
    def test_is_linear(self, source: Grid, target: Grid, seed: int) -> None:
        first, second = maps_of(source, 2, seed=seed).double()
        together = spread(0.25 * first + 3 * second, source, target)
        apart = 0.25 * spread(first, source, target) + 3 * spread(second, source, target)
        assert torch.allclose(together, apart)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_keeps_the_type(self, dtype: torch.dtype) -> None:
        moved = spread(torch.ones(6, dtype=dtype), Grid(2, 3), Grid(5, 4))
        assert moved.dtype == dtype


class TestTokenLayout:
    text = Span(Role.TEXT, 0, 3)
    generated = Span(Role.GENERATED, 3, 9, Grid(2, 3))
    first = Span(Role.REFERENCE, 9, 13, Grid(2, 2))
    second = Span(Role.REFERENCE, 13, 14, Grid(1, 1))

    def test_names_its_spans(self) -> None:
        spans = (self.text, self.generated, self.first, self.second)
        layout = TokenLayout(spans, spans)
        assert layout.generated is self.generated
        assert layout.references == (self.first, self.second)
        assert layout.key_count == 14
        assert torch.arange(14)[layout.generated.slice].tolist() == [3, 4, 5, 6, 7, 8]
        assert layout.generated.length == 6

    def test_queries_and_keys_may_differ(self) -> None:
        alone = Span(Role.GENERATED, 0, 6, Grid(2, 3))
        keys = (Span(Role.TEXT, 0, 2), Span(Role.REFERENCE, 2, 6, Grid(2, 2)))
        layout = TokenLayout((alone,), keys)
        assert layout.key_count == 6
        assert layout.references == keys[1:]

    def test_gaps_are_allowed(self) -> None:
        spans = (self.generated, Span(Role.REFERENCE, 20, 24, Grid(2, 2)))
        assert TokenLayout(spans, spans).key_count == 10

    @pytest.mark.parametrize(
        "spans",
        [
            (Span(Role.GENERATED, 0, 6, Grid(2, 3)), Span(Role.REFERENCE, 5, 9, Grid(2, 2))),
            (Span(Role.REFERENCE, 6, 10, Grid(2, 2)), Span(Role.GENERATED, 0, 6, Grid(2, 3))),
            (Span(Role.GENERATED, 6, 0),),
        ],
    )
    def test_refuses_overlaps_and_disorder(self, spans: tuple[Span, ...]) -> None:
        with pytest.raises(LayoutMismatch, match="start before"):
            TokenLayout(spans, spans)

    @pytest.mark.parametrize("stop", [5, 7])
    def test_refuses_grids_of_another_area(self, stop: int) -> None:
        spans = (Span(Role.GENERATED, 0, stop, Grid(2, 3)),)
        with pytest.raises(LayoutMismatch, match=f"{stop} generated tokens do not fill .* 2×3"):
            TokenLayout(spans, spans)

    @pytest.mark.parametrize("count", [0, 2])
    def test_refuses_none_and_two_generated_spans(self, count: int) -> None:
        queries = tuple(Span(Role.GENERATED, n, n + 1, Grid(1, 1)) for n in range(count))
        with pytest.raises(LayoutMismatch, match="generated tokens once"):
            TokenLayout(queries, ())
