"""The tables of a report: means by group, correlations, and the paper's table in its layout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .distances import Distances
from .figures import IMACS, OTHERS, TRUTH, Data, Figure
from .statistics import Estimate, mean, pearson, spearman


@dataclass(frozen=True)
class Table:
    """Words in rows below their headings, and what they mean."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    note: str = ""


def means(data: Data) -> list[Table]:
    """Each figure's mean with its interval, by group."""
    tables: list[Table] = []
    for title, wanted in (
        ("IMACS and the truth", (*IMACS, *TRUTH)),
        ("Where the attention is", (*OTHERS, *data.references())),
    ):
        figures = data.there(wanted)
        rows = [
            [name, str(len(rows)), *(mean(rows[one.column]).text(one.digits) for one in figures)]
            for name, rows in data.groups()
        ]
        if figures:
            headings = [_group(data), "rows", *(figure.title for figure in figures)]
            tables.append(Table(title, headings, rows, "Means over rows (95 % interval)."))
    return tables


def correlations(data: Data) -> list[Table]:
    """IMACS against every figure that knows the truth, row by row and group by group."""
    scores, truth = data.there(IMACS), data.there(TRUTH)
    groups = data.groups()
    rows: list[list[str]] = []
    for score in scores:
        for other in truth:
            parts = [(name, found[score.column], found[other.column]) for name, found in groups]
            if len(groups) > 1:
                parts.append(("all rows", data.frame[score.column], data.frame[other.column]))
            if len(groups) > 2:
                means_of = [
                    [_mean(found[column]) for _, found in groups]
                    for column in (score.column, other.column)
                ]
                parts.append(("means of groups", *means_of))
            rows += [[score.heading, other.heading, name, *_both(x, y)] for name, x, y in parts]
    if not rows:
        return []
    note = (
        "Correlation of a row's IMACS with the same row's figure (95 % interval over rows; of "
        "means: over groups). “All rows” takes rows that share a picture for independent, so its "
        "intervals are too narrow where groups show the same pairs."
    )
    headings = ["IMACS", "against", _group(data), "Pearson", "Spearman", "n"]
    return [Table("Does IMACS follow the truth?", headings, rows, note)]


def paper(data: Data, distances: Distances) -> list[Table]:
    """The table of the I2AM paper: one line a model, FID to IMACS."""
    lpips, ssim = Figure("lpips", "LPIPS", "↓", 4), Figure("ssim", "SSIM", "↑", 4)
    scores = [
        Figure("imacs_generated", "IMACS_g", "↑", 4),
        Figure("imacs_reference", "IMACS_r", "↑", 4),
    ]
    columns = [lpips, ssim, *scores]
    first = data.prefixes[0]
    rows: list[list[str]] = []
    for name, found in data.groups():
        fid, kid = distances.of(found)
        cells = [
            _plain(mean(found[first + one.column]), one.digits)
            if first + one.column in found
            else "–"
            for one in columns
        ]
        rows.append([name, fid, kid, *cells])
    headings = ["Method", "FID ↓", "KID ↓", *(one.title for one in columns)]
    note = f"{distances.note} Means over rows, without intervals, as in the paper."
    return [Table("The paper's table", headings, rows, note)]


def _group(data: Data) -> str:
    return " · ".join(column.removeprefix("label.") for column in data.by) or "rows"


def _both(x: object, y: object) -> list[str]:
    linear, ranked = pearson(x, y), spearman(x, y)
    return [linear.text(2), ranked.text(2), str(linear.count)]


def _mean(values: object) -> float:
    given = np.asarray(values, np.float64)
    given = given[np.isfinite(given)]
    return float(given.mean()) if len(given) else float("nan")


def _plain(estimate: Estimate, digits: int) -> str:
    return Estimate(estimate.value).text(digits)
