"""Intervals and correlations against what is known of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tools.evaluate.report.statistics import mean, pearson, spearman


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, 400)
    found = mean(values)
    error = values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    draws = np.random.default_rng(5).normal(0.0, 1.0, (150, 60))
    held = [one.low <= 0 <= one.high for one in map(mean, draws)]
    assert 0.88 <= np.mean(held) <= 0.99


def test_correlations_are_scipys() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=50)
    y = np.round(x + random.normal(size=50), 1)  # with ties
    assert pearson(x, y).value == pytest.approx(stats.pearsonr(x, y)[0])
    assert spearman(x, y).value == pytest.approx(stats.spearmanr(x, y)[0])
    assert pearson(x, y).low < pearson(x, y).value < pearson(x, y).high


def test_the_same_rows_give_the_same_interval() -> None:
    values = np.random.default_rng(2).normal(size=30)
    assert mean(values) == mean(values.copy())


def test_values_that_are_not_numbers_are_left_out() -> None:
    assert mean([1.0, 3.0, math.nan, math.inf]).value == 2.0
    assert mean([1.0, 3.0, math.nan, math.inf]).count == 2
    assert pearson([1, 2, 3, 4, math.nan], [1, 2, 3, 5, 0]).count == 4


def test_where_there_is_nothing_to_say() -> None:
    assert mean([]).text(2) == "–"
    assert mean([-0.5, -0.5]).text(2) == "−0.50"
    assert mean([-0.001, -0.002]).text(2) == "0.00"
    assert mean([1, 2, 3, 4]).text(2) == "2.50"  # too few for an interval
    assert pearson([1, 1, 1, 1], [1, 2, 3, 4]).text(2) == "–"
    assert pearson([1, 2], [1, 2]).text(2) == "–"
