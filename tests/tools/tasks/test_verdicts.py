"""The arithmetic of the help pages' figures, against answers that are known."""

from __future__ import annotations

import pytest
import torch

from tools.tasks.verdicts import iou, line, picked


def test_the_pick_is_held_against_the_mean_of_all_tries() -> None:
    errors = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert picked(errors, 0) == pytest.approx(1 / 3)
    assert picked(errors, 3) == 2
    assert picked(torch.full((8,), 0.1), 5) == pytest.approx(1)  # equal tries: no pick is better


def test_iou_is_of_each_scene_alone() -> None:
    found = torch.tensor([[True, True, False, False], [False, False, False, True]])
    truth = torch.tensor([[True, True, True, True], [False, False, True, False]])
    assert iou(found, truth).tolist() == [0.5, 0]
    assert iou(found, found).tolist() == [1, 1]
    nowhere = torch.zeros_like(found)
    assert iou(nowhere, truth).tolist() == [0, 0]


def test_a_row_has_mean_interval_error_and_range() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    name, mean, low, _, high, error, *ends = line("times", values).split()
    assert (name, mean) == ("times", "3")
    assert 1 <= float(low) <= 3 <= float(high) <= 6
    assert error == "1.1"  # standard deviation 2.16, over the root of four
    assert ends == ["1", "2.5", "6"]


def test_a_figure_without_spread_has_an_interval_of_nothing() -> None:
    assert line("muted", torch.zeros(3)).split() == [
        "muted",
        "0",
        "0",
        "…",
        "0",
        "0",
        "0",
        "0",
        "0",
    ]
