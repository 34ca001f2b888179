"""Correspondence: for each place of the result, the place of the reference it came from."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ...i2am.display import arrow_image, flow_image, most_confident, place_pictures
from ...i2am.errors import I2AMError
from ...i2am.maps import (
    BestMatches,
    Correspondence,
    best_matches,
    correspondence_of,
    describe_sinks,
    find_sinks,
    remove_sinks,
    sink_correspondence,
    sink_mass,
)
from ...i2am.recording import Attribution, Definition, Direction, Whole, check_reference
from ...i2am.tokens import Rectangle, mask_coverage, resample
from ..drawing import around
from ..inputs import (
    AUTO,
    DEFINITION,
    KEEP,
    REFERENCE,
    REMOVE,
    SINKS,
    choose_definition,
    mask_within,
)
from ..sockets import AttributionSocket

_BLANK = 0.3  # grey level, where no picture was given


class CorrespondenceNode(io.ComfyNode):
    """The best match of every place, its confidence, and whether it is mutual."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Flow",
            display_name="Correspondence",
            category="I2AM",
            description="For each place of the result, finds the place of the reference it looked "
            "at most. Draws the surest matches as arrows between the two pictures and says how "
            "many agree both ways.",
            search_aliases=["optical flow", "matching", "arrows", "nearest neighbour", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                REFERENCE,
                DEFINITION,
                io.Int.Input(
                    "count",
                    default=12,
                    optional=True,
                    min=1,
                    max=200,
                    tooltip="How many arrows to draw, surest matches first.",
                ),
                io.Boolean.Input(
                    "within_mask",
                    default=False,
                    optional=True,
                    tooltip="Only arrows and numbers of the masked part of the result. Uses the "
                    "mask of Collect Attribution.",
                ),
                SINKS,
            ],
            outputs=[
                io.Image.Output(
                    display_name="flow",
                    tooltip="From each place of the result to its match: hue is the direction, "
                    "strength the distance, brightness the confidence.",
                ),
                io.Image.Output(
                    display_name="arrows",
                    tooltip="The reference on the left, the result on the right, and an arrow for "
                    "each of the surest matches; dashed if the match is not mutual.",
                ),
                io.Mask.Output(
                    display_name="confidence",
                    tooltip="Over the result: how much of the attention a place gives the "
                    "reference falls on its best match, 0 to 1.",
                ),
                io.Mask.Output(
                    display_name="mutual",
                    tooltip="Over the result: 1 where a place and its match prefer each other.",
                ),
                io.Float.Output(
                    display_name="agreement",
                    is_output_list=True,
                    tooltip="The fraction of places whose match is mutual, one number for each "
                    "picture.",
                ),
                io.String.Output(
                    display_name="report", tooltip="The numbers in words, and how they were made."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        attribution: Attribution,
        reference: int = 1,
        definition: str = AUTO,
        count: int = 12,
        within_mask: bool = False,
        sinks: str = KEEP,
    ) -> io.NodeOutput:
        over, of = Direction.GENERATED_TO_REFERENCE, Direction.REFERENCE_TO_GENERATED
        check_reference(attribution.recording.header, reference - 1, over)
        which = choose_definition(attribution, definition)
        pairs = correspondence_of(attribution.recording, which, reference - 1)
        notes = "sinks kept"
        if sinks == REMOVE:
            spread = sink_correspondence(attribution.recording, which, reference - 1)
            pairs, notes = _without_sinks(pairs, spread)
        found, batch = best_matches(pairs), pairs.values.shape[0]
        inside = torch.ones(batch, found.result.area, dtype=torch.bool)
        mask = mask_within(attribution, within_mask)
        if mask is not None:
            inside = (mask_coverage(mask, found.result) >= 0.5).expand(batch, -1)
            if not bool(inside.any(1).all()):
                raise I2AMError(
                    "The mask over the result covers no place by half. Paint a larger part of it, "
                    "or turn within_mask off."
                )
        agreement = (found.mutual & inside).sum(1) / inside.sum(1)
        size = attribution.size(of, reference - 1)
        whole = attribution.whole(over, reference - 1)
        part = [] if whole is None else [_part(whole)]
        shown = [
            arrow_image(
                _picture(attribution, of, reference - 1, item),
                _picture(attribution, over, reference - 1, item),
                found,
                item,
                most_confident(found, item, count, inside[item]),
                *part,
            )
            for item in range(batch)
        ]
        flows, longest = flow_image(found, size)
        text = _report(found, inside, agreement, longest, which, reference, notes, within_mask)
        drawn = torch.cat(shown)
        return io.NodeOutput(
            flows,
            drawn,
            _mask(found.confidence, found, size).clamp(0, 1),
            (_mask(found.mutual.float(), found, size) >= 0.5).float(),
            agreement.tolist(),
            text,
            ui={**ui.PreviewImage(drawn, cls=cls).as_dict(), "i2am_text": [text]},
        )


def _without_sinks(pairs: Correspondence, spread: Correspondence) -> tuple[Correspondence, str]:
    """Pairs → the same with zeros at the sinks, and what was removed, in words.

    spread: from `sink_correspondence`.
    """
    found = find_sinks(spread)
    return remove_sinks(pairs, found), describe_sinks(found, sink_mass(pairs, found))


def _mask(values: Tensor, found: BestMatches, size: tuple[int, int]) -> Tensor:
    return resample(values.unflatten(1, found.result.sides), found.result, size)


def _picture(attribution: Attribution, direction: Direction, reference: int, item: int) -> Tensor:
    """The picture to draw on, (height, width, 3); for a video, the middle one."""
    pictures = attribution.video(direction, reference)
    if pictures is None:
        return torch.full((*attribution.size(direction, reference), 3), _BLANK)
    own = pictures[item if len(pictures) > 1 else 0]
    middle, whole = own[len(own) // 2], attribution.whole(direction, reference)
    if whole is None:
        return middle
    under = around(pictures, whole)[item if len(pictures) > 1 else 0, len(own) // 2]
    return place_pictures(middle[None], whole, under[None])[0]


def _part(whole: Whole) -> Rectangle:
    """The part of a picture that the model saw, as fractions of the whole."""
    tall, wide = whole.size
    return Rectangle(whole.top / tall, whole.left / wide, whole.height / tall, whole.width / wide)


def _report(
    found: BestMatches,
    inside: Tensor,
    agreement: Tensor,
    longest: Tensor,
    definition: Definition,
    reference: int,
    notes: str,
    within_mask: bool,
) -> str:
    where = "the mask" if within_mask else "the result"
    lines: list[str] = []
    for item, part in enumerate(agreement):
        which = f"Picture {item + 1}: " if len(agreement) > 1 else ""
        sure = float(found.confidence[item][inside[item]].mean())
        mutual = int((found.mutual[item] & inside[item]).sum())
        lines.append(
            f"{which}{mutual} of {int(inside[item].sum())} places of {where} ({float(part):.0%}) "
            f"and their match prefer each other; mean confidence {sure:.0%}, an even spread would "
            f"be {1 / found.reference.area:.1%}; the longest way is {float(longest[item]):.0%} of "
            "the picture"
        )
    sizes = (found.result.sides, found.reference.sides)
    result, over = (f"{height}×{width}" for height, width in sizes)
    lines.append(
        f"Reference {reference}, {definition.value} definition, {result} places of the result and "
        f"{over} of the reference, mean over all recorded steps, layers and heads; {notes}. "
        "A place is counted whether or not it used the reference at all."
    )
    return "\n".join(lines)
