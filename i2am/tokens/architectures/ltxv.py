"""LTX-Video: guides are further frames after the video's own, in every block's self-attention."""

from __future__ import annotations

from dataclasses import replace

from ...errors import LayoutMismatch
from ..grids import Grid
from ..layout import Picture, Role, TokenLayout
from .base import (
    Architecture,
    Call,
    Forward,
    Layer,
    blocks,
    consecutive_spans,
    counted_layer,
    generated_grid,
    prompt,
)


def _frames(forward: Forward) -> tuple[Grid, int]:
    """The grid of the video's own frames, and how many frames of guides follow them."""
    whole = generated_grid(forward)
    tokens = forward.shapes.get("keyframe_idxs", (0, 0, 0))[2]
    guides, rest = divmod(tokens, whole.one_frame.area)
    if rest:
        raise LayoutMismatch(f"{tokens} tokens of guides do not fill whole frames of the video")
    return replace(whole, frames=whole.frames - guides), guides


def _references(forward: Forward) -> tuple[Picture, ...]:
    video, guides = _frames(forward)
    return (Picture(video.one_frame, forward.latent, "guide"),) * guides


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """[video | guide | guide …]. With a guide strength, the video's queries have their own call."""
    video, guides = _frames(forward)
    keys = consecutive_spans(
        (Role.GENERATED, video), *((Role.REFERENCE, video.one_frame) for _ in range(guides))
    )
    count, nth = keys[-1].stop, call.nth
    text = call.keys == forward.context and call.queries == count
    if forward.context == count:  # then cross-attention to the text has the same counts
        text, nth = bool(nth % 2), nth // 2
    if text:
        layout = TokenLayout(keys, consecutive_spans(prompt(forward)))
        return counted_layer(forward.layers, nth), layout
    if call.keys != count:
        if call.queries == call.keys:
            raise LayoutMismatch(f"{call.keys} keys, but video and guides have {count} tokens")
        return None
    if call.queries not in (count, video.area):
        return None  # the queries are the guides
    queries = tuple(span for span in keys if span.stop <= call.queries)
    return counted_layer(forward.layers, nth), TokenLayout(queries, keys)


LTXV = Architecture(
    name="LTX-Video",
    models=frozenset({"LTXV"}),
    joint=True,
    reference_kind="guide frames, from LTXVAddGuide",
    layers=blocks(block="transformer_blocks"),
    references=_references,
    read=_read,
    note="Each latent frame of a guide is a reference. Collect Attribution takes the sampler's own "
    "latent, before LTXVCropGuides. A start image that is the video's own first frame has no "
    "tokens of its own to attend to.",
    video=True,
)
