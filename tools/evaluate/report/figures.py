"""The figures of a results table: their names, formats and groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..errors import EvaluationError

UP, DOWN = "↑", "↓"
MANY_GROUPS = 40
Json = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A column of figures: its heading, which way is better, and its digits."""

    column: str
    heading: str
    better: str = ""
    digits: int = 3

    @property
    def title(self) -> str:
        return f"{self.heading} {self.better}".strip()


IMACS = (
    Figure("imacs_generated", "IMACS, result", UP),
    Figure("imacs_reference", "IMACS, reference", UP),
)
TRUTH = (
    Figure("psnr_inside", "PSNR in the mask, dB", UP, 2),
    Figure("psnr", "PSNR, dB", UP, 2),
    Figure("ssim", "SSIM", UP),
    Figure("lpips", "LPIPS", DOWN),
    Figure("match_exact", "matches exact", UP),
    Figure("match_near", "matches within one cell", UP),
)
OTHERS = (
    Figure("inside_generated", "R2G inside the mask"),
    Figure("inside_reference", "G2R inside the mask"),
    Figure("entropy_generated", "entropy of R2G"),
    Figure("entropy_reference", "entropy of G2R"),
    Figure("box_iou", "box overlap (IoU)", UP),
    Figure("match_distance", "match distance, cells", DOWN, 2),
    Figure("share_text", "share of the text"),
    Figure("share_self", "share of the picture itself"),
)


@dataclass(frozen=True)
class Data:
    """A results table with what it takes to read it.

    by: the columns whose values define a group. prefixes: of the IMACS nodes' figures.
    """

    frame: pd.DataFrame
    by: tuple[str, ...]
    prefixes: tuple[str, ...]

    def groups(self) -> list[tuple[str, pd.DataFrame]]:
        """The name and rows of each group, in table order, numbers by size."""
        if not self.by:
            return [("all", self.frame)]
        grouped: Any = self.frame.groupby(list(self.by), sort=self.numeric_by, dropna=False)
        found = list(grouped)
        if not self.numeric_by:
            found.sort(key=lambda group: int(group[1].index[0]))
        return [(" · ".join(_short(value) for value in names), rows) for names, rows in found]

    @property
    def numeric_by(self) -> bool:
        """Whether all columns that define a group are numbers."""
        return all(pd.api.types.is_numeric_dtype(self.frame[column]) for column in self.by)

    def there(self, wanted: tuple[Figure, ...]) -> list[Figure]:
        """The given figures that the table has, once per IMACS node."""
        found = [
            Figure(prefix + one.column, prefix.replace(".", ": ") + one.heading, one.better)
            if prefix
            else one
            for one in wanted
            for prefix in self.prefixes
        ]
        return [one for one in found if one.column in self.frame]

    def references(self) -> tuple[Figure, ...]:
        """The shares of the references."""
        names = [str(column) for column in self.frame.columns]
        return tuple(
            Figure(name, f"share of {name.removeprefix('share_').replace('_', ' ')}")
            for name in dict.fromkeys(name.rpartition(".")[2] for name in names)
            if name.startswith("share_reference_") and not name.endswith("_inside")
        )


def read_data(frame: pd.DataFrame, facts: Json, by: tuple[str, ...] = ()) -> Data:
    """Groups by the given columns; else by the labels, else the models, else the settings.

    Raises EvaluationError for a table without rows and for missing columns.
    """
    if not len(frame):
        raise EvaluationError("There is nothing to report: no pair was measured.")
    unknown = [column for column in by if column not in frame]
    if unknown:
        raise EvaluationError(
            f"--by names {', '.join(unknown)}, which the results do not have. They have "
            f"{', '.join(map(str, frame.columns))}."
        )
    frame = pd.DataFrame({name: _numbers(frame[name]) for name in frame.columns})
    usual = (facts["labels"], facts["model_columns"], facts["setting_columns"])
    for columns in (list(by), *usual):
        chosen = [column for column in columns if by or _makes_groups(frame, column)]
        if chosen:
            return Data(frame, tuple(chosen), tuple(facts["prefixes"]))
    return Data(frame, (), tuple(facts["prefixes"]))


def _makes_groups(frame: pd.DataFrame, column: str) -> bool:
    count = frame[column].nunique(dropna=False)
    seed = column.rpartition(".")[2] in ("seed", "noise_seed")
    return not seed and 2 <= count <= min(MANY_GROUPS, len(frame) // 2)


def _numbers(column: pd.Series) -> Any:
    """A text column as numbers, if all its cells are numbers."""
    if pd.api.types.is_numeric_dtype(column):
        return column
    try:
        return pd.to_numeric(column)
    except (ValueError, TypeError):
        return column


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).removesuffix(".safetensors")
