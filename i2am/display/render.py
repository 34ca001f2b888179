"""AttributionMap → pictures: resize, choose a range, colour, blend, label. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..maps import FLAT, AttributionMap, display_values, is_share, unit
from ..scores import paper_normalise
from ..scores.imacs import THRESHOLD
from ..tokens import resample_nonnegative
from .colormaps import Colormap, Diverging, colorize, table

ABSOLUTE_HIGH = 4.0  # times an even spread: the top of the absolute scale
DIM = 0.35  # fraction of the picture's light removed where the map is low, at opacity 1
FADE = 0.5  # fraction of the picture's colour, likewise
_PAPER = (22, 22, 24)  # behind labels, sRGB
_INK = (236, 236, 238)
_UNDRAWN = str.maketrans("×–—", "x--")  # characters that Pillow's own font lacks
_CAPTION_FROM = 160  # pixels of width: a narrower picture has room only for numbers


class Scale(str, Enum):
    """What the two ends of the colour map stand for."""

    PER_MAP = "per map"  # each map's own lowest and highest: shows its pattern
    SHARED = "shared"  # the lowest and highest of all maps: shows how they compare
    ABSOLUTE = "absolute"  # the same for every run: shows how runs compare
    PAPER = "paper"  # the authors' code: min-max before and after resizing, cut at 0.4
    PAPER_COMPLEMENT = "paper, complement"  # likewise, but one minus the map before the cut


def value_range(values: Tensor, scale: Scale, map: AttributionMap) -> tuple[Tensor, Tensor]:
    """The range to paint each map in: low and high, each (batch, maps).

    values: `display_values` of the map, resized or not, (batch, maps, height, width).
    """
    if scale is Scale.ABSOLUTE:
        low = torch.zeros_like(values[..., 0, 0])
        return low, low + (1.0 if is_share(map) else ABSOLUTE_HIGH)
    if scale is Scale.SHARED:
        low, high = values.aminmax()
        return low.expand(values.shape[:2]), high.expand(values.shape[:2])
    return values.amin((-2, -1)), values.amax((-2, -1))


@dataclass(frozen=True)
class Painted:
    """Values to colour, 0 to 1: (batch, maps, height, width), and what their ends stand for.

    low, high: (batch, maps), in `unit`. words: what was done to the values, for captions.
    """

    values: Tensor
    low: Tensor
    high: Tensor
    unit: str
    words: str = ""


def paint(map: AttributionMap, scale: Scale, size: tuple[int, int]) -> Painted:
    """A map → its values over a picture of (height, width) pixels, scaled to colour."""
    if scale in (Scale.PAPER, Scale.PAPER_COMPLEMENT):
        values = paper_normalise(map.values, map.grid, size)
        words = f"min-max, cut at {THRESHOLD}"
        if scale is Scale.PAPER_COMPLEMENT:
            values, words = 1 - values, f"complement, {words}"
        values = torch.where(values > THRESHOLD, values, 0)
        low = torch.zeros_like(values[..., 0, 0])
        return Painted(values, low, low + 1, "", words)
    values = resample_nonnegative(display_values(map), map.grid, size)
    low, high = value_range(values, scale, map)
    return Painted(normalise(values, low, high), low, high, unit(map))


def normalise(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Values (..., height, width) → 0..1 between their low and high (...), clamped.

    A range narrower than a thousandth of `high` is flat: all of it is drawn as low. Stretching it
    would turn rounding noise into a pattern.
    """
    low, high = low[..., None, None], high[..., None, None]
    flat = high - low <= FLAT * high.abs()
    return torch.where(flat, 0.0, (values - low) / torch.where(flat, 1, high - low)).clamp(0, 1)


def heatmap(values: Tensor, colormap: Colormap) -> Tensor:
    """(batch, height, width) in 0..1 → the map alone in colours: (batch, height, width, 3)."""
    return colorize(values, colormap)


def overlay(image: Tensor, values: Tensor, colormap: Colormap, opacity: float) -> Tensor:
    """A map and its picture → the map over the picture, which is dimmed and shows where it is low.

    image: (batch, height, width, 3) in 0..1; values: (batch, height, width) in 0..1. Opacity 0
    gives the picture itself. Opacity 1 gives the pure colour where the map is 1.
    """
    alpha = (opacity * values * (2 - values))[..., None]  # levels off, so that middle values show
    luma = (image * image.new_tensor([0.2126, 0.7152, 0.0722])).sum(-1, keepdim=True)
    dimmed = image.lerp(luma, opacity * FADE) * (1 - opacity * DIM)
    return dimmed.lerp(colorize(values, colormap).to(image), alpha)


def difference_overlay(image: Tensor, values: Tensor) -> Tensor:
    """A difference and its picture → the difference over the picture, which shows where it is zero.

    image: (batch, height, width, 3) in 0..1; values: (batch, height, width) in -1..1.
    """
    strength = values.abs().clamp(max=1)
    alpha = (strength * (2 - strength))[..., None]
    luma = (image * image.new_tensor([0.2126, 0.7152, 0.0722])).sum(-1, keepdim=True)
    colors = colorize((values + 1) / 2, Diverging.BLUE_ORANGE).to(image)
    return (luma.expand_as(image) * (1 - DIM)).lerp(colors, alpha)


def legend(
    image: Tensor,
    low: Tensor,
    high: Tensor,
    colormap: Colormap | Diverging,
    caption: str,
    unit: str,
) -> Tensor:
    """Pictures → with a strip below that explains the colours: (batch, height + strip, width, 3).

    low, high: (batch,), the range painted, in the units of `display_values`. unit: "×" or "%".
    A caption that takes too much of the first row moves to rows of its own. It is left out if the
    picture is too narrow for it, and so are numbers that would overlap.
    """
    _, height, width, _ = image.shape
    font = _font(height, width)
    caption = caption.translate(_UNDRAWN)
    gap = max(2, round(font.size / 2))
    row = round(font.size * 1.9)
    beside = font.getlength(caption) + 2 * gap <= width / 2
    below = _lines(caption, font, width - 2 * gap) if not beside and width >= _CAPTION_FROM else []
    bar_stop = round(width - font.getlength(caption) - 3 * gap) if beside else width - gap
    strips: list[Tensor] = []
    for lowest, highest in zip(low, high, strict=True):
        strip = Image.new("RGB", (width, row * (1 + len(below))), _PAPER)
        draw = ImageDraw.Draw(strip)
        left, right = _number(float(lowest), unit), _number(float(highest), unit)
        start = round(gap + font.getlength(left) + gap)
        stop = round(bar_stop - font.getlength(right) - gap)
        if stop > start:
            draw.text((gap, row / 2), left, _INK, font, "lm")
            draw.text((bar_stop, row / 2), right, _INK, font, "rm")
            thick = max(3, round(font.size * 0.8))
            colors = Image.fromarray((table(colormap)[None] * 255).round().byte().numpy())
            bar = colors.resize((stop - start, thick), Image.Resampling.BILINEAR)
            strip.paste(bar, (start, (row - thick) // 2))
        if beside:
            draw.text((width - gap, row / 2), caption, _INK, font, "rm")
        for number, text in enumerate(below):
            draw.text((gap, row * (1.4 + 0.9 * number)), text, _INK, font, "lm")
        strips.append(_tensor(strip))
    return torch.cat((image, torch.stack(strips).to(image)), 1)


def contact_sheet(images: Tensor, labels: Sequence[str], columns: int | None = None) -> Tensor:
    """Maps → all of them on one picture, row by row, each under its label.

    images: (batch, maps, height, width, 3). Returns (batch, sheet height, sheet width, 3).
    columns: by default the number that brings the sheet closest to 4:3.
    """
    batch, maps, height, width, _ = images.shape
    font = _font(height, width)
    gap = max(2, round(font.size / 2))
    tile_height, tile_width = height + round(font.size * 1.7) + gap, width + gap
    if columns is None:
        ratios = {n: n * tile_width / (-(-maps // n) * tile_height) for n in range(1, maps + 1)}
        columns = min(ratios, key=lambda n: abs(math.log(ratios[n] / (4 / 3))))
    rows = -(-maps // columns)
    page = Image.new("RGB", (columns * tile_width + gap, rows * tile_height), _PAPER)
    draw = ImageDraw.Draw(page)
    corners = [(n // columns * tile_height, n % columns * tile_width + gap) for n in range(maps)]
    for (top, left), label in zip(corners, labels, strict=True):
        middle = top + (tile_height - gap - height + gap / 2) / 2
        draw.text((left, middle), _fit(label, font, width), _INK, font, "lm")
    sheet = _tensor(page).to(images).repeat(batch, 1, 1, 1)
    for n, (top, left) in enumerate(corners):
        top += tile_height - gap - height
        sheet[:, top : top + height, left : left + width] = images[:, n]
    return sheet


def _font(height: int, width: int) -> ImageFont.FreeTypeFont:
    """A font that suits a picture of this size and leaves room for a dozen letters."""
    size = max(9, round(min(max(12, math.sqrt(height * width) / 36), width / 13)))
    return ImageFont.load_default(size)  # type: ignore[return-value]


def _fit(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """A text → what the font can draw of it, with an ellipsis if it is too wide."""
    whole = text = text.translate(_UNDRAWN)
    while text and font.getlength(whole) > width:
        text = text[:-1]
        whole = text.rstrip() + "…"
    return whole


def _lines(caption: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """A caption → as many lines as it needs, broken between its parts."""
    lines = [""]
    for part in caption.split(" · "):
        longer = f"{lines[-1]} · {part}" if lines[-1] else part
        if lines[-1] and font.getlength(longer) > width:
            lines.append(part)
        else:
            lines[-1] = longer
    return [_fit(line, font, width) for line in lines]


def _number(value: float, unit: str) -> str:
    """A value → few digits and its unit, in characters the font has: "0.23x", "12.5%"."""
    value = 100 * value if unit == "%" else value
    short = f"{round(value, 1 if abs(value) >= 10 else 2):g}"
    return (f"{value:.1g}" if short == "0" else short) + unit.translate(_UNDRAWN)


def _tensor(picture: Image.Image) -> Tensor:
    """An RGB picture → (height, width, 3) in 0..1."""
    return torch.as_tensor(np.array(picture)).float() / 255


# Okabe and Ito's colours, distinct for the colour-blind; the ninth source reuses the first.
SOURCE_COLORS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167), (245, 245, 245)),
)
_SOURCE_OPACITY = 0.55


def paint_sources(image: Tensor, strongest: Tensor) -> Tensor:
    """Pictures → in grey, each place in its source's colour: (batch, height, width, 3).

    strongest: (batch, height, width) integers, n for source n, 0 for no colour.
    """
    luma = (image * image.new_tensor([0.2126, 0.7152, 0.0722])).sum(-1, keepdim=True)
    grey = (luma * (1 - DIM)).expand_as(image)
    colors = torch.tensor(SOURCE_COLORS).to(image) / 255
    painted = luma.lerp(colors[(strongest - 1).clamp(min=0) % len(SOURCE_COLORS)], _SOURCE_OPACITY)
    return torch.where((strongest > 0)[..., None], painted, grey)


def source_legend(image: Tensor, texts: Sequence[Sequence[str]], rest: str) -> Tensor:
    """Pictures → with a row below for each source, its colour and text, and a row for the rest.

    texts: for each picture one text for each source. Returns (batch, height + rows, width, 3).
    """
    _, height, width, _ = image.shape
    font = _font(height, width)
    row, gap = round(font.size * 1.7), max(2, round(font.size / 2))
    strips: list[Tensor] = []
    for own in texts:
        strip = Image.new("RGB", (width, row * (len(own) + 1)), _PAPER)
        draw = ImageDraw.Draw(strip)
        for number, text in enumerate((*own, rest)):
            color = (110, 110, 110)
            if number < len(own):
                color = SOURCE_COLORS[number % len(SOURCE_COLORS)]
            top = number * row + (row - font.size) / 2
            draw.rectangle((gap, top, gap + font.size, top + font.size), color)
            left = 2 * gap + font.size
            fitted = _fit(text, font, width - left - gap)
            draw.text((left, (number + 0.5) * row), fitted, _INK, font, "lm")
        strips.append(_tensor(strip))
    return torch.cat((image, torch.stack(strips).to(image)), 1)
