"""Point Attribution: a place of one picture → a map over the other."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..i2am.attribution import (
    MEAN_FRAME,
    Attribution,
    Direction,
    check_reference,
    pairs_of,
)
from ..i2am.colormaps import Colormap
from ..i2am.correspondence import Place, point_map, without_sinks
from ..i2am.render import Scale
from ..i2am.report import describe_point
from .maps import (
    COLORMAP,
    DEFINITION,
    KEEP,
    OPACITY,
    REFERENCE,
    REMOVE,
    SINKS,
    check_mask,
    choose_definition,
    drawn,
    maps_over,
)
from .sockets import AttributionSocket

RESULT_SIDE, REFERENCE_SIDE = "result", "reference"


class PointAttribution(io.ComfyNode):
    """The paper's SRAM, and its inverse."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Point",
            display_name="Point Attribution",
            category="I2AM",
            description="Asks about one place: what in the reference a place of the result looked "
            "at, or which places of the result looked at a place of the reference.",
            search_aliases=["SRAM", "patch", "attention map", "where from", "explain", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                io.Combo.Input(
                    "picked_on",
                    options=[RESULT_SIDE, REFERENCE_SIDE],
                    default=RESULT_SIDE,
                    tooltip="Which picture the place is in; the map lies over the other one.",
                ),
                io.Float.Input(
                    "x",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How far from the left edge, as a part of the width.",
                ),
                io.Float.Input(
                    "y",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How far from the top edge, as a part of the height.",
                ),
                REFERENCE,
                DEFINITION,
                COLORMAP,
                OPACITY,
                io.Combo.Input(
                    "scale",
                    options=[Scale.PER_MAP.value, Scale.ABSOLUTE.value, Scale.PAPER.value],
                    default=Scale.PER_MAP.value,
                    tooltip="Per map stretches the map over all colours; absolute keeps places and "
                    "runs comparable; paper cuts it as the authors' code does.",
                ),
                io.Boolean.Input(
                    "legend",
                    default=True,
                    tooltip="Adds a colour bar with numbers and what was measured.",
                ),
                SINKS,
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="A whole region to ask about, painted on the picture it is picked on, "
                    "instead of the point x, y.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="overlay",
                    tooltip="The map over the other picture; the heat map where none was given.",
                ),
                io.Image.Output(display_name="heatmap", tooltip="The map alone, in colours."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="The values that were painted, 0 to 1, over the other picture.",
                ),
                io.String.Output(
                    display_name="description",
                    tooltip="What was measured, and what the numbers and colours mean.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        attribution: Attribution,
        picked_on: str,
        x: float,
        y: float,
        reference: int,
        definition: str,
        colormap: str,
        opacity: float,
        scale: str,
        legend: bool,
        sinks: str = KEEP,
        region: Tensor | None = None,
    ) -> io.NodeOutput:
        header = attribution.recording.header
        over, of = Direction.GENERATED_TO_REFERENCE, Direction.REFERENCE_TO_GENERATED
        # A place of a reference must be a place, whichever picture the map lies over.
        check_reference(header, reference - 1, over)
        if picked_on == REFERENCE_SIDE:
            over, of = of, over
        if region is not None:
            size = attribution.size(of, reference - 1)
            check_mask(region, "region", header.run.batch, size)
        which = choose_definition(attribution, definition)
        pairs = pairs_of(attribution.recording, which, reference - 1)
        maps = point_map(pairs, which, over, Place(x, y, region))
        if sinks == REMOVE:
            maps = without_sinks(maps, pairs)
        pictures = attribution.video(over, reference - 1)
        colours = Scale(scale)
        made = drawn(
            maps,
            pictures,
            maps_over(pictures, 1, attribution, over, reference, MEAN_FRAME),
            attribution.size(over, reference - 1),
            (Colormap(colormap), opacity, colours, legend),
        )
        text = describe_point(maps, header, reference - 1, pairs, colours)
        return io.NodeOutput(
            *(made.overlay, made.heatmap, made.mask, text), ui=made.shown(cls, text)
        )
