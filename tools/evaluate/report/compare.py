"""Two folders of results, such as before and after training → what changed, pair by pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import EvaluationError
from ..results import Results
from . import plots
from .figures import IMACS, OTHERS, TRUTH, Data, Figure, read_data
from .statistics import mean
from .tables import Table
from .write import SHOWN, Page, Picture, show, write_page

NOT_MATCHED = ("row", "key", "seconds")


def compare(before: Results, after: Results, folder: Path) -> list[Path]:
    """Writes compare.html and compare.md; returns the files.

    Rows match if all columns of the tables agree, except columns with no value in common (such as
    the model). Raises EvaluationError if rows cannot be matched.
    """
    sides = [read_data(one.table(), one.facts()) for one in (before, after)]
    both = _matched(sides[0], sides[1], (before, after))
    figures = [
        one for one in sides[0].there((*IMACS, *TRUTH, *OTHERS)) if f"{one.column}_after" in both
    ]
    rows = [_row(both, one) for one in figures]
    headings = ["figure", "before", "after", "after − before", "rows with more", "n"]
    note = (
        "Means over matched rows. The interval of the difference is over rows, each minus its own "
        "before; where it holds zero, the rows do not show a change."
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"{folder} cannot be written to: {error.strerror}.") from None
    page = Page(
        f"{before.folder.name} and {after.folder.name}",
        [
            f"Before: {before.folder.name}, {len(sides[0].frame)} rows. After: "
            f"{after.folder.name}, {len(sides[1].frame)} rows. {len(both)} of them match."
        ],
        [Table("What changed", headings, rows, note)],
        {
            f"{one.heading}, before and after": plots.paired(
                both[one.column], both[f"{one.column}_after"], one
            )
            for one in sides[0].there((*IMACS, *TRUTH[:1]))
            if one in figures
        },
        _most_changed(both, figures, (before, after)),
        [],
    )
    return write_page(page, folder, "compare")


def _matched(before: Data, after: Data, folders: tuple[Results, Results]) -> pd.DataFrame:
    """The rows of both tables, side by side; those of `after` end in _after."""
    one, other = before.frame, after.frame
    known = {*folders[0].facts()["table_columns"], "name", "picture"}
    shared = [
        column
        for column in one.columns
        if column in other and column in known and column not in NOT_MATCHED
    ]
    keys = [column for column in shared if set(one[column]) & set(other[column])]
    for side, frame in (("before", one), ("after", other)):
        if not keys or bool(frame.duplicated(keys).any()):
            raise EvaluationError(
                f"Rows of the folder given as {side} cannot be told apart by {', '.join(keys)}. "
                "Give each pair a name of its own (column name), and compare folders of one model "
                "each."
            )
    both = one.merge(other, on=keys, suffixes=("", "_after"), validate="one_to_one")
    if not len(both):
        raise EvaluationError(
            f"No row of one folder has its like in the other (by {', '.join(keys)}). Compare two "
            "evaluations of the same table of pairs."
        )
    return both.assign(**{f"{key}_after": both[key] for key in ("picture",) if key in keys})


def _row(both: pd.DataFrame, figure: Figure) -> list[str]:
    before, after = both[figure.column], both[f"{figure.column}_after"]
    change = (after - before).to_numpy(np.float64)
    change = change[np.isfinite(change)]
    more = f"{np.mean(change > 0):.0%}" if len(change) else "–"
    return [
        figure.title,
        mean(before).text(figure.digits),
        mean(after).text(figure.digits),
        mean(change).text(figure.digits),
        more,
        str(len(change)),
    ]


def _most_changed(
    both: pd.DataFrame, figures: list[Figure], folders: tuple[Results, Results]
) -> dict[str, list[Picture]]:
    """The rows that gained and lost most, each before and after."""
    shown: dict[str, list[Picture]] = {}
    for figure in figures[:1]:
        change = (both[f"{figure.column}_after"] - both[figure.column]).dropna()
        ranked = change.sort_values(kind="stable")
        count = min(SHOWN // 2, len(ranked) // 2)
        for words, chosen in (
            ("gained", ranked.index[::-1][:count]),
            ("lost", ranked.index[:count]),
        ):
            pictures: list[Picture] = []
            for index in chosen:
                row = both.loc[index]
                for results, ending, when in zip(
                    folders, ("", "_after"), ("before", "after"), strict=True
                ):
                    side = row.copy()
                    side["key"], side["row"] = row[f"key{ending}"], row[f"row{ending}"]
                    value = row[f"{figure.column}{ending}"]
                    pictures.append(show(results, side, f"{when} {value:.{figure.digits}f}"))
            if pictures:
                shown[f"{figure.heading}: {words} most"] = pictures
    return shown
