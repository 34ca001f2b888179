"""Rows and columns of point queries: recorded step by step, and read as maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recordings import GENERATED, REFERENCES, recording

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
from i2am.recording import Definition, Direction, Recording, point_sums
from i2am.tokens import RESULT, Grid

R2G, G2R = Direction.REFERENCE_TO_GENERATED, Direction.GENERATED_TO_REFERENCE
PAPER, MODEL = Definition.PAPER, Definition.MODEL


def exact(made: Recording, direction: Direction, number: int, **selection: Any) -> AttributionMap:
    return exact_point_map(made, PAPER, direction, 0, number, Selection(**selection))


class TestRecording:
    def test_nothing_asked_costs_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("i2am.recording.call.point_marginals", lambda *_, **__: 1 / 0)
        made = recording()
        assert not [name for name in made.arrays if name.startswith("point")]
        assert (made.header.token_grids, made.header.step_groups) == ((), ())

    def test_layers_of_other_grids(self) -> None:
        """Rows keep their values; columns are spread over the finest grid, keeping their sums."""
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
        """The means of levels are the means of their steps, whatever the layers' grids."""
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
        """Places that a budget leaves out of the maps are still recorded for point queries."""
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
        """The correspondence's row for the same place, and the model's column."""
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
        for definition in (PAPER, MODEL):
            found = exact_point_map(made, definition, R2G, 0, 0, Selection())
            assert found.grid == grid.one_frame
            whole = attribution_map(made, definition, R2G).values
            torch.testing.assert_close(found.values, whole)

    def test_places_are_found_by_their_token(self) -> None:
        header = self.MADE.header  # the result has 4×3 tokens; reference 2 covers 2.5×2 of 3×2
        assert len(recorded_places(header, RESULT)) == 3
        assert recorded_point(header, RESULT, 0.33, 0.24) == 0
        assert recorded_point(header, RESULT, 0.34, 0.24) is None  # only in the rectangle
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
