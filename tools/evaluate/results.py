"""The folder of results: one file per pair, written completely or not at all.

A pair is done when `rows/<its key>.json` exists. Its pictures are written first, so nothing needs
repair after a stop: files that no row names are written again, as are half-written files (.new).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import EvaluationError
from .plan.pairs import Pair
from .task import Outcome

ROWS, PICTURES, STRIPS = "rows", "pictures", "strips"
FACTS, SKIPPED = "run.json", "skipped.csv"
TABLE = "results"  # .csv and .parquet
BYTES_A_PAIR = 2**20  # an initial estimate, until pictures in this folder give a better one
SPARE_BYTES = 256 * 2**20  # for the report, and to keep some space on the disk
CHUNK = 500  # rows converted to a table at once: dictionaries take far more memory
Json = dict[str, Any]


class Results:
    """The files of one evaluation in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            for name in (ROWS, PICTURES, STRIPS):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EvaluationError(
                f"{folder} cannot be written to: {error.strerror or error}. Choose another --out."
            ) from None

    @classmethod
    def existing(cls, folder: Path) -> Results:
        """The folder of an earlier evaluation. Raises EvaluationError for any other folder."""
        if not (folder / FACTS).is_file():
            raise EvaluationError(
                f"{folder} holds no results of an evaluation ({FACTS} is missing)."
            )
        return cls(folder)

    def path(self, kind: str, key: str, item: int = 0) -> Path:
        """The file of a pair; later pictures of a batch add their number."""
        ending = {ROWS: ".json", PICTURES: ".png", STRIPS: ".jpg"}[kind]
        number = f"_{item + 1}" if item else ""
        return self.folder / kind / key[:2] / f"{key}{number}{ending}"

    def has(self, key: str) -> bool:
        """Whether a pair is done."""
        return self.path(ROWS, key).is_file()

    def check_room(self, pairs: int) -> None:
        """Raises EvaluationError if the disk has no room for this many more pairs."""
        sizes = [
            path.stat().st_size
            for path, _ in zip((self.folder / PICTURES).rglob("*.png"), range(50), strict=False)
        ]
        each = 2 * sum(sizes) / len(sizes) if sizes else BYTES_A_PAIR
        free, needed = shutil.disk_usage(self.folder).free, pairs * each + SPARE_BYTES
        if free < needed:
            raise EvaluationError(
                f"The disk of {self.folder} has {free / 1e9:.1f} GB free, but {pairs} pairs may "
                f"take {needed / 1e9:.1f} GB. Make room, or choose another --out."
            )

    def keep(self, pair: Pair, outcome: Outcome) -> None:
        """Writes a pair's results. Raises EvaluationError if the disk refuses them."""
        try:
            for item, data in enumerate(outcome.pictures):
                _write(self.path(PICTURES, pair.key, item), data)
            for item, data in enumerate(outcome.strips):
                _write(self.path(STRIPS, pair.key, item), data)
            row = {"figures": outcome.figures, "seconds": outcome.seconds}
            _write(self.path(ROWS, pair.key), json.dumps(row).encode())
        except OSError as error:
            raise EvaluationError(
                f"Nothing more can be written to {self.folder}: {error.strerror or error}. Every "
                "pair that was done is kept. Make room and run the same command again: it goes on "
                "from there."
            ) from None

    def rows(self, key: str) -> list[Json]:
        """The figures of each picture of a pair."""
        kept = json.loads(self.path(ROWS, key).read_text("utf-8"))
        return [figures | {"seconds": kept["seconds"]} for figures in kept["figures"]]

    def write_facts(self, facts: Json) -> None:
        _write(self.folder / FACTS, json.dumps(facts, indent=1, ensure_ascii=False).encode())

    def facts(self) -> Json:
        """The facts from `write_facts`."""
        return json.loads((self.folder / FACTS).read_text("utf-8"))

    def write_skipped(self, skipped: list[tuple[int, str, str]]) -> None:
        """The pairs without results: row, name, and why."""
        table = pd.DataFrame(skipped, columns=["row", "name", "problem"]).sort_values("row")
        _write(self.folder / SKIPPED, table.to_csv(index=False).encode())

    def skipped(self) -> pd.DataFrame:
        path = self.folder / SKIPPED
        return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["row", "problem"])

    def write_table(self, cells: Iterator[tuple[Json, str]]) -> pd.DataFrame:
        """Writes results.csv and results.parquet, from each pair's table cells and its key."""
        parts: list[pd.DataFrame] = []
        waiting: list[Json] = []
        for row, key in cells:
            for item, figures in enumerate(self.rows(key)):
                waiting.append({**row, "picture": item + 1, **figures, "key": key})
            if len(waiting) >= CHUNK:
                parts.append(pd.DataFrame(waiting))
                waiting = []
        parts += [pd.DataFrame(waiting)] if waiting else []
        table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
        _write(self.folder / f"{TABLE}.csv", table.to_csv(index=False).encode())
        new = self.folder / f"{TABLE}.parquet.new"
        table.to_parquet(new, index=False)
        new.replace(self.folder / f"{TABLE}.parquet")
        return table

    def table(self) -> pd.DataFrame:
        """The table from `write_table`."""
        try:
            return pd.read_parquet(self.folder / f"{TABLE}.parquet")
        except OSError:
            raise EvaluationError(
                f"{self.folder} holds no results of an evaluation ({TABLE}.parquet is missing). "
                "Run it to its end first."
            ) from None


def _write(path: Path, data: bytes) -> None:
    """Writes a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
