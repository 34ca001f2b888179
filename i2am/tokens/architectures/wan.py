"""Wan 2.1, 2.2 and their kin: pictures among the tokens of the video, or as CLIP tokens beside it.

Each block attends to the sequence itself first, then to CLIP tokens if there are any, then to the
text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from ...errors import LayoutMismatch
from ..grids import Grid, picture_grid
from ..layout import Picture, Role, Span, TokenLayout
from .base import (
    Architecture,
    Call,
    Forward,
    Layer,
    Piece,
    blocks,
    consecutive_spans,
    generated_grid,
    joint_layout,
    named_layer,
    prompt,
)

_PATCHES = Grid(16, 16)  # of CLIP, after one token that summarises the picture
_AUDIO = 16  # tokens for each frame
_CLIP = {"clip_fea_ref": "img_emb_refimage", "clip_fea": "img_emb"}  # in this order


def _grid(forward: Forward, shape: tuple[int, ...]) -> Grid:
    """The grid of a latent beside the video's, of several frames if it has that axis."""
    frames = shape[2] if len(shape) == 5 else 1
    return replace(picture_grid(shape[-2], shape[-1], forward.patch), frames=frames)


def _given(forward: Forward, name: str) -> list[Grid]:
    """The grid of a latent in the conditioning, if it is there."""
    shape = forward.shapes.get(name, ())
    return [_grid(forward, shape)] if shape else []


def _references(grids: Iterable[Grid]) -> tuple[Piece, ...]:
    return tuple((Role.REFERENCE, grid) for grid in grids)


def _wan(forward: Forward) -> tuple[Piece, ...]:
    """[whole reference | video | pictures as further frames | videos and pictures in context]."""
    whole = _given(forward, "reference_latent") if "ref_conv" in forward.numbers else ()
    further = forward.shapes.get("time_dim_concat", (0, 0, 0))[2]
    context = forward.shapes.get("context_latents", ())
    return (
        *_references(whole),
        (Role.GENERATED, generated_grid(forward)),
        *_references(generated_grid(forward).one_frame for _ in range(further)),
        *_references(_grid(forward, shape) for shape in context),
    )


def _with_sound(forward: Forward) -> tuple[Piece, ...]:
    """[video | reference | earlier frames, in three sizes]."""
    earlier = 0
    if forward.shapes.get("reference_motion"):
        height, width = forward.shapes["reference_motion"][-2:]
        sizes = ((1, 2), (1, 4), (4, 8))  # frames, and the side of a token
        earlier = sum(frames * (height // side) * (width // side) for frames, side in sizes)
    return (
        (Role.GENERATED, generated_grid(forward)),
        *_references(_given(forward, "reference_latent")),
        (Role.TEXT, earlier),
    )


def _with_pose(forward: Forward) -> tuple[Piece, ...]:
    """[first reference | further references | video | pose], brought to this order by
    `_first_is_last`."""
    stacked = _given(forward, "reference_latent")
    pose = sum(grid.area for grid in _given(forward, "pose_latents"))
    return (
        *_references(grid.one_frame for grid in stacked for _ in range(grid.frames)),
        (Role.GENERATED, generated_grid(forward)),
        (Role.TEXT, pose),
    )


def _first_is_last(forward: Forward, tokens: int) -> tuple[int, ...] | None:
    """Where the tokens of the pieces lie in a sequence that holds the first of several references
    after the others; None if there is one.

    tokens: of the whole sequence.
    """
    stacked = _given(forward, "reference_latent")
    if not stacked or stacked[0].frames < 2:
        return None
    each, everything = stacked[0].one_frame.area, stacked[0].area
    first = range(everything - each, everything)
    return (*first, *range(everything - each), *range(everything, tokens))


def _clip(forward: Forward) -> int:
    """How many pictures the CLIP tokens come from."""
    counts = [
        forward.shapes[name][-2]
        for name, reader in _CLIP.items()
        if forward.shapes.get(name) and reader in forward.numbers
    ]
    pictures, rest = divmod(sum(counts), 1 + _PATCHES.area)
    if rest:
        raise LayoutMismatch(f"{sum(counts)} CLIP tokens are not 257 for each picture")
    return pictures


def _pictures(
    pieces: Callable[[Forward], tuple[Piece, ...]], forward: Forward
) -> tuple[Picture, ...]:
    """Pictures among the video's tokens, or those of CLIP if there are none."""
    among = [piece for role, piece, *_ in pieces(forward) if role is Role.REFERENCE]
    if not among:
        return (Picture(_PATCHES, (0, 0), "CLIP image tokens"),) * _clip(forward)
    side = forward.patch
    return tuple(
        Picture(grid, (round(grid.covered[0] * side), round(grid.covered[1] * side)), "reference")
        for grid in among
        if isinstance(grid, Grid)
    )


def _read(
    pieces: Callable[[Forward], tuple[Piece, ...]],
    order: Callable[[Forward, int], tuple[int, ...] | None],
    forward: Forward,
    call: Call,
) -> tuple[Layer, TokenLayout] | None:
    spans = consecutive_spans(*pieces(forward))
    among, clip = any(span.role is Role.REFERENCE for span in spans), _clip(forward)
    if call.keys == _AUDIO and call.queries == generated_grid(forward).one_frame.area:
        return None  # each frame attends to its sound
    if call.queries != spans[-1].stop:
        raise LayoutMismatch(f"{call.queries} queries, but the sequence has {spans[-1].stop}")
    layer = named_layer(call)
    if _is_text(forward, call):
        text = consecutive_spans(prompt(forward))
        return layer, TokenLayout(spans, text, order(forward, call.queries))
    if among:
        if call.keys != call.queries or call.nth != 0:
            return None
        positions = order(forward, call.keys)
        layout = joint_layout(call, *pieces(forward))
        return layer, replace(layout, query_order=positions, key_order=positions)
    if not clip:
        return None
    summary_and_patches = ((Role.TEXT, 1), (Role.REFERENCE, _PATCHES))
    keys = consecutive_spans(*(summary_and_patches * clip))
    # The video itself, or the text, may have the same number of tokens.
    if call.keys != keys[-1].stop or call.nth != (call.queries == call.keys):
        return None
    grid = generated_grid(forward)
    return layer, TokenLayout((Span(Role.GENERATED, 0, grid.area, grid),), keys)


def _is_text(forward: Forward, call: Call) -> bool:
    """Whether a call is a block's attention to the text, which comes last.

    The sequence itself, or the CLIP tokens, may have the same number of tokens. A model made for
    CLIP tokens attends to the text twice if it is given none, with keys of its own each time.
    """
    clip = _clip(forward) * (1 + _PATCHES.area)
    before = (call.queries == forward.context) + (clip == forward.context)
    return call.keys == forward.context and call.nth >= before


def _in_order(forward: Forward, tokens: int) -> None:
    """The pieces stand in the sequence as they are listed."""


def _architecture(
    name: str,
    pieces: Callable[[Forward], tuple[Piece, ...]],
    *models: str,
    order: Callable[[Forward, int], tuple[int, ...] | None] = _in_order,
    note: str = "",
) -> Architecture:
    return Architecture(
        name=name,
        models=frozenset(models),
        joint=False,
        reference_kind="CLIP vision output, or pictures among the video's tokens",
        layers=blocks(double="blocks"),
        references=partial(_pictures, pieces),
        read=partial(_read, pieces, order),
        note="If a model has both CLIP tokens and pictures among the video's tokens, the maps are "
        "of the pictures. A start image that is only added to the video's first frames has no "
        "tokens of its own to attend to." + note,
        video=True,
    )


WAN = _architecture(
    *("Wan", _wan, "WAN21"),
    note=" Context latents need ComfyUI 0.30.0. WanDancer's reference comes before its start "
    "image. Animate's face acts where no node can watch.",
)
WAN_WITH_SOUND = _architecture("Wan HuMo and S2V", _with_sound, "WAN21_HuMo", "WAN22_S2V")
WAN_WITH_POSE = _architecture(
    *("Wan SCAIL", _with_pose, "WAN21_SCAIL"),
    order=_first_is_last,
    note=" Several references need ComfyUI 0.30.0.",
)
