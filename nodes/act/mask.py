"""Attribution to Mask and Locate Object: from a map to a mask or box for the rest of the graph."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from comfy_api.latest import io, ui
from torch import Tensor
from torch.nn.functional import interpolate

from ...i2am.display import place_pictures, place_values
from ...i2am.errors import I2AMError
from ...i2am.maps import AttributionMap, attribution_map
from ...i2am.recording import Attribution, Direction, Whole
from ...i2am.scores import (
    KERNEL,
    PERCENTILE,
    THRESHOLD,
    Box,
    Method,
    feather,
    grow,
    locate_object,
    mask_of,
)
from ..drawing import PREVIEW_SIDE, around
from ..inputs import (
    AUTO,
    DEFINITION,
    REFERENCE,
    WITHIN_MASK,
    choose_definition,
    direction_input,
    mask_within,
)
from ..sockets import AttributionSocket

_DIRECTION = direction_input(
    "Reference to generated: places of the result that used the reference. Generated to reference: "
    "places of the reference that were used."
)
_OUTSIDE_LIGHT = 0.3  # fraction of the picture's light kept outside the mask
_LINE = (1.0, 0.82, 0.1)  # colour of a box, sRGB
_LINES_IN_SIDE = 100  # the shorter side of the picture divided by the width of a box's line


class AttributionToMask(io.ComfyNode):
    """ATTRIBUTION → a mask of the places where a map is high."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_ToMask",
            display_name="Attribution to Mask",
            category="I2AM",
            description="Makes a mask of where the reference was used in the result, or of what "
            "was used of the reference: for inpainting, refining or cutting out.",
            search_aliases=["segment", "auto mask", "attention mask", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                _DIRECTION,
                REFERENCE,
                DEFINITION,
                io.Combo.Input(
                    "method",
                    options=[method.value for method in Method],
                    default=Method.OTSU.value,
                    optional=True,
                    tooltip="How to choose what is white. Otsu finds the cut that best separates "
                    "bright from dark by itself. Threshold: everything above this percentage of "
                    "the way from the map's lowest to its highest value. Top percent: the highest "
                    "places, as a percentage of the picture. Area: the fewest places that "
                    "together hold this percentage of the attention.",
                ),
                io.Float.Input(
                    "value",
                    default=50.0,
                    optional=True,
                    min=0.0,
                    max=100.0,
                    step=1.0,
                    tooltip="The percentage for the method. Otsu needs none.",
                ),
                io.Int.Input(
                    "grow",
                    default=0,
                    optional=True,
                    min=-256,
                    max=256,
                    tooltip="Moves the edge of the mask outwards by this many pixels; inwards if "
                    "negative.",
                ),
                io.Float.Input(
                    "feather",
                    default=0.0,
                    optional=True,
                    min=0.0,
                    max=256.0,
                    step=1.0,
                    tooltip="Over how many pixels the edge of the mask fades.",
                ),
                WITHIN_MASK,
            ],
            outputs=[
                io.Mask.Output(
                    display_name="mask",
                    tooltip="White where the map is high, at the size of the picture it lies "
                    "over; one mask for each picture.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        attribution: Attribution,
        direction: str = Direction.REFERENCE_TO_GENERATED.value,
        reference: int = 1,
        definition: str = AUTO,
        method: str = Method.OTSU.value,
        value: float = 50.0,
        grow: int = 0,
        feather: float = 0.0,
        within_mask: bool = False,
    ) -> io.NodeOutput:
        maps = _map(attribution, definition, direction, reference, within_mask)
        size = attribution.size(maps.direction, reference - 1)
        mask = _edged(mask_of(maps, size, Method(method), value), grow, feather)
        pictures = _pictures(attribution, maps.direction, reference, len(mask), size)
        whole = _whole(attribution, maps.direction, reference)
        shown, mask = place_pictures(_lit(pictures, mask), whole), place_values(mask, whole)
        part = ", ".join(f"{share:.1%}" for share in mask.mean((1, 2)).tolist())
        return io.NodeOutput(
            mask,
            ui={
                **ui.PreviewImage(_large(shown), cls=cls).as_dict(),
                "i2am_text": [f"The mask covers {part} of the picture."],
            },
        )


class LocateObject(io.ComfyNode):
    """ATTRIBUTION → the box around the brightest part of a map."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Locate",
            display_name="Locate Object",
            category="I2AM",
            description="Finds where the object of the reference went in the result, or where it "
            "is in the reference, and gives its box. This is the I2AM paper's object detection, "
            "without a detector.",
            search_aliases=["bbox", "bounding box", "detect", "find", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                _DIRECTION,
                REFERENCE,
                DEFINITION,
                io.Float.Input(
                    "percentile",
                    default=PERCENTILE,
                    optional=True,
                    min=0.0,
                    max=100.0,
                    step=1.0,
                    tooltip="Only what is higher than this percentage of the picture counts. The "
                    "paper uses 65, which keeps the highest 35 %.",
                ),
                io.Int.Input(
                    "morphology",
                    default=KERNEL,
                    optional=True,
                    min=1,
                    max=255,
                    step=2,
                    advanced=True,
                    tooltip="Removes specks narrower than this, closes gaps, and widens the box "
                    "by half of it. In pixels of a picture whose longer side is 512. The paper "
                    "uses 5; 1 does nothing.",
                ),
                io.Float.Input(
                    "threshold",
                    default=THRESHOLD,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Values up to this fraction of the map's range count as nothing. The "
                    "paper uses 0.4, which gives larger boxes.",
                ),
                io.Boolean.Input(
                    "complement",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Look where the attention is not. The authors' code does this for "
                    "models with a single reference token.",
                ),
                WITHIN_MASK,
            ],
            outputs=[
                io.Custom("BBOX").Output(
                    display_name="bbox",
                    tooltip="One box (x, y, width, height) in pixels for each picture, as "
                    "KJNodes' nodes take it.",
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="White inside the box. For nodes that take masks, such as MASK to "
                    "SEGS of the Impact Pack.",
                ),
                io.Image.Output(
                    display_name="overlay", tooltip="The picture with the box drawn on it."
                ),
                io.Custom("BOUNDING_BOX").Output(
                    display_name="bounding_box",
                    is_output_list=True,
                    tooltip="The same boxes as ComfyUI's own nodes take them, such as Crop Image "
                    "and SAM3 Detect; one for each picture.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        attribution: Attribution,
        direction: str = Direction.REFERENCE_TO_GENERATED.value,
        reference: int = 1,
        definition: str = AUTO,
        percentile: float = PERCENTILE,
        morphology: int = KERNEL,
        threshold: float = THRESHOLD,
        complement: bool = False,
        within_mask: bool = False,
    ) -> io.NodeOutput:
        maps = _map(attribution, definition, direction, reference, within_mask)
        size = attribution.size(maps.direction, reference - 1)
        options = {"percentile": percentile, "threshold": threshold, "complement": complement}
        # The side must be odd: an even square has no middle pixel.
        boxes = _all_found(locate_object(maps, size, kernel=morphology | 1, **options))
        pictures = _pictures(attribution, maps.direction, reference, len(boxes), size)
        overlay = torch.stack([_with_box(*pair) for pair in zip(pictures, boxes, strict=True)])
        whole = _whole(attribution, maps.direction, reference)
        if whole is not None:
            overlay, size = place_pictures(overlay, whole), whole.size
            boxes = [replace(box, x=box.x + whole.left, y=box.y + whole.top) for box in boxes]
        mask = torch.stack([box.mask(size) for box in boxes])
        text = "\n".join(
            f"x {box.x}, y {box.y}, {box.width} × {box.height} (width × height) pixels"
            for box in boxes
        )
        return io.NodeOutput(
            [(box.x, box.y, box.width, box.height) for box in boxes],
            mask,
            overlay,
            [vars(box) for box in boxes],
            ui={**ui.PreviewImage(_large(overlay), cls=cls).as_dict(), "i2am_text": [text]},
        )


def _map(
    attribution: Attribution, definition: str, direction: str, reference: int, within_mask: bool
) -> AttributionMap:
    """The unified map; for a video, its mean over frames."""
    return attribution_map(
        attribution.recording,
        choose_definition(attribution, definition),
        Direction(direction),
        reference=reference - 1,
        within=mask_within(attribution, within_mask),
    )


def _edged(mask: Tensor, pixels: int, width: float) -> Tensor:
    return feather(grow(mask, pixels), width)


def _all_found(boxes: tuple[Box | None, ...]) -> list[Box]:
    found = [box for box in boxes if box is not None]
    if len(found) < len(boxes):
        which = f" in picture {boxes.index(None) + 1}" if len(boxes) > 1 else ""
        raise I2AMError(
            f"No object was found{which}: no part of the map stands out far enough. Lower "
            "threshold or percentile, or make morphology smaller; Attribution Map shows the map."
        )
    return found


def _pictures(
    attribution: Attribution,
    direction: Direction,
    reference: int,
    count: int,
    size: tuple[int, int],
) -> Tensor:
    """The pictures to draw on, (count, height, width, 3): for a video, the middle one.

    Grey if there are none.
    """
    pictures = attribution.video(direction, reference - 1)
    if pictures is None:
        return torch.full((count, *size, 3), 0.5)
    return pictures[:, pictures.shape[1] // 2].expand(count, -1, -1, -1)


def _whole(attribution: Attribution, direction: Direction, reference: int) -> Whole | None:
    """The whole pictures that those of `_pictures` are parts of; None if they are whole."""
    whole = attribution.whole(direction, reference - 1)
    pictures = attribution.video(direction, reference - 1)
    if whole is None or pictures is None:
        return None
    return replace(whole, pictures=around(pictures, whole)[:, pictures.shape[1] // 2])


def _lit(pictures: Tensor, mask: Tensor) -> Tensor:
    """Pictures → darkened outside a mask."""
    return pictures * (_OUTSIDE_LIGHT + (1 - _OUTSIDE_LIGHT) * mask[..., None])


def _with_box(picture: Tensor, box: Box) -> Tensor:
    """A picture → with a box drawn on it, (height, width, 3). The line lies inside the box."""
    height, width = picture.shape[:2]
    line = max(1, round(min(height, width) / _LINES_IN_SIDE))
    inner = Box(box.x + line, box.y + line, box.width - 2 * line, box.height - 2 * line)
    edge = box.mask((height, width))
    if inner.width > 0 and inner.height > 0:
        edge = edge - inner.mask((height, width))
    return torch.where(edge[..., None] > 0, picture.new_tensor(_LINE), picture)


def _large(pictures: Tensor) -> Tensor:
    """Pictures → enlarged for the node's preview, which does not enlarge them itself."""
    factor = math.ceil(PREVIEW_SIDE / max(pictures.shape[1:3]))
    return interpolate(pictures.movedim(-1, 1), scale_factor=float(factor)).movedim(1, -1)
