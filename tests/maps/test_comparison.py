"""Comparing two maps: closed forms and numpy's correlation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from unified_maps import rand, unified

from i2am.display import difference_overlay
from i2am.errors import I2AMError
from i2am.maps import AttributionMap, compare_maps
from i2am.recording import Definition

SIZE = (6, 5)


def model(values: torch.Tensor) -> AttributionMap:
    """A map in shares."""
    return replace(unified(values), definition=Definition.MODEL)


def test_a_map_and_itself() -> None:
    found = compare_maps(unified(rand(*SIZE)), unified(rand(*SIZE)), SIZE)
    assert float(found.correlation) == pytest.approx(1)
    assert float(found.highest) == 0
    assert not found.difference.any()


def test_the_difference_is_in_shares_for_the_model_definition() -> None:
    one, two = rand(2, *SIZE, seed=1) / 30, rand(2, *SIZE, seed=2) / 30
    found = compare_maps(model(one), model(two), SIZE)
    assert torch.allclose(found.difference, 30 * (two - one), atol=1e-6)
    for item in range(2):
        expected = np.corrcoef(one[item].flatten(), two[item].flatten())[0, 1]
        assert float(found.correlation[item]) == pytest.approx(expected, abs=1e-5)


def test_scale_does_not_count_for_the_paper_definition() -> None:
    """Its numbers are times an even spread."""
    found = compare_maps(unified(rand(*SIZE)), unified(3 * rand(*SIZE)), SIZE)
    assert float(found.highest) == 0


def test_rounding_noise_is_no_difference() -> None:
    values = rand(*SIZE) + 0.5
    found = compare_maps(unified(values), unified(values * (1 + 1e-5 * rand(*SIZE, seed=3))), SIZE)
    assert float(found.highest) == 0


def test_a_flat_map_correlates_with_nothing() -> None:
    found = compare_maps(unified(torch.ones(SIZE)), unified(rand(*SIZE)), SIZE)
    assert bool(found.correlation.isnan())


def test_grids_of_other_sizes() -> None:
    coarse = torch.zeros(3, 3)
    coarse[1, 1] = 1
    fine = coarse.repeat_interleave(4, 0).repeat_interleave(4, 1)
    found = compare_maps(unified(coarse), unified(fine), (48, 48))
    assert float(found.correlation) > 0.85


def test_one_goes_with_a_batch_and_two_not_with_three() -> None:
    assert (
        compare_maps(unified(rand(*SIZE)), unified(rand(3, *SIZE)), SIZE).difference.shape[0] == 3
    )
    with pytest.raises(I2AMError, match="holds 2 pictures and the other 3"):
        compare_maps(unified(rand(2, *SIZE)), unified(rand(3, *SIZE)), SIZE)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(I2AMError, match="R2G · paper · unified cannot be compared with R2G · mod"):
        compare_maps(unified(rand(*SIZE)), model(rand(*SIZE)), SIZE)


def test_the_overlay_shows_the_picture_where_nothing_differs() -> None:
    picture = rand(1, *SIZE, 3)
    values = torch.zeros(1, *SIZE)
    values[0, 0, 0], values[0, 0, 1] = 1, -1
    drawn = difference_overlay(picture, values)
    more, less = drawn[0, 0, 0], drawn[0, 0, 1]
    assert more[0] > more[2], "more is orange"
    assert less[2] > less[0], "less is blue"
    grey = drawn[0, 1:]
    assert torch.allclose(grey[..., 0], grey[..., 2]), "in between is the picture without colour"
    flat = picture[0, 1:].flatten(0, 1)
    assert np.corrcoef(flat.mean(1), grey[..., 0].flatten())[0, 1] > 0.8
