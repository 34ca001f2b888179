"""Points, best matches and sinks: against a loop, and with planted truth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recordings import recording

from i2am.display import recording_report
from i2am.errors import I2AMError
from i2am.maps import (
    AttributionMap,
    Correspondence,
    Level,
    Location,
    attribution_map,
    best_matches,
    correspondence_of,
    find_sinks,
    point_map,
    remove_sinks,
    sink_mass,
    without_sinks,
)
from i2am.recording import Definition, Direction
from i2am.tokens import Grid

R2G, G2R = Direction.REFERENCE_TO_GENERATED, Direction.GENERATED_TO_REFERENCE
RESULT, REFERENCE = Grid(3, 4), Grid(2, 5, (1.5, 5.0))
PART = st.floats(0, 1)


def pairs(seed: int = 0, batch: int = 2, **planted: float) -> Correspondence:
    """Random rows that sum to one; `planted` sets how much of each row a reference cell gets."""
    rows = torch.rand(
        batch, RESULT.area, REFERENCE.area, generator=torch.Generator().manual_seed(seed)
    )
    for name, part in planted.items():
        rows[:, :, int(name[1:])] = part * rows.sum(-1)
    return Correspondence(rows / rows.sum(-1, keepdim=True), RESULT, REFERENCE)


@given(PART, PART)
def test_a_point_is_the_row_of_its_cell(x: float, y: float) -> None:
    """The paper's SRAM: what one place gives to each place of the reference; sums to one."""
    some = pairs()
    found = point_map(some, Definition.PAPER, G2R, Location(x, y))
    row, column = min(int(y * 3), 2), min(int(x * 4), 3)
    wanted = some.values[:, row * 4 + column].reshape(2, 1, 2, 5)
    torch.testing.assert_close(found.values, wanted)
    assert (found.grid, found.direction) == (REFERENCE, G2R)


@given(PART, PART)
def test_the_inverse_is_a_column(x: float, y: float) -> None:
    """A reference of one and a half cells: its lower quarter lies in the second row."""
    some = pairs()
    found = point_map(some, Definition.MODEL, R2G, Location(x, y))
    cell = min(int(y * 1.5), 1) * 5 + min(int(x * 5), 4)
    shares = found.values.flatten(1) * RESULT.area
    torch.testing.assert_close(shares, some.values[:, :, cell])


def test_invariant_12_all_points_together_are_the_map() -> None:
    """The mean of SRAM over all places is the G2R map, from the correspondence of a recording."""
    made = recording()
    for definition in Definition:
        some = correspondence_of(made, definition, 1)
        every = Location(region=torch.ones(1, 64, 48))
        whole = attribution_map(made, definition, G2R, reference=1).values
        torch.testing.assert_close(point_map(some, definition, G2R, every).values, whole)
        places = [
            point_map(some, definition, G2R, Location((c + 0.5) / 3, (r + 0.5) / 4)).values
            for r in range(4)
            for c in range(3)
        ]
        torch.testing.assert_close(torch.stack(places).mean(0), whole)


def test_a_region_counts_by_how_much_of_a_cell_it_covers() -> None:
    some = pairs()
    mask = torch.zeros(1, 6, 8)
    mask[:, 0:2, 0:3] = 1  # all of cell 0, half of cell 1
    found = point_map(some, Definition.PAPER, G2R, Location(region=mask)).values.flatten(1)
    wanted = (some.values[:, 0] + some.values[:, 1] / 2) / 1.5
    torch.testing.assert_close(found, wanted)


def test_an_empty_region_is_refused() -> None:
    with pytest.raises(I2AMError, match="The region is empty"):
        point_map(pairs(), Definition.PAPER, G2R, Location(region=torch.zeros(1, 6, 8)))


def test_best_matches() -> None:
    """A planted one-to-one match is found, with its confidence, and every match is mutual."""
    square = Grid(3, 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    values = torch.full((1, 9, 9), 0.3 / 8)
    values[0, torch.arange(9), order] = 0.7
    found = best_matches(Correspondence(values / 2, square, square))  # from half the attention
    assert torch.equal(found.best[0], order)
    torch.testing.assert_close(found.confidence, torch.full((1, 9), 0.7))
    assert found.mutual.all()
    starts, ends = found.ends(0, torch.tensor([4]))
    assert starts.tolist() == [[0.5, 0.5]]
    row, column = divmod(int(order[4]), 3)
    torch.testing.assert_close(ends, torch.tensor([[(column + 0.5) / 3, (row + 0.5) / 3]]))
    torch.testing.assert_close(found.steps[0, 4], ends[0] - 0.5)


def test_mutual_against_a_loop() -> None:
    some = pairs(3)
    found = best_matches(some)
    for item in range(2):
        for cell in range(RESULT.area):
            best = int(some.values[item, cell].argmax())
            back = int(some.values[item, :, best].argmax())
            assert int(found.best[item, cell]) == best
            assert bool(found.mutual[item, cell]) == (back == cell)


def test_a_place_that_looks_nowhere_matches_nothing() -> None:
    some = pairs()
    some.values[:, 5] = 0
    found = best_matches(some)
    assert not found.mutual[:, 5].any()
    assert not found.confidence[:, 5].any()


def test_no_sinks_among_even_looks() -> None:
    assert not find_sinks(pairs()).any()


def test_a_planted_sink_is_found() -> None:
    some = pairs(c7=1.5)
    found = find_sinks(some)
    assert found.nonzero()[:, 1].tolist() == [7, 7]
    assert torch.allclose(sink_mass(some, found), some.values[:, :, 7].mean(1))
    assert not remove_sinks(some, found).values[:, :, 7].any()


def test_what_only_a_part_looks_at_is_no_sink() -> None:
    """Half of the result copying one place of the reference is legitimate, not a sink."""
    some = pairs(c7=3.0)
    some.values[:, ::2] = pairs(9).values[:, ::2]
    assert not find_sinks(some).any()


def test_sinks_are_taken_out_and_told() -> None:
    some = pairs(c7=1.5)
    map = AttributionMap(
        some.values.mean(1).reshape(2, 1, 2, 5),
        ("unified",),
        REFERENCE,
        Definition.PAPER,
        G2R,
        Level.UNIFIED,
    )
    found = without_sinks(map, some)
    assert not found.values[:, 0, 1, 2].any()
    left = map.values.clone()
    left[:, 0, 1, 2] = 0
    torch.testing.assert_close(found.values, left)
    parts = ", ".join(f"{float(part):.0%}" for part in map.values[:, 0, 1, 2])
    assert found.notes == (f"1, 1 sinks out ({parts} of it)",)
    finer = replace(
        map,
        grid=Grid(4, 10),
        values=map.values.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4,
    )
    unpadded = replace(some, reference=Grid(2, 5))
    left = without_sinks(finer, unpadded).values
    assert not left[:, 0, 2:4, 4:6].any()
    assert int((left == 0).sum()) == 2 * 4
    with pytest.raises(I2AMError, match="maps over the reference alone"):
        without_sinks(replace(map, direction=R2G), some)


def test_none_found_is_said_too() -> None:
    made = recording(batch=1)
    map = attribution_map(made, Definition.MODEL, G2R)
    found = without_sinks(map, correspondence_of(made, Definition.MODEL, 0))
    assert found.notes == ("no sinks found",)
    torch.testing.assert_close(found.values, map.values)


def test_the_report_names_sinks() -> None:
    """Collect Attribution's report: how many sinks, of which reference, with how much attention."""
    made = recording(batch=1)
    assert "Sinks" not in recording_report(made)
    arrays = {name: array.clone() for name, array in made.arrays.items()}
    planted = arrays["correspondence.model.1"]
    planted[..., 2, 1] = 9 * planted.sum((-2, -1))
    text = recording_report(replace(made, arrays=arrays))
    assert "Sinks: 1 of 6 places of reference 2 get at least 4 times an even spread" in text
    part = planted[..., 2, 1].sum() / planted.sum()
    assert f"They take {float(part):.0%} of the reference's attention" in text
