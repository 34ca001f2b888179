"""Maps → the pictures that nodes give and show: overlays, heat maps, sheets, previews."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from comfy_api.latest import io, ui
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from ..i2am.display import (
    Colormap,
    Scale,
    contact_sheet,
    heatmap,
    legend,
    overlay,
    paint,
    place_pictures,
    place_values,
)
from ..i2am.maps import EVERY_FRAME, MEAN_FRAME, AttributionMap, caption
from ..i2am.recording import Attribution, Direction, Whole
from ..i2am.tokens import frames_of

PREVIEW_SIDE = 384  # pixels: the least for the longer side of what a node shows


Look = tuple[Colormap, float, Scale, bool]  # colours, opacity, scale, with a legend or not


@dataclass(frozen=True)
class Drawn:
    """A node's pictures, (pictures, height, width, 3), and mask; preview: what it shows itself."""

    overlay: Tensor
    heatmap: Tensor
    mask: Tensor
    sheet: Tensor
    preview: Tensor

    def shown(self, cls: type[io.ComfyNode], text: str) -> dict[str, object]:
        """What the page shows on the node."""
        return {**ui.PreviewImage(self.preview, cls=cls).as_dict(), "i2am_text": [text]}


def draw_maps(
    maps: AttributionMap,
    pictures: Tensor | None,
    over: list[tuple[int, int]],
    size: tuple[int, int],
    look: Look,
    whole: Whole | None = None,
) -> Drawn:
    """Maps laid over their pictures.

    over: which map goes over which of the pictures, (1 or batch, pictures, height, width, 3).
    whole: what the pictures are a part of; what is drawn then is all of it, dimmed around the part.
    """
    overlays, heatmaps, values = _draw(maps, pictures, over, size, *look, whole)
    # Where a map lies over several pictures, the first is enough to show.
    numbers = [number for number, _ in over]
    firsts = [numbers.index(number) for number in range(len(maps.labels))]
    sheet = contact_sheet(overlays[:, firsts], maps.labels)
    shown, one_map = sheet, len(maps.labels) == 1
    if one_map:
        factor = math.ceil(PREVIEW_SIDE / max(size if whole is None else whole.size))
        shown = overlays
        if factor > 1:  # the page shows pictures no larger than they are: a small one is lost
            size = size[0] * factor, size[1] * factor
            _, number = over[0]
            picture = None if pictures is None else enlarged(pictures[:, number], factor)[:, None]
            large = None
            if whole is not None and pictures is not None:
                under = around(pictures, whole)[:, number]
                large = whole.enlarged(enlarged(under, factor), factor)
            shown, _, _ = _draw(maps, picture, [(0, 0)], size, *look, large)
        shown = rearrange(shown, "b pictures ... -> (b pictures) ...")
    overlays, heatmaps, values = (
        rearrange(x, "b pictures ... -> (b pictures) ...") for x in (overlays, heatmaps, values)
    )
    return Drawn(overlays, heatmaps, values, sheet, shown)


def maps_over(
    pictures: Tensor | None,
    maps: int,
    attribution: Attribution,
    direction: Direction,
    reference: int,
    frame: int,
) -> list[tuple[int, int]]:
    """Which map goes over which of a video's pictures: every frame's over all pictures it stands
    for, others over the one in the middle. A still picture is the only one."""
    frames = attribution.frames(direction, reference - 1)
    if pictures is None or frames == 1:
        return [(number, 0) for number in range(maps)]
    frame_of = frames_of(pictures.shape[1], frames)
    if frame == EVERY_FRAME:
        starts = range(0, maps, frames)
        return [(start + of, picture) for start in starts for picture, of in enumerate(frame_of)]
    own = [picture for picture, of in enumerate(frame_of) if frame in (MEAN_FRAME, of)]
    return [(number, own[len(own) // 2]) for number in range(maps)]


def enlarged(pictures: Tensor, factor: int) -> Tensor:
    """Pictures (count, height, width, 3) so many times larger."""
    pixels = pictures.movedim(-1, 1)
    size = pixels.shape[-2] * factor, pixels.shape[-1] * factor
    pixels = interpolate(pixels, size, mode="bicubic", align_corners=False)
    return pixels.movedim(1, -1).clamp(0, 1)


def _draw(
    maps: AttributionMap,
    pictures: Tensor | None,
    over: list[tuple[int, int]],
    size: tuple[int, int],
    colormap: Colormap,
    opacity: float,
    scale: Scale,
    with_legend: bool,
    whole: Whole | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Overlays and heat maps (batch, maps, height, width, 3), and the values painted, 0 to 1.

    over: which map goes over which of the pictures, (1 or batch, pictures, height, width, 3).
    """
    painted = paint(maps, scale, size)
    words = " · ".join(filter(None, (caption(maps), painted.words)))
    overlays: list[Tensor] = []
    heatmaps: list[Tensor] = []
    for column, number in over:
        values = painted.values[:, column]
        drawn = heatmap(values, colormap)
        laid = drawn
        if pictures is not None:
            laid = overlay(pictures[:, number], values, colormap, opacity)
        if whole is not None and pictures is not None:
            under = around(pictures, whole)[:, number]
            drawn = place_pictures(drawn, whole, torch.zeros_like(under))
            laid = place_pictures(laid, whole, under)
        if with_legend:
            ends = painted.low[:, column], painted.high[:, column]
            drawn, laid = (
                legend(picture, *ends, colormap, words, painted.unit) for picture in (drawn, laid)
            )
        overlays.append(laid)
        heatmaps.append(drawn)
    columns = [column for column, _ in over]
    values = place_values(painted.values[:, columns], whole)
    return torch.stack(overlays, 1), torch.stack(heatmaps, 1), values


def around(pictures: Tensor, whole: Whole) -> Tensor:
    """What each of the pictures is a part of: (1 or batch, pictures, height, width, 3)."""
    return whole.pictures.reshape(*pictures.shape[:2], *whole.size, 3)
