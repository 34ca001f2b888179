"""Best matches → pictures: where each place came from as a colour, the surest matches as arrows."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..maps import BestMatches
from ..tokens import WHOLE_PICTURE, Rectangle

ARROW_GAP = 1.4  # least distance between two arrows, in cells of the result
_PAPER = (22, 22, 24)
_INK = (236, 236, 238)
_WHEEL = 0.16  # fraction of the shorter side of the picture
_SMALLEST_WHEEL = 72  # pixels
_SMOOTH = 4  # lines are drawn this many times larger, then scaled down


def flow_image(matches: BestMatches, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Matches → the offset from each place of the result to its match, as a colour, with a key.

    The two pictures are taken as laid over each other. The hue is the direction of the offset.
    The saturation is its length, from white for none to full colour for the longest offset of the
    picture. The brightness is the confidence: black for none, full for the highest. Returns
    (batch, height, width + key, 3) in 0–1 and the longest offset of each batch item, as a fraction
    of the picture.
    """
    grid, steps = matches.result, matches.steps
    longest = steps.square().sum(-1).sqrt().amax(1).clamp(min=1e-6)
    colours = _wheel(steps / longest[:, None, None])
    light = matches.confidence / matches.confidence.amax(1, keepdim=True).clamp(min=1e-12)
    colours = (colours * light.unsqueeze(-1)).reshape(-1, *grid.sides, 3)
    rows, columns = (
        ((torch.arange(pixels) + 0.5) * covered / pixels).long().clamp(max=cells - 1)
        for pixels, covered, cells in zip(size, grid.covered, grid.sides, strict=True)
    )
    picture = colours[:, rows][:, :, columns]
    keys = torch.stack([_key(size[0], min(size), float(way)) for way in longest])
    return torch.cat((picture, keys.to(picture)), 2), longest


def _wheel(steps: Tensor) -> Tensor:
    """Offsets (…, 2), x, y, of length ≤ 1 → colours (…, 3). Right is red, down yellow-green."""
    hue = (torch.atan2(steps[..., 1], steps[..., 0]) / (2 * math.pi)) % 1
    shift = torch.tensor([0, 2 / 3, 1 / 3])
    pure = ((((hue.unsqueeze(-1) + shift) % 1) * 6 - 3).abs() - 1).clamp(0, 1)
    strength = steps.square().sum(-1).sqrt().clamp(max=1).unsqueeze(-1)
    return 1 + strength * (pure - 1)


def _key(height: int, side: int, longest: float) -> Tensor:
    """The colour wheel, with its radius and meaning in words: (height, width, 3)."""
    across = max(_SMALLEST_WHEEL, round(side * _WHEEL))
    letters, gap = across // 7, across // 12
    font = ImageFont.load_default(letters)
    page = Image.new("RGB", (across + 2 * gap, height), _PAPER)
    line = (torch.arange(across) + 0.5) / across * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    inside = (x**2 + y**2 <= 1).unsqueeze(-1)
    wheel = torch.where(inside, _wheel(torch.stack((x, y), -1)), torch.tensor(_PAPER) / 255)
    page.paste(_image(wheel), (gap, gap))
    draw = ImageDraw.Draw(page)
    words = (f"edge: {longest:.0%} of", "the picture", "centre: no way", "dark: unsure")
    for number, text in enumerate(words):
        top = across + 2 * gap + number * round(1.3 * letters)
        draw.text((gap, top), text, _INK, font)
    return torch.as_tensor(np.array(page)).float() / 255


def most_confident(
    matches: BestMatches, item: int, count: int, inside: Tensor | None = None
) -> Tensor:
    """The cells of the result with the most confident matches, the surest first.

    No two are closer than ARROW_GAP. inside: (cells,), bool, the cells to choose from.
    """
    confidence = matches.confidence[item]
    allowed = confidence > 0 if inside is None else (confidence > 0) & inside
    rows = torch.arange(matches.result.area) // matches.result.width
    places = torch.stack((rows, torch.arange(matches.result.area) % matches.result.width), -1)
    chosen: list[int] = []
    for cell in map(int, confidence.argsort(descending=True, stable=True)):
        apart = (places[chosen] - places[cell]).square().sum(-1).sqrt()
        if bool(allowed[cell]) and bool((apart >= ARROW_GAP).all()):
            chosen.append(cell)
        if len(chosen) == count:
            break
    return torch.tensor(chosen, dtype=torch.long)


def arrow_image(
    result: Tensor,
    reference: Tensor,
    matches: BestMatches,
    item: int,
    cells: Tensor,
    part: Rectangle = WHOLE_PICTURE,
) -> Tensor:
    """Both pictures side by side, the reference left, with an arrow from each match to its place.

    result, reference: (height, width, 3) in 0–1, of any sizes. part: the part of the reference that
    its cells lie over. Returns (1, height, width, 3). Arrows take their colours from around the
    wheel, in the order of `cells`. Mutual matches have solid lines, the others dashed ones.
    """
    height = max(result.shape[0], reference.shape[0])
    pages = [_image(picture) for picture in (reference, result)]
    pages = [page.resize((round(page.width * height / page.height), height)) for page in pages]
    gap = max(8, height // 24)
    sheet = Image.new("RGB", (sum(page.width for page in pages) + gap, height), _PAPER)
    starts = (0, pages[0].width + gap)
    for page, left in zip(pages, starts, strict=True):
        sheet.paste(page, (left, 0))
    large = sheet.resize((sheet.width * _SMOOTH, sheet.height * _SMOOTH), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(large)
    places, ends = matches.ends(item, cells)
    sizes = [torch.tensor([page.width, page.height]) for page in pages]
    hues = torch.arange(len(cells)) / max(1, len(cells)) * 2 * math.pi
    colours = (_wheel(torch.stack((hues.cos(), hues.sin()), -1)) * 255).round().int()
    thick = max(1, round(height / 170)) * _SMOOTH
    ends = ends * torch.tensor([part.width, part.height]) + torch.tensor([part.left, part.top])
    for place, end, colour, cell in zip(places, ends, colours, map(int, cells), strict=True):
        start = [float(n) * _SMOOTH for n in end * sizes[0]]
        shifted = place * sizes[1] + torch.tensor([starts[1], 0])
        stop = [float(n) * _SMOOTH for n in shifted]
        painted = tuple(int(part) for part in colour)
        _arrow(draw, start, stop, painted, thick, bool(matches.mutual[item, cell]))
    drawn = large.resize(sheet.size, Image.Resampling.LANCZOS)
    return (torch.as_tensor(np.array(drawn)).float() / 255).unsqueeze(0)


def _arrow(
    draw: ImageDraw.ImageDraw,
    start: list[float],
    stop: list[float],
    colour: tuple[int, ...],
    thick: int,
    full: bool,
) -> None:
    """A line with a dot at its start and a head at its end; dashed if not `full`."""
    way = [b - a for a, b in zip(start, stop, strict=True)]
    length = math.hypot(*way) or 1.0
    along = [n / length for n in way]
    dash = length if full else 5.0 * thick
    at = 0.0
    while at < length:
        some = [[a + n * to for a, n in zip(start, along, strict=True)] for to in (at, at + dash)]
        if at + dash > length:
            some[1] = stop
        draw.line([(x, y) for x, y in some], fill=_shadow(colour), width=thick + thick // 2)
        draw.line([(x, y) for x, y in some], fill=colour, width=thick)
        at += 2 * dash
    x, y = start
    dot = 1.6 * thick
    draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=colour, outline=_shadow(colour))
    (x, y), (dx, dy), head = stop, along, 5.0 * thick
    base = x - head * dx, y - head * dy
    wing = head / 2
    left = base[0] - wing * dy, base[1] + wing * dx
    right = base[0] + wing * dy, base[1] - wing * dx
    draw.polygon([(x, y), left, right], fill=colour, outline=_shadow(colour))


def _shadow(colour: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(part // 4 for part in colour)


def _image(picture: Tensor) -> Image.Image:
    """(height, width, 3) in 0–1 → a Pillow image."""
    return Image.fromarray((picture.clamp(0, 1) * 255).round().byte().cpu().numpy())
