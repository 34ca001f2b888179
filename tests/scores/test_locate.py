"""The paper's box: invariant 22 of the method; and pieces, against a second implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from unified_maps import unified

from i2am.scores import Box, box_around, locate_object
from i2am.scores.locate import pieces

SEEDS = st.integers(0, 10_000)
SIZE = (80, 512)  # the size the recipe works at


def filled(box: Box, size: tuple[int, int] = SIZE) -> Tensor:
    return box.mask(size)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """At least the morphology's five pixels a side, and at most 35 % of the picture."""
    width, height = draw(st.integers(5, 30)), draw(st.integers(5, 20))
    return Box(draw(st.integers(0, 50 - width)), draw(st.integers(0, 40 - height)), width, height)


class TestLocate:
    @given(boxes())
    def test_a_filled_rectangle_is_found_two_pixels_larger(self, box: Box) -> None:
        (found,) = locate_object(unified(filled(box) + 0.1), SIZE)
        left, top = max(box.x - 2, 0), max(box.y - 2, 0)
        right, bottom = min(box.x + box.width + 2, 512), min(box.y + box.height + 2, 80)
        assert found == Box(left, top, right - left, bottom - top)

    def test_without_morphology_it_is_exact(self) -> None:
        box = Box(11, 7, 9, 14)
        assert locate_object(unified(filled(box)), SIZE, kernel=1) == (box,)

    def test_the_piece_that_holds_most_wins(self) -> None:
        values = filled(Box(2, 2, 8, 8)) + filled(Box(30, 20, 12, 12)) + filled(Box(20, 2, 6, 6))
        (found,) = locate_object(unified(values), SIZE, kernel=1)
        assert found == Box(30, 20, 12, 12)

    def test_specks_are_dropped_and_gaps_closed(self) -> None:
        values = filled(Box(10, 10, 20, 16))
        values[17:19, 10:30] = 0  # a gap of two rows
        values[2:4, 40:48] = 1  # a speck two pixels high
        assert locate_object(unified(values), SIZE) == (Box(8, 8, 24, 20),)

    def test_the_threshold_is_before_the_percentile(self) -> None:
        """What the threshold removes cannot come back among the highest 35 %."""
        values = filled(Box(10, 10, 10, 10)) + 0.3 * filled(Box(0, 0, 50, 20))
        assert locate_object(unified(values), SIZE, kernel=1) == (Box(10, 10, 10, 10),)
        (wide,) = locate_object(unified(values), SIZE, kernel=1, threshold=0.0, percentile=40)
        assert wide == Box(0, 0, 50, 20)

    def test_complement(self) -> None:
        dark = 1 - filled(Box(10, 10, 10, 10))
        assert locate_object(unified(dark), SIZE, kernel=1, complement=True) == (
            Box(10, 10, 10, 10),
        )

    def test_a_map_that_stands_out_nowhere_has_no_box(self) -> None:
        maps = torch.stack((torch.ones(SIZE), filled(Box(5, 5, 9, 9))))
        assert locate_object(unified(maps), SIZE, kernel=1) == (None, Box(5, 5, 9, 9))

    def test_a_coarse_map_over_its_picture(self) -> None:
        """Cells of 64 pixels: the box contains them and extends less than half a cell further."""
        (found,) = locate_object(unified(filled(Box(2, 1, 3, 2), (5, 8))), (320, 512))
        assert found is not None
        assert Box(128, 64, 192, 128).overlap(found) == 192 * 128 / found.area
        assert Box(96, 32, 256, 192).overlap(found) == found.area / (256 * 192)

    def test_another_size_of_picture_has_the_same_box(self) -> None:
        """The recipe works at one size, so its five pixels mean the same everywhere."""
        values = filled(Box(2, 1, 3, 2), (5, 8))
        (large,) = locate_object(unified(values), (640, 1024))
        (usual,) = locate_object(unified(values), (320, 512))
        assert large is not None
        assert usual is not None
        assert vars(large) == {name: 2 * value for name, value in vars(usual).items()}


class TestBox:
    @given(boxes(), boxes())
    def test_overlap_against_the_masks(self, one: Box, other: Box) -> None:
        a, b = filled(one) > 0, filled(other) > 0
        expected = float((a & b).sum()) / float((a | b).sum())
        assert one.overlap(other) == pytest.approx(expected)
        assert one.overlap(other) == other.overlap(one)
        assert one.overlap(one) == 1

    def test_the_whole_picture_overlaps_by_the_area(self) -> None:
        """The DAAM case: with one token the map is constant, so the box is the whole picture."""
        box = Box(3, 4, 20, 10)
        assert Box(0, 0, 512, 80).overlap(box) == box.area / (512 * 80)

    @given(boxes())
    def test_around_its_own_mask(self, box: Box) -> None:
        assert box_around(filled(box)) == box
        assert box_around(torch.zeros(3, 3)) is None


def flooded(found: NDArray[np.bool_]) -> set[tuple[int, int, int, int]]:
    """Left, top, width, height of each piece, by flood fill from every pixel."""
    left, boxes = {(int(y), int(x)) for y, x in np.argwhere(found)}, set()
    while left:
        waiting, piece = [left.pop()], []
        while waiting:
            y, x = waiting.pop()
            piece.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            waiting += near
        rows, columns = zip(*piece, strict=True)
        boxes.add(
            (min(columns), min(rows), max(columns) - min(columns) + 1, max(rows) - min(rows) + 1)
        )
    return boxes


@given(SEEDS, st.floats(0.1, 0.8))
def test_pieces_against_flooding(seed: int, density: float) -> None:
    found = np.random.default_rng(seed).random((9, 11)) < density
    boxes = pieces(found)
    assert {(box.x, box.y, box.width, box.height) for box in boxes} == flooded(found)
