"""Points and rectangles named before sampling: their notation, and the tokens they cover."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from i2am.errors import I2AMError
from i2am.tokens import (
    RESULT,
    Grid,
    PointQuery,
    Rectangle,
    check_point_count,
    parse_point_queries,
)

GRIDS = st.builds(Grid, st.integers(1, 4), st.integers(1, 4))
PART = st.floats(0, 1)


def point(x: float, y: float, reference: int = RESULT) -> PointQuery:
    return PointQuery(reference, x, y, x, y)


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
        many = tuple(point(number / 16, 0.5) for number in range(17))
        check_point_count(many[:16])
        with pytest.raises(I2AMError, match="17 points are named, but at most 16"):
            check_point_count(many)


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
        assert PointQuery(RESULT, 0, 0, 1, 1).weights(grid, part).tolist() == [1, 1, 1, 1]
        assert PointQuery(RESULT, 0, 0, 0.125, 1).weights(grid, part).tolist() == [0.5, 0, 0.5, 0]
