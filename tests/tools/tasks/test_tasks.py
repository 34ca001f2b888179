"""The arithmetic of the tools that measure the demo's tasks, against answers that are known."""

from __future__ import annotations

import numpy as np
import torch

from tools.tasks.recorded_sampling import interval
from tools.tasks.upscaling import detail, lacking, rank_correlation


def test_rank_correlation_knows_order_only() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert np.isclose(rank_correlation(values, values.exp())[0], 1)
    assert np.isclose(rank_correlation(values, -values)[0], -1)
    swapped = torch.tensor([[2.0, 1.0, 4.0, 3.0]])  # 1 - 6 Σd² / n(n² - 1), Σd² = 4
    assert np.isclose(rank_correlation(values, swapped)[0], 0.6)


def test_ties_share_their_rank() -> None:
    """Ranks 1.5, 1.5, 3 against 1, 2, 3: Pearson's correlation of them."""
    tied, values = torch.tensor([[5.0, 5.0, 7.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    expected = np.corrcoef([1.5, 1.5, 3], [1, 2, 3])[0, 1]
    assert np.isclose(rank_correlation(tied, values)[0], expected)


def test_detail_is_where_pixels_differ() -> None:
    pictures = torch.full((1, 32, 32, 3), 0.5)
    pictures[0, 18, 5] = 1.0  # in the lower left token: four differences of 0.5
    expected = torch.tensor([[0.0, 0.0, 4 * 0.25 / 256, 0.0]])
    assert torch.allclose(detail(pictures), expected)


def test_flat_pictures_lack_nothing_and_fine_lines_much() -> None:
    pictures = torch.full((1, 32, 32, 3), 0.5)
    assert lacking(pictures).max() < 1e-10
    pictures[0, :16, :16:2] = 0.0
    assert lacking(pictures)[0, 0] > 10 * lacking(pictures)[0, 1:].max()


def test_interval_holds_the_mean() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    mean, low, high = interval(values, seed=0)
    assert mean == values.mean()
    assert low < mean < high
    # 1.96 standard errors to each side
    assert np.isclose(high - low, 2 * 1.96 / 20, rtol=0.1)
    assert interval(values, seed=0) == (mean, low, high)
    assert interval(np.ones(5), seed=1) == (1, 1, 1)
