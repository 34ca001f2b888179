"""Attribution Map: a recording → pictures and values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from comfy_api.latest import io, ui
from torch import Tensor
from torch.nn.functional import interpolate

from ...i2am.display import (
    Colormap,
    Scale,
    contact_sheet,
    describe,
    heatmap,
    legend,
    overlay,
    paint,
)
from ...i2am.errors import I2AMError
from ...i2am.maps import (
    EVERY_FRAME,
    MEAN_FRAME,
    AttributionMap,
    LayerWeight,
    Level,
    Selection,
    attribution_map,
    caption,
    correspondence_of,
    paper_selection,
    without_sinks,
)
from ...i2am.recording import Attribution, Definition, Direction, best_definition
from ...i2am.tokens import frames_of, mask_coverage
from ..sockets import AttributionSocket

AUTO = "auto"
PREVIEW_SIDE = 384  # pixels of the longer side of what the node itself shows, at least
REFERENCE = io.Int.Input(
    "reference",
    default=1,
    min=1,
    max=64,
    tooltip="Which reference, in the order the model was given them, from 1.",
)
DEFINITION = io.Combo.Input(
    "definition",
    options=[AUTO, *(definition.value for definition in Definition)],
    default=AUTO,
    tooltip="Model: the model's own attention, in true shares. Paper: the I2AM "
    "paper's, where every layer counts the same. Auto: model where text, result "
    "and references compete (Flux), paper elsewhere.",
)
COLORMAP = io.Combo.Input(
    "colormap",
    options=[colormap.value for colormap in Colormap],
    default=Colormap.INFERNO.value,
    tooltip="The colours. Jet is for comparing with the paper's figures; the "
    "others do not invent edges.",
)
OPACITY = io.Float.Input(
    "opacity",
    default=0.8,
    min=0.0,
    max=1.0,
    step=0.05,
    tooltip="How strongly the colours cover the picture.",
)
WITHIN_MASK = io.Boolean.Input(
    "within_mask",
    default=False,
    advanced=True,
    tooltip="Generated to reference only: counts what the masked part of the result looked at, "
    "and nothing else. Uses the mask given to Collect Attribution, or else the one it was sampled "
    "with.",
)


def choose_definition(attribution: Attribution, definition: str) -> Definition:
    """The definition a widget asks for; auto is the one to look at first for this model."""
    if definition == AUTO:
        return best_definition(attribution.recording)
    return Definition(definition)


def mask_to_look_from(attribution: Attribution, within_mask: bool) -> Tensor | None:
    """The mask over the result that G2R is limited to, if that is asked for."""
    if not within_mask:
        return None
    if attribution.mask is None:
        raise I2AMError(
            "within_mask needs a mask over the result, and none was given. Connect one to "
            "Collect Attribution, or turn within_mask off."
        )
    return attribution.mask


KEEP, REMOVE = "keep", "remove"
SINKS = io.Combo.Input(
    "sinks",
    options=[KEEP, REMOVE],
    default=KEEP,
    optional=True,
    advanced=True,
    tooltip="Places of the reference that nearly all of the result looks at, whatever it shows, "
    "often at its border. Remove leaves them out of what lies over the reference, and the label "
    "says how many there were and how much attention they had.",
)
AS_CHOSEN, PAPER = "as chosen", "paper"


class AttributionMapNode(io.ComfyNode):
    """The maps of one level over their picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Map",
            display_name="Attribution Map",
            category="I2AM",
            description="Draws which part of the reference shaped which part of the result: over "
            "the result, or over the reference.",
            search_aliases=["heatmap", "attention map", "saliency", "explain", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                io.Combo.Input(
                    "direction",
                    options=[direction.value for direction in Direction],
                    default=Direction.REFERENCE_TO_GENERATED.value,
                    tooltip="Reference to generated (R2G) lies over the result: where the "
                    "reference was used. Generated to reference (G2R) lies over the reference: "
                    "what of it was used.",
                ),
                REFERENCE,
                DEFINITION,
                io.Combo.Input(
                    "level",
                    options=[level.value for level in Level],
                    default=Level.UNIFIED.value,
                    tooltip="Unified is one map of everything; time, layer and head give one map "
                    "for each group of steps, each layer, each head.",
                ),
                COLORMAP,
                OPACITY,
                io.Combo.Input(
                    "scale",
                    options=[scale.value for scale in Scale],
                    default=Scale.PER_MAP.value,
                    tooltip="Per map stretches each map over all colours and shows its pattern; "
                    "shared and absolute keep maps, and runs, comparable.",
                ),
                io.Boolean.Input(
                    "legend",
                    default=True,
                    tooltip="Adds a colour bar with numbers and what was measured below the "
                    "overlay and the heat map.",
                ),
                io.String.Input(
                    "steps",
                    default="",
                    advanced=True,
                    tooltip="Which recorded steps to average, such as 0-9. Empty takes all.",
                ),
                io.String.Input(
                    "layers",
                    default="",
                    advanced=True,
                    tooltip="Which recorded layers to average, such as 0-7,12. Empty takes all.",
                ),
                io.String.Input(
                    "heads",
                    default="",
                    advanced=True,
                    tooltip="Which heads to average, such as 0-3. Empty takes all.",
                ),
                io.Int.Input(
                    "time_groups",
                    default=5,
                    min=1,
                    max=1000,
                    advanced=True,
                    tooltip="Into how many groups the time level divides the steps, noisiest "
                    "first. The paper uses 5.",
                ),
                WITHIN_MASK,
                io.Int.Input(
                    "frame",
                    default=EVERY_FRAME,
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
                    tooltip="How much each layer counts. Mass: by the attention it gave. Equal: "
                    "all the same. Value: by the height of its values, so that a UNet's coarse "
                    "layers count most, as in the authors' code.",
                ),
                io.Combo.Input(
                    "preset",
                    options=[AS_CHOSEN, PAPER],
                    default=AS_CHOSEN,
                    optional=True,
                    advanced=True,
                    tooltip="Paper draws the maps as the I2AM authors' code does, whatever "
                    "definition, layer_weight and scale say: the paper's definition, layers by "
                    "value in the official order without a UNet's middle block, min-max before and "
                    "after resizing, cut at 0.4, and the complement over the result where the "
                    "reference is a single token.",
                ),
                SINKS,
                io.Mask.Input(
                    "reference_mask",
                    optional=True,
                    tooltip="Generated to reference only: blacks out what lies outside of it "
                    "before colours are chosen, as the authors' code does with a garment's mask.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="overlay",
                    tooltip="The maps over their picture; the heat map where no picture was given. "
                    "Of a video, a picture for each of its pictures.",
                ),
                io.Image.Output(display_name="heatmap", tooltip="The maps alone, in colours."),
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
        direction: str,
        reference: int,
        definition: str,
        level: str,
        colormap: str,
        opacity: float,
        scale: str,
        legend: bool,
        steps: str,
        layers: str,
        heads: str,
        time_groups: int,
        within_mask: bool,
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
        within = mask_to_look_from(attribution, within_mask)
        maps = attribution_map(
            recording, which, towards, Level(level), reference - 1, selection, within, frame
        )
        if within is not None and towards is Direction.GENERATED_TO_REFERENCE:
            maps = replace(maps, notes=(*maps.notes, "from the mask alone"))
        if reference_mask is not None:
            maps = _masked(maps, reference_mask, attribution.size(towards, reference - 1))
        if sinks == REMOVE:
            maps = without_sinks(maps, correspondence_of(recording, which, reference - 1))
        pictures = attribution.video(towards, reference - 1)
        over = maps_over(pictures, len(maps.labels), attribution, towards, reference, frame)
        look = Colormap(colormap), opacity, colours, legend
        made = drawn(maps, pictures, over, attribution.size(towards, reference - 1), look)
        text = describe(maps, recording.header, reference - 1, selection, colours)
        return io.NodeOutput(
            *(made.overlay, made.heatmap, made.mask, made.sheet, text), ui=made.shown(cls, text)
        )


Look = tuple[Colormap, float, Scale, bool]  # colours, opacity, scale, whether with a legend


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


def drawn(
    maps: AttributionMap,
    pictures: Tensor | None,
    over: list[tuple[int, int]],
    size: tuple[int, int],
    look: Look,
) -> Drawn:
    """Maps laid over their pictures.

    over: which map goes over which of the pictures, (1 or batch, pictures, height, width, 3).
    """
    overlays, heatmaps, values = _draw(maps, pictures, over, size, *look)
    # Where a map lies over several pictures, the first is enough to show.
    numbers = [number for number, _ in over]
    firsts = [numbers.index(number) for number in range(len(maps.labels))]
    sheet = contact_sheet(overlays[:, firsts], maps.labels)
    shown, one_map = sheet, len(maps.labels) == 1
    if one_map:
        factor = math.ceil(PREVIEW_SIDE / max(size))
        shown = overlays
        if factor > 1:  # the page shows pictures no larger than they are: a small one is lost
            size = size[0] * factor, size[1] * factor
            _, number = over[0]
            picture = None if pictures is None else _enlarged(pictures[:, number], size)[:, None]
            shown, _, _ = _draw(maps, picture, [(0, 0)], size, *look)
        shown = shown.flatten(0, 1)
    return Drawn(overlays.flatten(0, 1), heatmaps.flatten(0, 1), values.flatten(0, 1), sheet, shown)


def paper_scale(attribution: Attribution, direction: Direction, reference: int) -> Scale:
    """How the authors' code paints: the complement where the reference is a single token."""
    over = attribution.recording.header.references
    single = reference < len(over) and over[reference].grid.area == 1
    if direction is Direction.REFERENCE_TO_GENERATED and single:
        return Scale.PAPER_COMPLEMENT
    return Scale.PAPER


def _masked(maps: AttributionMap, mask: Tensor, size: tuple[int, int]) -> AttributionMap:
    if maps.direction is not Direction.GENERATED_TO_REFERENCE:
        raise I2AMError(
            "reference_mask lies over the reference, but this map lies over the result. Choose "
            "generated to reference, or disconnect the mask."
        )
    check_mask(mask, "reference_mask", len(maps.values), size)
    inside = mask_coverage(mask, maps.grid).reshape(-1, 1, *maps.grid.sides)
    return replace(maps, values=maps.values * inside, notes=(*maps.notes, "reference mask"))


def check_mask(mask: Tensor, name: str, batch: int, size: tuple[int, int]) -> None:
    """Raises I2AMError for a mask of another (height, width) or batch than its picture."""
    if mask.ndim != 3 or tuple(mask.shape[1:]) != tuple(size):
        raise I2AMError(
            f"{name} is {'×'.join(map(str, mask.shape[:0:-1]))} (width × height), but the picture "
            f"it belongs to is {size[1]}×{size[0]}. Resize the mask, or connect the one made for "
            "this picture."
        )
    if len(mask) not in (1, batch):
        raise I2AMError(
            f"{name} is a batch of {len(mask)}, but there are {batch} results. Give one mask for "
            f"all, or {batch}."
        )


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


def _enlarged(picture: Tensor, size: tuple[int, int]) -> Tensor:
    pixels = interpolate(picture.movedim(-1, 1), size, mode="bicubic", align_corners=False)
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
        if with_legend:
            ends = painted.low[:, column], painted.high[:, column]
            drawn, laid = (
                legend(picture, *ends, colormap, words, painted.unit) for picture in (drawn, laid)
            )
        overlays.append(laid)
        heatmaps.append(drawn)
    columns = [column for column, _ in over]
    return torch.stack(overlays, 1), torch.stack(heatmaps, 1), painted.values[:, columns]
