"""HiDream-O1: a language model that reads text and draws pixels, beside its references."""

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
    consecutive_spans,
    generated_grid,
    named_layer,
)

# The side of a reference in 64ths of the result's longer side, by how many there are.
_SIZES = ((1, 64), (2, 48), (4, 32), (8, 24))
_FEWEST = 16


def _fitted(height: int, width: int, side: int, patch: int) -> Grid:
    """The grid of a picture resized to an area of side² pixels and cropped to whole patches.

    As the model's own preparation does it.
    """
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
    of the text on, because the text before it is read separately, and only once.

    The text includes what a vision encoder says about the references. Only the first run of the
    blocks counts: to smooth seams, they run again on pictures shifted by less than a token.
    """
    references = _references(forward)
    if not references or call.nth:
        return None
    text, generated = forward.shapes["input_ids"][1], generated_grid(forward)
    pictures = (
        (Role.GENERATED, generated),
        *((Role.REFERENCE, picture.grid) for picture in references),
    )
    keys, queries = (consecutive_spans((Role.TEXT, n), *pictures) for n in (text, 1))
    if (call.queries, call.keys) != (queries[-1].stop, keys[-1].stop):
        raise LayoutMismatch(
            f"{call.queries} queries and {call.keys} keys, but there are {text} text, "
            f"{generated.area} generated and {[p.grid.area for p in references]} reference"
        )
    return named_layer(call), TokenLayout(queries, keys)


HIDREAM_O1 = Architecture(
    name="HiDream-O1",
    models=frozenset({"HiDreamO1"}),
    joint=True,
    reference_kind="reference picture, from HiDreamO1ReferenceImages",
    layers=lambda network: blocks(double="layers")(network.get_submodule("language_model")),
    references=_references,
    read=_read,
    note="The tokens of the vision encoder count as text. The model crops references to whole "
    "patches of 32 pixels, and maps over a reference cover what is left.",
)
