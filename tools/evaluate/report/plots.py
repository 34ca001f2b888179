"""The plots of a report, as SVG: the same rows give the same file."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .figures import IMACS, TRUTH, Data, Figure
from .statistics import mean

MANY_POINTS = 5000  # drawn in a scatter plot, evenly chosen
COLOURS = plt.get_cmap("tab10")
STYLE: Any = {
    "svg.hashsalt": "i2am",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}


def draw(data: Data) -> dict[str, str]:
    """Name → SVG: means by group, IMACS against the truth, the distribution of IMACS."""
    scores, truth = data.there(IMACS), data.there(TRUTH)
    plots: dict[str, str] = {}
    if len(data.groups()) > 1 and scores:
        plots["means by group"] = _svg(lambda: _means(data, [*scores, *truth[:1]]))
    for other in truth[:1]:
        drawn = lambda other=other: _scatter(data, scores, other)  # noqa: E731
        plots[f"IMACS against {other.heading}"] = _svg(drawn)
    if scores:
        plots["how IMACS is spread"] = _svg(lambda: _histograms(data, scores))
    return plots


def paired(before: Any, after: Any, figure: Figure) -> str:
    """SVG: every pair's figure before and after."""

    def drawn() -> None:
        _, axes = plt.subplots(figsize=(3.4, 3.2))
        axes.scatter(before, after, s=8, alpha=0.5, linewidths=0, color=COLOURS(0))
        ends = [np.nanmin([before, after]), np.nanmax([before, after])]
        axes.plot(ends, ends, color="grey", linewidth=0.8)
        axes.set_xlabel(f"{figure.heading}, before")
        axes.set_ylabel("after")

    return _svg(drawn)


def _means(data: Data, figures: list[Figure]) -> None:
    """One panel per figure: lines over the groups' last column if it is numeric, else dots."""
    last = data.by[-1]
    lines = pd.api.types.is_numeric_dtype(data.frame[last])
    groups = data.groups()
    height = 2.8 if lines else 0.8 + 0.28 * len(groups)
    _, row = plt.subplots(
        1, len(figures), figsize=(3.1 * len(figures), height), squeeze=False, sharey=not lines
    )
    for figure, axes in zip(figures, row[0], strict=True):
        if lines:
            _lines(axes, data, figure, last)
        else:
            found = [mean(rows[figure.column]) for _, rows in groups]
            for place, one in enumerate(found):
                axes.plot([one.low, one.high], [place, place], color="grey", linewidth=1)
                axes.plot([one.value], [place], "o", color=COLOURS(0), markersize=4)
            axes.set_yticks(range(len(groups)), [name for name, _ in groups])
            axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_title(figure.title, fontsize=9)


def _lines(axes: Any, data: Data, figure: Figure, last: str) -> None:
    rest = list(data.by[:-1])
    parts = list(data.frame.groupby(rest, sort=False)) if rest else [("", data.frame)]
    for number, (name, rows) in enumerate(parts):
        at = sorted(rows[last].dropna().unique())
        found = [mean(rows.loc[rows[last] == value, figure.column]) for value in at]
        name = " · ".join(map(str, name)) if isinstance(name, tuple) else str(name)
        colour = COLOURS(number % 10)
        axes.plot(at, [one.value for one in found], "o-", markersize=3, color=colour, label=name)
        ends = [one.low for one in found], [one.high for one in found]
        axes.fill_between(at, *ends, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel(last.removeprefix("label."))
    if rest:
        axes.legend(fontsize=7, frameon=False, title=" · ".join(rest).replace("label.", ""))


def _scatter(data: Data, scores: list[Figure], other: Figure) -> None:
    _, row = plt.subplots(1, len(scores), figsize=(3.6 * len(scores), 3.2), squeeze=False)
    step = max(1, len(data.frame) // MANY_POINTS)
    groups = data.groups()
    for score, axes in zip(scores, row[0], strict=True):
        for number, (name, rows) in enumerate(groups):
            shown = rows.iloc[::step]
            label = name if len(groups) > 1 else None
            points = axes.scatter(
                shown[other.column],
                shown[score.column],
                s=14,
                alpha=0.6,
                linewidths=0,
                color=COLOURS(number % 10),
                label=label,
            )
            points.set_rasterized(len(data.frame) > 1000)
        axes.set_xlabel(other.title)
        axes.set_ylabel(score.title)
    if 1 < len(groups) <= 10:
        row[0][-1].legend(fontsize=7, frameon=False)


def _histograms(data: Data, scores: list[Figure]) -> None:
    _, row = plt.subplots(1, len(scores), figsize=(3.6 * len(scores), 2.4), squeeze=False)
    for score, axes in zip(scores, row[0], strict=True):
        values = data.frame[score.column].dropna()
        axes.hist(values, bins=30, color=COLOURS(0))
        axes.set_xlabel(score.heading)
        axes.set_ylabel("rows")


def _svg(drawn: Callable[[], None]) -> str:
    buffer = io.StringIO()
    with plt.rc_context(STYLE):
        drawn()
        plt.savefig(buffer, format="svg", metadata={"Date": None}, dpi=120)
        plt.close("all")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
