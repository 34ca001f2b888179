"""The arithmetic of the fidelity tables: map scores, correlations, curves and their intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DRAWS = 1000  # of a bootstrap
LEVEL = 0.95  # of an interval

Correlation = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval, from drawing the scenes again with replacement."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        ends = (format(end, spec) for end in (self.value, self.low, self.high))
        return "{} ({} to {})".format(*ends).replace("-", "−")

    def __str__(self) -> str:
        return f"{self:.2f}"


def mass(maps: Tensor, where: Tensor) -> Tensor:
    """The fraction of each map that lies in the cells `where`: (B, cells) twice to (B,)."""
    return (maps * where).sum(-1) / maps.sum(-1)


def pointing(maps: Tensor, where: Tensor) -> Tensor:
    """1 if a map's highest cell is one of `where`, else 0: (B, cells) twice to (B,)."""
    return where.gather(-1, maps.argmax(-1, keepdim=True)).squeeze(-1).float()


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation over the last axis; not a number where one side is constant."""
    x = x.double() - x.double().mean(-1, keepdim=True)
    y = y.double() - y.double().mean(-1, keepdim=True)
    return (x * y).sum(-1) / ((x**2).sum(-1) * (y**2).sum(-1)).sqrt()


def ranks(x: Tensor) -> Tensor:
    """Ranks over the last axis, from 0; equal values share the mean of their ranks."""
    below = (x.unsqueeze(-2) < x.unsqueeze(-1)).sum(-1)
    equal = (x.unsqueeze(-2) == x.unsqueeze(-1)).sum(-1)
    return below + (equal - 1) / 2


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Spearman's correlation over the last axis: Pearson's of the ranks."""
    return pearson(ranks(x), ranks(y))


def bootstrap(scenes: int, figure: Callable[[Tensor], float], seed: int = 0) -> Estimate:
    """figure: numbers of scenes → its value for them. Raises ValueError where that is no number."""
    value = figure(torch.arange(scenes))
    random = torch.Generator().manual_seed(seed)
    draws = [figure(torch.randint(scenes, (scenes,), generator=random)) for _ in range(DRAWS)]
    drawn = torch.tensor(draws, dtype=torch.float64)
    if value != value or drawn.isnan().any():
        raise ValueError("A figure of the table is not a number: one of its maps is constant.")
    tail = (1 - LEVEL) / 2
    low, high = drawn.quantile(torch.tensor((tail, 1 - tail), dtype=torch.float64)).tolist()
    return Estimate(value, low, high)


def mean_of(values: Tensor) -> Estimate:
    """The mean over scenes of (scenes,)."""
    return bootstrap(len(values), lambda chosen: float(values[chosen].double().mean()))


def ratio_of(hits: Tensor, counts: Tensor) -> Estimate:
    """The sum of hits over the sum of counts, each (scenes,): a fraction of tokens."""
    return bootstrap(len(hits), lambda chosen: float(hits[chosen].sum() / counts[chosen].sum()))


def correlation_of_means(x: Tensor, y: Tensor, correlation: Correlation) -> Estimate:
    """Correlation of means over scenes, one point per condition: (conditions, scenes) twice."""
    return bootstrap(
        x.shape[1],
        lambda chosen: float(correlation(x[:, chosen].mean(1), y[:, chosen].mean(1))),
    )


def correlation_of_samples(x: Tensor, y: Tensor, correlation: Correlation) -> Estimate:
    """Correlation of all samples together: (conditions, scenes) twice. The bootstrap draws a scene
    with all its samples, which are not independent of each other."""
    return bootstrap(
        x.shape[1],
        lambda chosen: float(correlation(x[:, chosen].flatten(), y[:, chosen].flatten())),
    )


def area_under(parts: Tensor, values: Tensor) -> Tensor:
    """The area by trapezoids: parts (points,) from 0 to 1, values (..., points)."""
    return torch.trapezoid(values.double(), parts.double(), dim=-1)
