"""HiDream-O1: a language model that reads text, and draws beside its references in pixels."""

from __future__ import annotations

import math

from ...errors import LayoutMismatch
from ..grids import Grid
from ..layout import Picture, Role, TokenLayout
from .base import (
    Architecture,
    Call,
    Forward,
    Layer,
    blocks,
    generated_grid,
    side_by_side,
    told_layer,
)

# How much of the result's longer side a reference gets, in 64ths, by how many there are.
_SIZES = ((1, 64), (2, 48), (4, 32), (8, 24))
_FEWEST = 16


def _fitted(height: int, width: int, side: int, patch: int) -> Grid:
    """The grid of a picture brought to an area of side² pixels and whole patches, as the model's
    own preparation does it, which cuts off what is over at the edges."""
    while min(height, width) >= 2 * side:
        height, width = height // 2, width // 2
    scale = math.sqrt(side * side / (width * height))
    down, across = height * scale, width * scale
    candidates = [
        (int(rounding_down(down)) // patch, int(rounding_across(across)) // patch)
        for rounding_across, rounding_down in (
            *((round, round), (round, math.floor)),
            *((math.floor, round), (math.floor, math.floor)),
        )
    ]
    candidates.sort(key=lambda sides: sides[0] * sides[1], reverse=True)
    fit = (c for c in candidates if c[0] * c[1] * patch * patch <= side * side)
    return Grid(*next(fit, candidates[-1]))


def _references(forward: Forward) -> tuple[Picture, ...]:
    if not forward.shapes.get("ref_patches"):
        return ()
    given = forward.shapes["reference_latents"]  # pictures, (batch, height, width, 3)
    share = next((share for most, share in _SIZES if len(given) <= most), _FEWEST)
    side = max(forward.latent) * share // 64
    return tuple(
        Picture(_fitted(shape[1], shape[2], side, forward.patch), (0, 0), "reference picture")
        for shape in given
    )


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """Keys: [text | result | reference 1 | reference 2 …]; queries: the same from the last token
    of the text on, as the text before it is read apart, and only once.

    The text holds what a vision encoder says of the references too. Only the first run of the
    blocks counts: smoothing of seams runs them again on pictures moved by less than a token.
    """
    references = _references(forward)
    if not references or call.nth:
        return None
    text, generated = forward.shapes["input_ids"][1], generated_grid(forward)
    pictures = (
        (Role.GENERATED, generated),
        *((Role.REFERENCE, picture.grid) for picture in references),
    )
    keys, queries = (side_by_side((Role.TEXT, n), *pictures) for n in (text, 1))
    if (call.queries, call.keys) != (queries[-1].stop, keys[-1].stop):
        raise LayoutMismatch(
            f"{call.queries} queries and {call.keys} keys, but there are {text} text, "
            f"{generated.area} generated and {[p.grid.area for p in references]} reference"
        )
    layer = told_layer(call)
    return layer, TokenLayout(queries, keys)


HIDREAM_O1 = Architecture(
    name="HiDream-O1",
    models=frozenset({"HiDreamO1"}),
    joint=True,
    reference_kind="reference picture, from HiDreamO1ReferenceImages",
    layers=lambda network: blocks(double="layers")(network.get_submodule("language_model")),
    references=_references,
    read=_read,
    note="The tokens of the vision encoder count as text. The model cuts references to whole "
    "patches of 32 pixels, so maps over one lie on what is left.",
)
