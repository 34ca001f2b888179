"""HiDream-E1: result and reference side by side in one picture, so that their rows alternate."""

from __future__ import annotations

from dataclasses import replace

from ...errors import I2AMError
from ..grids import picture_grid
from ..layout import Picture, Role, TokenLayout
from .base import (
    Architecture,
    Call,
    Forward,
    Layer,
    Piece,
    blocks,
    counted_layer,
    generated_grid,
    joint_layout,
)


def _references(forward: Forward) -> tuple[Picture, ...]:
    """The one picture that the result is joined to."""
    if not (shape := forward.shapes.get("image_cond")):
        return ()
    size = (shape[-2], shape[-1])
    return (Picture(picture_grid(*size, forward.patch), size, "reference latent"),)


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """[row 1 of the result, row 1 of the reference, row 2 of the result … | text].

    The text is one encoder's, and twice the other's: its last layer, and the one for this block.
    Its words are the one's, then the other's, whose two tokens count as one.
    """
    references = _references(forward)
    encoders = forward.context, forward.shapes["encoder_hidden_states_llama3"][-2]
    text: tuple[Piece, ...] = (
        (Role.TEXT, encoders[0], 0),
        *((Role.TEXT, encoders[1], encoders[0]),) * 2,
    )
    if not references:
        layout = joint_layout(call, (Role.GENERATED, generated_grid(forward)), *text)
        return counted_layer(forward.layers, call.nth), layout
    if forward.latent[1] % forward.patch:
        raise I2AMError(
            f"HiDream-E1 joins the result, {forward.latent[1]} latent cells wide here, to its "
            "reference, so that one column of tokens covers both and no map can separate "
            f"them. Use a width that is a multiple of {8 * forward.patch} pixels."
        )
    generated, reference = generated_grid(forward), references[0].grid
    layout = joint_layout(call, (Role.GENERATED, generated), (Role.REFERENCE, reference), *text)
    width = generated.width + reference.width
    order = (
        *(r * width + c for r in range(generated.height) for c in range(generated.width)),
        *(r * width + c for r in range(reference.height) for c in range(generated.width, width)),
        *range(generated.height * width, call.keys),
    )
    layer = counted_layer(forward.layers, call.nth)
    return layer, replace(layout, query_order=order, key_order=order)


HIDREAM = Architecture(
    name="HiDream-E1",
    models=frozenset({"HiDream"}),
    joint=True,
    reference_kind="picture beside the result, from InstructPixToPixConditioning",
    layers=blocks(double="double_stream_blocks", single="single_stream_blocks"),
    references=_references,
    read=_read,
    note="One reference. The width must be a multiple of 16 pixels.",
)
