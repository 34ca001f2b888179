"""Compare Attributions: the difference between two runs, or between two references."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from comfy_api.latest import io, ui
from torch import Tensor
from torch.nn.functional import interpolate

from ...i2am.display import Diverging, colorize, difference_overlay, legend, place_pictures
from ...i2am.maps import (
    AttributionMap,
    Comparison,
    attribution_map,
    caption,
    compare_maps,
    is_share,
    item_shares,
    unit,
)
from ...i2am.recording import Attribution, Definition, Direction, Whole
from ...i2am.scores import imacs_score
from ..drawing import PREVIEW_SIDE, around, enlarged
from ..inputs import AUTO, REFERENCE, choose_definition, fitted_mask
from ..sockets import AttributionSocket

_SAME = 0


class CompareAttributions(io.ComfyNode):
    """Two attributions → the second minus the first, drawn and in numbers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Compare",
            display_name="Compare Attributions",
            category="I2AM",
            description="Shows what changed between two runs, or how two references of one run "
            "differ. Orange: the other has more. Blue: the first has more.",
            search_aliases=["difference", "before after", "ab test", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input(
                    "attribution", tooltip="The first run, for example the one before a change."
                ),
                AttributionSocket.Input(
                    "other",
                    tooltip="The other run, for example the one after it. To compare two "
                    "references of one run, connect the same attribution to both.",
                ),
                io.Combo.Input(
                    "direction",
                    options=[direction.value for direction in Direction],
                    default=Direction.REFERENCE_TO_GENERATED.value,
                    optional=True,
                    tooltip="Reference to generated compares over the result where the reference "
                    "was used; generated to reference compares over the reference what of it was.",
                ),
                REFERENCE,
                io.Int.Input(
                    "other_reference",
                    default=_SAME,
                    optional=True,
                    min=_SAME,
                    max=64,
                    tooltip="Which reference of the other attribution. 0 takes the same number.",
                ),
                io.Combo.Input(
                    "definition",
                    options=[AUTO, *(definition.value for definition in Definition)],
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="Which maps to compare; see Attribution Map. Auto is chosen for the "
                    "first attribution.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the map should lie, to compare IMACS as well. If left open, "
                    "each attribution's own mask over the result is used.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="overlay",
                    tooltip="The difference over the first attribution's picture. Orange: more in "
                    "the other. Blue: more in the first.",
                ),
                io.Float.Output(
                    display_name="correlation",
                    is_output_list=True,
                    tooltip="How alike the patterns of the two maps are, from -1 to 1 (the same), "
                    "one number for each picture.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="Correlation, shares and scores of both, in words.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        attribution: Attribution,
        other: Attribution,
        direction: str = Direction.REFERENCE_TO_GENERATED.value,
        reference: int = 1,
        other_reference: int = _SAME,
        definition: str = AUTO,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        chosen, over = choose_definition(attribution, definition), Direction(direction)
        sides = (attribution, reference), (other, other_reference or reference)
        maps = [
            attribution_map(one.recording, chosen, over, reference=number - 1)
            for one, number in sides
        ]
        size = attribution.size(over, reference - 1)
        found = compare_maps(maps[0], maps[1], size)
        pictures = attribution.video(over, reference - 1)
        picture = None if pictures is None else pictures[:, pictures.shape[1] // 2]
        whole = attribution.whole(over, reference - 1)
        if whole is not None and pictures is not None:
            whole = replace(whole, pictures=around(pictures, whole)[:, pictures.shape[1] // 2])
        overlay = _draw(found, maps[0], picture, size, whole)
        factor = math.ceil(PREVIEW_SIDE / max(size if whole is None else whole.size))
        large = size[0] * factor, size[1] * factor
        if whole is not None:
            whole = whole.enlarged(enlarged(whole.pictures, factor), factor)
        shown = _draw(found, maps[0], picture, large, whole)
        text = _report(found, maps, sides, mask)
        return io.NodeOutput(
            overlay,
            found.correlation.tolist(),
            text,
            ui={**ui.PreviewImage(shown, cls=cls).as_dict(), "i2am_text": [text]},
        )


def _draw(
    found: Comparison,
    map: AttributionMap,
    picture: Tensor | None,
    size: tuple[int, int],
    whole: Whole | None,
) -> Tensor:
    """A comparison → drawn over the picture, with a legend: (batch, height, width, 3)."""
    high = found.highest
    scaled = found.difference / torch.where(high > 0, high, 1)[:, None, None]
    scaled = torch.where(high[:, None, None] > 0, scaled, 0)
    scaled = _sized(scaled[:, None], size)[:, 0].clamp(-1, 1)
    if picture is None:
        drawn = colorize((scaled + 1) / 2, Diverging.BLUE_ORANGE)
    else:
        still = _sized(picture.movedim(-1, 1), size).movedim(1, -1).clamp(0, 1)
        drawn = difference_overlay(still.expand(len(scaled), -1, -1, -1), scaled)
    if whole is not None:
        drawn = place_pictures(drawn, whole)
    title = f"difference · {caption(map)}"
    return legend(drawn, -high, high, Diverging.BLUE_ORANGE, title, unit(map))


def _sized(values: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(values.shape[-2:]) == size:
        return values
    return interpolate(values, size, mode="bicubic", align_corners=False)


def _report(
    found: Comparison,
    maps: list[AttributionMap],
    sides: tuple[tuple[Attribution, int], ...],
    mask: Tensor | None,
) -> str:
    count = len(found.correlation)
    shares = [
        item_shares(one.recording)[:, 1 + number].expand(count).tolist() for one, number in sides
    ]
    scores = [
        _scores(one, number, map, mask, count)
        for (one, number), map in zip(sides, maps, strict=True)
    ]
    points = "percentage points" if is_share(maps[0]) else "× an even spread"
    lines: list[str] = []
    for item in range(count):
        which = f"Picture {item + 1}: " if count > 1 else ""
        alike, high = float(found.correlation[item]), float(found.highest[item])
        high = 100 * high if is_share(maps[0]) else high
        same = "a map is the same everywhere, so none" if math.isnan(alike) else f"{alike:+.3f}"
        first, second = (share[item] for share in shares)
        lines += [
            f"{which}Correlation of the two maps: {same}; largest difference {high:.2g} {points}",
            f"Share of the model's attention: {first:.2%} → {second:.2%} "
            f"({100 * (second - first):+.2f} percentage points)",
        ]
        if scores[0] is not None and scores[1] is not None:
            first, second = scores[0][item], scores[1][item]
            lines.append(f"IMACS: {first:+.3f} → {second:+.3f} ({second - first:+.3f})")
    names = " against ".join(f"reference {number}" for _, number in sides)
    lines.append(f"{caption(maps[0])}, {names}")
    if None in scores:
        lines.append("No IMACS: there is no mask for both")
    return "\n".join(lines)


def _scores(
    attribution: Attribution, reference: int, map: AttributionMap, mask: Tensor | None, count: int
) -> list[float] | None:
    over_result = map.direction is Direction.REFERENCE_TO_GENERATED
    if mask is None and over_result:
        mask = attribution.mask
    if mask is None:
        return None
    mask = fitted_mask(mask, attribution, map.direction, reference - 1, "mask")
    return imacs_score(map, mask).imacs.expand(count).tolist()
