"""Point Attribution: a place of one picture → a map over the other."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ...i2am.display import Colormap, Scale, describe_exact, describe_point, describe_pooled
from ...i2am.errors import I2AMError
from ...i2am.maps import (
    MEAN_FRAME,
    Location,
    Selection,
    check_pooled,
    correspondence_of,
    exact_point_map,
    point_map,
    recorded_places,
    recorded_point,
    sink_correspondence,
    without_sinks,
)
from ...i2am.recording import Attribution, Direction, Header, Whole, check_reference
from ...i2am.tokens import MAX_POINTS, RESULT
from ..drawing import draw_maps, maps_over
from ..inputs import (
    AUTO,
    COLORMAP,
    DEFINITION,
    KEEP,
    OPACITY,
    REFERENCE,
    REMOVE,
    SINKS,
    choose_definition,
    fitted_mask,
)
from ..sockets import AttributionSocket

RESULT_SIDE, REFERENCE_SIDE = "result", "reference"
EXACT, POOLED = "exact", "pooled"


class PointAttribution(io.ComfyNode):
    """A place → its point map: the paper's SRAM, or the inverse."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Point",
            display_name="Point Attribution",
            category="I2AM",
            description="Asks about one point: what a place of the result looked at in the "
            "reference, or which places of the result looked at a place of the reference.",
            search_aliases=["SRAM", "patch", "attention map", "where from", "explain", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                io.Combo.Input(
                    "picked_on",
                    options=[RESULT_SIDE, REFERENCE_SIDE],
                    default=RESULT_SIDE,
                    optional=True,
                    tooltip="Which picture the point is on. The map lies over the other one.",
                ),
                io.Float.Input(
                    "x",
                    default=0.5,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Distance from the left edge, as a fraction of the width.",
                ),
                io.Float.Input(
                    "y",
                    default=0.5,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Distance from the top edge, as a fraction of the height.",
                ),
                REFERENCE,
                DEFINITION,
                COLORMAP,
                OPACITY,
                io.Combo.Input(
                    "scale",
                    options=[Scale.PER_MAP.value, Scale.ABSOLUTE.value, Scale.PAPER.value],
                    default=Scale.PER_MAP.value,
                    optional=True,
                    advanced=True,
                    tooltip="Per map stretches the map over all colours. Absolute keeps points "
                    "and runs comparable. Paper cuts it as the authors' code does.",
                ),
                io.Boolean.Input(
                    "legend",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Add a colour bar with numbers and what was measured.",
                ),
                SINKS,
                io.Combo.Input(
                    "source",
                    options=[AUTO, EXACT, POOLED],
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="Exact reads a point that was named in Capture Attention before "
                    "sampling, token by token. Pooled reads the correspondence, which knows every "
                    "place, less finely. Auto is exact if x, y lie in a named point.",
                ),
                io.Int.Input(
                    "asked",
                    default=0,
                    min=0,
                    max=MAX_POINTS,
                    optional=True,
                    advanced=True,
                    tooltip="Which of the points named in Capture Attention to show, counted from "
                    "1, whatever x and y are. 0 uses x and y, or the region.",
                ),
                io.String.Input(
                    "layers",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="For an exact point: which recorded layers to average, for example "
                    "0-7,12, last, or names such as double or single.3. Leave empty for all.",
                ),
                io.String.Input(
                    "steps",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="For an exact point: which recorded steps to average, for example "
                    "0-9, last or 50%-100%. Leave empty for all.",
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="A whole region to ask about instead of the point x, y, painted on "
                    "the picture it is picked on.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="overlay",
                    tooltip="The map over the other picture, or the heat map if that picture was "
                    "not given.",
                ),
                io.Image.Output(display_name="heatmap", tooltip="The map alone, in colour."),
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
        picked_on: str = RESULT_SIDE,
        x: float = 0.5,
        y: float = 0.5,
        reference: int = 1,
        definition: str = AUTO,
        colormap: str = Colormap.INFERNO.value,
        opacity: float = 0.8,
        scale: str = Scale.PER_MAP.value,
        legend: bool = True,
        sinks: str = KEEP,
        source: str = AUTO,
        asked: int = 0,
        layers: str = "",
        steps: str = "",
        region: Tensor | None = None,
    ) -> io.NodeOutput:
        recording, header = attribution.recording, attribution.recording.header
        over, of = Direction.GENERATED_TO_REFERENCE, Direction.REFERENCE_TO_GENERATED
        # The reference must have places, even if the map lies over the result.
        check_reference(header, reference - 1, over)
        if picked_on == REFERENCE_SIDE:
            over, of = of, over
        if region is not None:
            region = fitted_mask(region, attribution, of, reference - 1, "region")
        which = choose_definition(attribution, definition)
        whole = attribution.whole(of, reference - 1)
        place = Location(*_seen_point(x, y, whole), region)
        picked = reference - 1 if picked_on == REFERENCE_SIDE else RESULT
        number = _exact(header, picked, place, source, asked)
        selection = Selection(steps, layers)
        if number is None:
            check_pooled(header, selection, place)
            pairs = correspondence_of(recording, which, reference - 1)
            maps = point_map(pairs, which, over, place)
            made_of = describe_pooled(pairs, header)
        else:
            maps = exact_point_map(recording, which, over, reference - 1, number, selection)
            made_of = describe_exact(maps, header, selection)
        if sinks == REMOVE:
            maps = without_sinks(maps, sink_correspondence(recording, which, reference - 1))
        pictures = attribution.video(over, reference - 1)
        colours = Scale(scale)
        made = draw_maps(
            maps,
            pictures,
            maps_over(pictures, 1, attribution, over, reference, MEAN_FRAME),
            attribution.size(over, reference - 1),
            (Colormap(colormap), opacity, colours, legend),
            attribution.whole(over, reference - 1),
        )
        text = describe_point(maps, reference - 1, made_of, colours, exact=number is not None)
        return io.NodeOutput(
            *(made.overlay, made.heatmap, made.mask, text), ui=made.shown(cls, text)
        )


def _seen_point(x: float, y: float, whole: Whole | None) -> tuple[float, float]:
    """A point in fractions of the picture → in fractions of the part that the model saw.

    Raises I2AMError for a point outside that part.
    """
    if whole is None:
        return x, y
    point = whole.within(x, y)
    if point is None:
        left, right = whole.left / whole.size[1], (whole.left + whole.width) / whole.size[1]
        top, bottom = whole.top / whole.size[0], (whole.top + whole.height) / whole.size[0]
        raise I2AMError(
            f"The model did not see the point {x:g}, {y:g} of this reference: it saw x from "
            f"{left:.2f} to {right:.2f} and y from {top:.2f} to {bottom:.2f}. Choose a point there."
        )
    return point


def _exact(header: Header, picked: int, place: Location, source: str, asked: int) -> int | None:
    """The number of the recorded place to read, among those of its picture; None for pooled.

    picked: the reference it is in, from 0, or RESULT. Raises I2AMError if there is no such place.
    """
    if source == POOLED:
        if asked:
            raise I2AMError(
                f"asked names point {asked}, which pooled cannot read: it goes by x and y or a "
                "region. Set asked to 0, or source to auto."
            )
        return None
    places = recorded_places(header, picked)
    names = ", ".join(f"{n} ({one.name})" for n, one in enumerate(places, start=1)) or "none"
    if asked > len(places):
        raise I2AMError(
            f"There is no point {asked}: those named in Capture Attention for this picture are "
            f"{names}. Choose one of them, or 0 to go by x and y."
        )
    if asked:
        return asked - 1
    number = None
    if place.region is None:
        number = recorded_point(header, picked, place.x, place.y)
    if number is None and source == EXACT:
        widget = "points" if picked == RESULT else "reference_points"
        raise I2AMError(
            f"{place.name} was not recorded exactly: the points named in Capture Attention for "
            f"this picture are {names}. Choose one of them with asked, add this one to its "
            f"{widget} and sample again, or set source to auto."
        )
    return number
