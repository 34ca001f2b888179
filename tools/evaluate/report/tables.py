"""The tables of a report: means by group, correlations, and the paper's table in its layout."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from .distances import Distances
from .figures import IMACS, OTHERS, TRUTH, Data, Figure
from .statistics import LEAST, Estimate, mean, pearson, spearman

CORRELATION_NOTE = (
    "Of a row's IMACS with the same row's figure (95 % interval over rows; of means, over groups). "
    "“All rows” takes rows that show the same pair for independent, so its interval is too narrow "
    "where groups share their pairs."
)


@dataclass(frozen=True)
class Table:
    """Text in rows below their headings, and what they mean."""

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
    """IMACS against every figure that uses the truth: by group, over all rows, over groups."""
    scores, truth = data.there(IMACS), data.there(TRUTH)
    groups = data.groups()
    parts = list(groups)
    if len(groups) > 1:
        parts.append(("all rows", data.frame))
    if len(groups) >= LEAST:
        parts.append(("means of groups", pd.DataFrame([_means(rows) for _, rows in groups])))
    tables: list[Table] = []
    for statistic, name in ((pearson, "Pearson"), (spearman, "Spearman")):
        found = {
            (score.heading, group, other.title): statistic(rows[score.column], rows[other.column])
            for score in scores
            for group, rows in parts
            for other in truth
        }
        varied = [
            one.title for one in truth if any(e for key, e in found.items() if key[2] == one.title)
        ]
        cells = [
            [
                score.heading,
                group,
                *(found[score.heading, group, title].text(2) for title in varied),
            ]
            for score in scores
            for group, _ in parts
        ]
        if varied and cells:
            headings = ["", _group(data), *varied]
            title = f"Does IMACS follow the truth? {name}'s correlation"
            tables.append(Table(title, headings, cells, CORRELATION_NOTE))
    return tables


def paper(data: Data, distances: Distances) -> list[Table]:
    """The table of the I2AM paper: one line per model, from FID to IMACS."""
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


def _means(rows: pd.DataFrame) -> pd.Series:
    """The mean of the finite values in each numeric column."""
    numbers = rows.select_dtypes("number")
    return numbers.where(numbers.abs() != float("inf")).mean()


def _plain(estimate: Estimate, digits: int) -> str:
    return Estimate(estimate.value).text(digits)
