"""Means, differences and correlations with bootstrap intervals, by scipy.

Intervals are percentiles of DRAWS draws of the rows with replacement. Draws are seeded: the same
rows give the same interval.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

DRAWS = 2000
BATCH = 100  # draws at a time: memory is this times the number of rows
LEVEL = 0.95
LEAST = 3  # values; fewer give no correlation
FEW = 8  # values; fewer give no interval, since resampling would overstate the precision


@dataclass(frozen=True)
class Estimate:
    """A figure of `count` rows and its 95 % interval; NaN if there is none."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    count: int = 0

    def __bool__(self) -> bool:
        return bool(np.isfinite(self.value))

    def text(self, digits: int) -> str:
        """“0.43 (0.40 … 0.46)”, or a dash if there is no value."""
        if not self:
            return "–"
        ends = [_written(end, digits) for end in (self.value, self.low, self.high)]
        return ends[0] if not np.isfinite(self.low) else "{} ({} … {})".format(*ends)


def _written(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def mean(values: Any) -> Estimate:
    """The mean of the finite values."""
    given = np.asarray(values, np.float64)
    given = given[np.isfinite(given)]
    if not len(given):
        return Estimate(float("nan"))
    return _estimate(np.mean, (given,))


def pearson(x: Any, y: Any) -> Estimate:
    """Pearson's correlation over the rows where both are finite."""
    return _correlation(_pearson, x, y)


def spearman(x: Any, y: Any) -> Estimate:
    """Spearman's correlation: Pearson's of the ranks."""
    return _correlation(_spearman, x, y)


def _correlation(statistic: Callable[..., Any], x: Any, y: Any) -> Estimate:
    both = np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)])
    both = both[:, np.isfinite(both).all(0)]
    if both.shape[1] < LEAST or bool((np.ptp(both, 1) == 0).any()):
        return Estimate(float("nan"), count=both.shape[1])
    return _estimate(statistic, tuple(both), paired=True)


def _estimate(
    statistic: Callable[..., Any], data: tuple[Any, ...], paired: bool = False
) -> Estimate:
    value, count = float(statistic(*data, axis=-1)), len(data[0])
    if count < FEW or all(np.ptp(values) == 0 for values in data):
        return Estimate(value, count=count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # of draws left out below
        found = stats.bootstrap(
            data,
            statistic,
            paired=paired,
            vectorized=True,
            n_resamples=DRAWS,
            batch=BATCH,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    draws = found.bootstrap_distribution
    draws = draws[np.isfinite(draws)]  # a draw of only one row has no correlation
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), count)


def _pearson(x: Any, y: Any, axis: int = -1) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        x = x - x.mean(axis, keepdims=True)
        y = y - y.mean(axis, keepdims=True)
        return (x * y).sum(axis) / np.sqrt((x**2).sum(axis) * (y**2).sum(axis))


def _spearman(x: Any, y: Any, axis: int = -1) -> Any:
    return _pearson(stats.rankdata(x, axis=axis), stats.rankdata(y, axis=axis), axis)
