"""Tables and plots of the fidelity study, and how they get into docs/fidelity.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 900, 560  # of a plot, pixels
LEFT, RIGHT, TOP, BOTTOM = 90, 30, 60, 70  # margins around its axes
COLOURS = (
    *("#1b6ca8", "#d1495b", "#2e933c", "#edae49", "#7a5195", "#555555"),
    *("#00a6a6", "#8d6346", "#ff7f0e", "#e377c2", "#000000", "#9edc2c"),
)
TICKS = 5
DOT = 5  # pixels, half a mark's side


@dataclass(frozen=True)
class Table:
    """A table of the document. name: its marker there. note: the line below it."""

    name: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""

    def __str__(self) -> str:
        """As Markdown."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{text}\n\n{self.note}" if self.note else text


@dataclass(frozen=True)
class Series:
    """A named set of points (x, y) of a plot. joined: with a line from point to point."""

    name: str
    points: Sequence[tuple[float, float]]
    joined: bool = True


def replaced(document: str, tables: Sequence[Table]) -> str:
    """The document with these tables in it, between `<!-- table NAME -->` and `<!-- end -->`.

    Raises ValueError if a table has no place there.
    """
    for table in tables:
        place = re.compile(rf"(<!-- table {re.escape(table.name)} -->\n).*?(<!-- end -->)", re.S)
        text = str(table)
        document, count = place.subn(lambda m, text=text: f"{m[1]}\n{text}\n\n{m[2]}", document)
        if count != 1:
            raise ValueError(f"{count} places for the table {table.name}, not one.")
    return document


def plot(path: Path, title: str, x_name: str, y_name: str, series: Sequence[Series]) -> None:
    """Draw the series over common axes, with their names, into a PNG.

    Raises ValueError if there are more series than colours.
    """
    if len(series) > len(COLOURS):
        raise ValueError(f"{len(series)} lines, but {len(COLOURS)} colours.")
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(22), ImageFont.load_default(16)
    xs, ys = zip(*(point for one in series for point in one.points), strict=True)
    x_low, x_high = _range(xs)
    y_low, y_high = _range(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    for tick in range(TICKS + 1):
        x = x_low + (x_high - x_low) * tick / TICKS
        y = y_low + (y_high - y_low) * tick / TICKS
        draw.line((place(x, y_low), place(x, y_high)), "#e6e6e6")
        draw.line((place(x_low, y), place(x_high, y)), "#e6e6e6")
        draw.text((place(x, y)[0], HEIGHT - BOTTOM + 8), f"{x:.3g}", "#333", small, "mt")
        draw.text((LEFT - 8, place(x, y)[1]), f"{y:.3g}", "#333", small, "rm")
    draw.rectangle((place(x_low, y_high), place(x_high, y_low)), outline="#333")
    for number, one in enumerate(series):
        colour = COLOURS[number]
        spots = [place(x, y) for x, y in one.points]
        if one.joined:
            draw.line(spots, colour, 3)
        for x, y in spots:
            draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), colour)
    draw.text((WIDTH / 2, 16), title, "#111", font, "mt")
    draw.text((WIDTH / 2, HEIGHT - 16), x_name, "#111", small, "mb")
    upright = Image.new("L", (HEIGHT, 24))
    ImageDraw.Draw(upright).text((HEIGHT / 2, 12), y_name, 255, small, "mm")
    upright = upright.rotate(90, expand=True)
    picture.paste("#111111", (6, 0), upright)
    picture = _with_names(picture, series, small)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.05 or 1.0
    return low - room, high + room


def _with_names(picture: Image.Image, series: Sequence[Series], font: object) -> Image.Image:
    """The plot with the names of its series below, two in a line."""
    line, across = 24, picture.width // 2
    taller = Image.new("RGB", (WIDTH, HEIGHT + line * ((len(series) + 1) // 2) + 10), "white")
    taller.paste(picture)
    draw = ImageDraw.Draw(taller)
    for number, one in enumerate(series):
        x, y = LEFT // 2 + number % 2 * across, HEIGHT + 12 + number // 2 * line
        draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), COLOURS[number])
        draw.text((x + 14, y), one.name, "#111", font, "lm")  # pyright: ignore[reportArgumentType]
    return taller
