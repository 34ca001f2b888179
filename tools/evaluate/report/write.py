"""report.html, which is self-contained, and report.md with its plots beside it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ..results import STRIPS, Results
from . import plots, tables
from .distances import Distances
from .figures import IMACS, TRUTH, Data, read_data
from .tables import Table

SHOWN = 6  # best and worst
TEMPLATES = Path(__file__).parent / "templates"
PLOTS = "plots"


@dataclass(frozen=True)
class Picture:
    """A row of results to show: a strip of pictures and its caption."""

    strip: str  # base64
    caption: str


@dataclass(frozen=True)
class Page:
    """Everything a report says."""

    title: str
    intro: list[str]
    tables: list[Table]
    plots: dict[str, str]
    pictures: dict[str, list[Picture]]
    skipped: list[dict[str, Any]]


def write_report(results: Results, by: tuple[str, ...] = ()) -> list[Path]:
    """Reads the table of a finished evaluation and writes its report; returns the files.

    by: the columns to group by. Raises EvaluationError if there is nothing to report.
    """
    facts = results.facts()
    data = read_data(results.table(), facts, by)
    distances = Distances(
        lambda key, item: results.path("pictures", key, item), Path(facts["folder"])
    )
    page = Page(
        f"Evaluation of {facts['workflow']}",
        _intro(data, facts, len(results.skipped())),
        [*tables.means(data), *tables.correlations(data), *tables.paper(data, distances)],
        plots.draw(data),
        _best_and_worst(data, results),
        results.skipped().to_dict("records"),
    )
    return write_page(page, results.folder, "report")


def write_page(page: Page, folder: Path, name: str) -> list[Path]:
    """Writes one page in both formats."""
    (folder / PLOTS).mkdir(exist_ok=True)
    files: dict[str, str] = {}
    for number, (title, drawn) in enumerate(page.plots.items(), start=1):
        files[title] = f"{PLOTS}/{name}_{number}.svg"
        (folder / files[title]).write_text(drawn, "utf-8")
    written: list[Path] = []
    for ending, escape in (("html", True), ("md", False)):
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=escape,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters["svg"] = Markup
        text = environment.get_template(f"report.{ending}.j2").render(page=page, files=files)
        path = folder / f"{name}.{ending}"
        path.write_text(text, "utf-8")
        written.append(path)
    return written


def _intro(data: Data, facts: dict[str, Any], skipped: int) -> list[str]:
    settings = facts["settings"]
    lines = [
        f"{len(data.frame)} rows of {facts['pairs']} pairs; {skipped} pairs gave nothing. "
        f"ComfyUI {settings['comfyui']}, ComfyUI-I2AM {settings['pack']}, {settings['device']}.",
        "Intervals are 95 % bootstrap intervals (percentiles of 2000 seeded draws of the rows).",
    ]
    if not data.there(TRUTH):
        lines.append("No truth was given: add a column target or correspondence to compare with.")
    elif "lpips" not in data.frame:
        lines.append("No LPIPS: no weights were at hand (docs/evaluate.md says which file where).")
    return lines


def _best_and_worst(data: Data, results: Results) -> dict[str, list[Picture]]:
    """The rows with the highest and lowest IMACS, and those nearest to and farthest from truth."""
    shown: dict[str, list[Picture]] = {}
    for figure in (*data.there(IMACS), *data.there(TRUTH)[:1]):
        ranked = data.frame.dropna(subset=[figure.column]).sort_values(
            figure.column, kind="stable", ascending=figure.better == "↓"
        )
        count = min(SHOWN, len(ranked) // 2)
        for words, rows in (("best", ranked.head(count)), ("worst", ranked.tail(count)[::-1])):
            pictures = [
                show(results, row, f"{figure.heading} {row[figure.column]:.{figure.digits}f}")
                for _, row in rows.iterrows()
            ]
            if pictures:
                shown[f"{figure.heading}: {words}"] = pictures
    return shown


def show(results: Results, row: Any, words: str) -> Picture:
    """A row's strip; nothing if its file is missing."""
    path = results.path(STRIPS, str(row["key"]), int(row["picture"]) - 1)
    data = path.read_bytes() if path.is_file() else b""
    return Picture(base64.b64encode(data).decode(), f"{row['name']} (row {row['row']}): {words}")
