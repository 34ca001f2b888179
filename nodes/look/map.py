"""Attribution Map: the maps of one level, drawn over their picture."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io
from torch import Tensor

from ...i2am.display import Colormap, Scale, describe
from ...i2am.errors import I2AMError
from ...i2am.maps import (
    EVERY_FRAME,
    MEAN_FRAME,
    AttributionMap,
    LayerWeight,
    Level,
    Selection,
    attribution_map,
    paper_selection,
    sink_correspondence,
    without_sinks,
)
from ...i2am.recording import Attribution, Definition, Direction
from ...i2am.tokens import mask_coverage
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
    WITHIN_MASK,
    choose_definition,
    direction_input,
    fitted_mask,
    mask_within,
)
from ..sockets import AttributionSocket

AS_CHOSEN, PAPER = "as chosen", "paper"


class AttributionMapNode(io.ComfyNode):
    """ATTRIBUTION → the maps of one level, drawn over their picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Map",
            display_name="Attribution Map",
            category="I2AM",
            description="Draws which part of the reference shaped which part of the result, over "
            "the result or over the reference.",
            search_aliases=["heatmap", "attention map", "saliency", "explain", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                direction_input(
                    "Reference to generated (R2G) lies over the result and shows where the "
                    "reference was used. Generated to reference (G2R) lies over the reference and "
                    "shows what of it was used.",
                ),
                REFERENCE,
                DEFINITION,
                io.Combo.Input(
                    "level",
                    options=[level.value for level in Level],
                    default=Level.UNIFIED.value,
                    optional=True,
                    tooltip="Unified gives one map of everything. Time, layer and head give one "
                    "map for each group of steps, each layer, or each head.",
                ),
                COLORMAP,
                OPACITY,
                io.Combo.Input(
                    "scale",
                    options=[scale.value for scale in Scale],
                    default=Scale.PER_MAP.value,
                    optional=True,
                    advanced=True,
                    tooltip="Per map stretches each map over all colours, which shows its "
                    "pattern. Shared keeps the maps comparable with each other; absolute keeps "
                    "runs comparable, too.",
                ),
                io.Boolean.Input(
                    "legend",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Add a colour bar below the overlay and the heat map, with numbers "
                    "and what was measured.",
                ),
                io.String.Input(
                    "steps",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Which recorded steps to average, for example 0-9, last or 50%-100%. "
                    "Leave empty for all.",
                ),
                io.String.Input(
                    "layers",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Which recorded layers to average, for example 0-7,12, last, or names "
                    "such as double, single.3 or output.8. Leave empty for all.",
                ),
                io.String.Input(
                    "heads",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Which heads to average, for example 0-3. Leave empty for all.",
                ),
                io.Int.Input(
                    "time_groups",
                    default=5,
                    optional=True,
                    min=1,
                    max=1000,
                    advanced=True,
                    tooltip="How many groups of steps the time level makes, noisiest first. The "
                    "paper uses 5.",
                ),
                WITHIN_MASK,
                io.Int.Input(
                    "frame",
                    default=EVERY_FRAME,
                    optional=True,
                    min=EVERY_FRAME,
                    max=4095,
                    advanced=True,
                    tooltip=f"Of a video: {EVERY_FRAME} maps every frame and gives a video, "
                    f"{MEAN_FRAME} the mean of all frames, and from 0 on one latent frame, each of "
                    "which stands for several pictures. Still pictures have but one.",
                ),
                io.Combo.Input(
                    "layer_weight",
                    options=[weight.value for weight in LayerWeight],
                    default=LayerWeight.MASS.value,
                    optional=True,
                    advanced=True,
                    tooltip="How much each layer counts. Mass: by the attention it gave the "
                    "reference. Equal: all the same. Value: by the height of its values, so that "
                    "a UNet's coarse layers count most, as in the authors' code.",
                ),
                io.Combo.Input(
                    "preset",
                    options=[AS_CHOSEN, PAPER],
                    default=AS_CHOSEN,
                    optional=True,
                    advanced=True,
                    tooltip="Paper draws the maps as the I2AM authors' code does and overrides "
                    "definition, layer_weight and scale: the paper's definition, layers by value "
                    "in the official order without a UNet's middle block, min-max before and "
                    "after resizing, cut at 0.4, and the complement over the result if the "
                    "reference is a single token.",
                ),
                SINKS,
                io.Mask.Input(
                    "reference_mask",
                    optional=True,
                    tooltip="For generated to reference: black out everything outside this mask "
                    "before colours are chosen, as the authors' code does with a garment's mask.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="overlay",
                    tooltip="The maps over their picture, or the heat map if no picture was "
                    "given. For a video, one picture for each of its pictures.",
                ),
                io.Image.Output(display_name="heatmap", tooltip="The maps alone, in colour."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="The values that were painted, 0 to 1, at the size of the picture.",
                ),
                io.Image.Output(
                    display_name="sheet",
                    tooltip="All maps of a picture side by side, each under its name.",
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
        direction: str = Direction.REFERENCE_TO_GENERATED.value,
        reference: int = 1,
        definition: str = AUTO,
        level: str = Level.UNIFIED.value,
        colormap: str = Colormap.INFERNO.value,
        opacity: float = 0.8,
        scale: str = Scale.PER_MAP.value,
        legend: bool = True,
        steps: str = "",
        layers: str = "",
        heads: str = "",
        time_groups: int = 5,
        within_mask: bool = False,
        frame: int = EVERY_FRAME,
        layer_weight: str = LayerWeight.MASS.value,
        preset: str = AS_CHOSEN,
        sinks: str = KEEP,
        reference_mask: Tensor | None = None,
    ) -> io.NodeOutput:
        recording, towards = attribution.recording, Direction(direction)
        which = choose_definition(attribution, definition)
        selection = Selection(steps, layers, heads, time_groups, LayerWeight(layer_weight))
        colours = Scale(scale)
        if preset == PAPER:
            which, selection = Definition.PAPER, paper_selection(recording, selection)
            colours = paper_scale(attribution, towards, reference - 1)
        within = mask_within(attribution, within_mask)
        maps = attribution_map(
            recording, which, towards, Level(level), reference - 1, selection, within, frame
        )
        if within is not None and towards is Direction.GENERATED_TO_REFERENCE:
            maps = replace(maps, notes=(*maps.notes, "from the mask alone"))
        if reference_mask is not None:
            maps = _masked(maps, reference_mask, attribution, reference - 1)
        if sinks == REMOVE:
            maps = without_sinks(maps, sink_correspondence(recording, which, reference - 1))
        pictures = attribution.video(towards, reference - 1)
        over = maps_over(pictures, len(maps.labels), attribution, towards, reference, frame)
        look = Colormap(colormap), opacity, colours, legend
        size = attribution.size(towards, reference - 1)
        whole = attribution.whole(towards, reference - 1)
        made = draw_maps(maps, pictures, over, size, look, whole)
        text = describe(maps, recording.header, reference - 1, selection, colours)
        return io.NodeOutput(
            *(made.overlay, made.heatmap, made.mask, made.sheet, text), ui=made.shown(cls, text)
        )


def paper_scale(attribution: Attribution, direction: Direction, reference: int) -> Scale:
    """The scale of the authors' code: for R2G of a single-token reference, the complement."""
    over = attribution.recording.header.references
    single = reference < len(over) and over[reference].grid.area == 1
    if direction is Direction.REFERENCE_TO_GENERATED and single:
        return Scale.PAPER_COMPLEMENT
    return Scale.PAPER


def _masked(
    maps: AttributionMap, mask: Tensor, attribution: Attribution, reference: int
) -> AttributionMap:
    if maps.direction is not Direction.GENERATED_TO_REFERENCE:
        raise I2AMError(
            "reference_mask lies over the reference, but this map lies over the result. Choose "
            "generated to reference, or disconnect the mask."
        )
    mask = fitted_mask(mask, attribution, maps.direction, reference, "reference_mask")
    inside = mask_coverage(mask, maps.grid).reshape(-1, 1, *maps.grid.sides)
    return replace(maps, values=maps.values * inside, notes=(*maps.notes, "reference mask"))
