"""The table of pairs: a CSV or Parquet file, with one row per run of the workflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import EvaluationError

NAME = "name"  # of a pair, for reports and comparing runs; the row number by default
TARGET = "target"  # the picture that the result should be
CORRESPONDENCE = "correspondence"  # where each place of the result should come from
LABEL = "label."  # prefix of a column that is only carried along
RESERVED = (NAME, TARGET, CORRESPONDENCE)


@dataclass(frozen=True)
class Table:
    """The rows as text, exactly as they are written, and the folder their files are in."""

    frame: pd.DataFrame
    folder: Path

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def columns(self) -> list[str]:
        return list(self.frame.columns)

    def row(self, number: int) -> dict[str, str]:
        """The cells of a row, counted from 0."""
        return dict(zip(self.columns, self.frame.iloc[number], strict=True))

    def names(self) -> list[str]:
        """The name of each pair: from its column, else its number from 1."""
        if NAME in self.frame:
            return list(self.frame[NAME])
        return [str(number) for number in range(1, len(self) + 1)]

    def path(self, cell: str) -> Path:
        """The file that a cell names, relative to the table's folder unless it is absolute."""
        return self.folder / Path(cell).expanduser()


def read_table(path: Path) -> Table:
    """Reads a table. Raises EvaluationError if it cannot be read or has no rows."""
    if not path.is_file():
        raise EvaluationError(f"There is no table {path}. Give --pairs a CSV or Parquet file.")
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path).astype(object)
            frame = frame.where(frame.notna(), "").map(_text)
        else:
            # With the header as a row, since pandas would rename columns with the same name.
            text = pd.read_csv(
                path, dtype=str, keep_default_na=False, skipinitialspace=True, header=None
            )
            frame = text.iloc[1:].reset_index(drop=True).set_axis(text.iloc[0], axis=1)
    except (ValueError, OSError) as error:
        raise EvaluationError(f"{path} cannot be read as a table: {error}") from None
    frame = frame.set_axis([str(column).strip() for column in frame.columns], axis=1)
    if not len(frame):
        raise EvaluationError(f"{path} has no rows below its header, so there is nothing to run.")
    twice = sorted(frame.columns[frame.columns.duplicated()])
    if twice or "" in frame.columns:
        what = f"two columns called {', '.join(twice)}" if twice else "a column without a name"
        raise EvaluationError(f"{path} has {what}. Give each column a name of its own.")
    return Table(frame.map(str.strip), path.resolve().parent)


def _text(cell: Any) -> str:
    """A cell as in a CSV file: whole numbers without a decimal point."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)
