"""Reference Influence: how much each source was used, where, and a verdict in words."""

from __future__ import annotations

import math

import torch
from comfy_api.latest import io, ui
from torch import Tensor
from torch.nn.functional import interpolate

from ...i2am.display import paint_sources, source_legend
from ...i2am.recording import Attribution, Direction
from ...i2am.scores import (
    ColorBy,
    Part,
    fitting_mask,
    influence_details,
    influence_verdict,
    measure_influence,
    strength_maps,
)
from ...i2am.tokens import resample
from ..drawing import PREVIEW_SIDE
from ..sockets import AttributionSocket

_REST = {
    ColorBy.LIFT: "none above its average",
    ColorBy.SHARE: "text or picture itself",
}


class ReferenceInfluence(io.ComfyNode):
    """ATTRIBUTION → the share of each source, in numbers and as a picture, with a verdict."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Influence",
            display_name="Reference Influence",
            category="I2AM",
            description="Is my reference used? Which one, and where? Shows how much of the "
            "model's attention each reference got, which reference each place drew on, and a "
            "verdict in words.",
            search_aliases=["share", "which reference", "used", "ignored", "explain", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                io.Combo.Input(
                    "colour_by",
                    options=[comparison.value for comparison in ColorBy],
                    default=ColorBy.LIFT.value,
                    optional=True,
                    tooltip="Above its average colours each place by the reference that is used "
                    "there most beyond its own average, which tells regions apart. Largest share "
                    "compares the shares themselves, including those of the text and the picture "
                    "itself.",
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="White on the part of the result you want to know about. If left "
                    "open, the verdict speaks of the mask of Collect Attribution or, without one, "
                    "of the places where each reference is strongest; shares are of all of the "
                    "result.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="overlay",
                    tooltip="Each place in its reference's colour, with a legend.",
                ),
                io.Float.Output(
                    display_name="share",
                    is_output_list=True,
                    tooltip="Each reference's share of the model's attention inside the region, 0 "
                    "to 1, mean over the pictures.",
                ),
                io.String.Output(
                    display_name="verdict",
                    tooltip="A sentence for each reference: whether it is used, and where.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The numbers: every source, over time and by layer.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        attribution: Attribution,
        region: Tensor | None = None,
        colour_by: str = ColorBy.LIFT.value,
    ) -> io.NodeOutput:
        recording, comparison = attribution.recording, ColorBy(colour_by)
        header = recording.header
        part, mask = _part(attribution, region)
        found = measure_influence(recording, mask)
        words = influence_verdict(recording, found, part, mask)
        numbers = influence_details(found, header, "" if mask is None else part.value)
        asked = found if region is not None else measure_influence(recording)
        texts = [
            [f"reference {n} {share:.1%}" for n, share in enumerate(shares, start=1)]
            for shares in asked.inside[:, 2:].tolist()
        ]
        direction = Direction.REFERENCE_TO_GENERATED
        size = attribution.size(direction, 0)
        picture = torch.full((header.run.batch, *size, 3), 0.5)
        if (pictures := attribution.video(direction, 0)) is not None:
            picture = pictures[:, pictures.shape[1] // 2]
        overlays: list[Tensor] = []
        # The page does not enlarge pictures, so a small one is enlarged here.
        for factor in (1, max(1, math.ceil(PREVIEW_SIDE / max(size)))):
            sides = size[0] * factor, size[1] * factor
            under = interpolate(picture.movedim(-1, 1), sides, mode="bilinear").movedim(1, -1)
            maps = resample(
                strength_maps(recording, comparison), header.generated.grid.one_frame, sides
            )
            painted = paint_sources(under, maps.argmax(1))
            overlays.append(source_legend(painted, texts, _REST[comparison]))
        shown = ui.PreviewImage(overlays[1], cls=cls).as_dict()
        shown |= {"i2am_text": [words, numbers]}
        shares = asked.inside[:, 2:].mean(0).tolist()
        return io.NodeOutput(overlays[0], shares, words, numbers, ui=shown)


def _part(attribution: Attribution, region: Tensor | None) -> tuple[Part, Tensor | None]:
    """The part that the verdict is about, and its mask over the result.

    The strongest places have no mask: None.
    """
    if region is not None:
        size = attribution.size(Direction.REFERENCE_TO_GENERATED, 0)
        batch = attribution.recording.header.run.batch
        return Part.REGION, fitting_mask(region, batch, size, "region")
    mask = attribution.mask
    if mask is not None and bool(((mask.amax((1, 2)) > 0) & (mask.amin((1, 2)) < 1)).all()):
        return Part.MASK, mask
    return Part.STRONGEST, None
