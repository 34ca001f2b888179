"""HunyuanVideo: one sequence of vision tokens, text, a reference and the video in every block."""

from __future__ import annotations

from dataclasses import replace

from ...errors import LayoutMismatch
from ..grids import Grid, picture_grid
from ..layout import Picture, Role, TokenLayout
from .base import (
    Architecture,
    Call,
    Forward,
    Layer,
    blocks,
    context_pieces,
    generated_grid,
    joint_layout,
    marked_pictures,
    named_layer,
)

_PATCHES = {729: Grid(27, 27), 1024: Grid(32, 32)}  # SigLIP's patches, by their number


def _vision(forward: Forward) -> tuple[Picture, ...]:
    """The picture that version 1.5 gets as tokens of a vision encoder."""
    if "vision_in" not in forward.numbers or not forward.shapes.get("clip_fea"):
        return ()
    count = forward.shapes["clip_fea"][1]
    if count not in _PATCHES:
        raise LayoutMismatch(f"{count} vision tokens, but only {list(_PATCHES)} are known")
    return (Picture(_PATCHES[count], (0, 0), "vision tokens"),)


def _latent(forward: Forward) -> tuple[Picture, ...]:
    shape = forward.shapes.get("ref_latent", ())
    if not shape:
        return ()
    _, _, frames, height, width = shape
    grid = replace(picture_grid(height, width, forward.patch), frames=frames)
    return (Picture(grid, (height, width), "reference latent"),)


def _references(forward: Forward) -> tuple[Picture, ...]:
    return (*_vision(forward), *marked_pictures(forward), *_latent(forward))


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """[vision | glyphs | text | reference | video]; glyphs come after the text in models that have
    no embedding of the kind of token.

    Before the blocks, the text attends to itself.
    """
    if "block_type" not in call.options:
        return None
    text = [*context_pieces(forward)]
    glyphs = forward.shapes.get("txt_byt5", (0, 0))[1] if "byt5_in" in forward.numbers else 0
    text.insert(0 if "cond_type_embedding" in forward.numbers else len(text), (Role.TEXT, glyphs))
    layout = joint_layout(
        call,
        *((Role.REFERENCE, picture.grid) for picture in _vision(forward)),
        *text,
        *((Role.REFERENCE, picture.grid) for picture in _latent(forward)),
        (Role.GENERATED, generated_grid(forward)),
    )
    return named_layer(call), layout


HUNYUAN_VIDEO = Architecture(
    name="HunyuanVideo",
    models=frozenset({"HunyuanVideo"}),
    joint=True,
    reference_kind="CLIP vision output (1.5), custom reference latent, or marked image tokens",
    layers=blocks(double="double_blocks", single="single_blocks"),
    references=_references,
    read=_read,
    note="A start image that is the video's own first frame, or is added to it, has no tokens of "
    "its own to attend to. What the text encoder saw of it counts as text, unless it is marked.",
    video=True,
)
