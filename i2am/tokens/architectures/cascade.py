"""Stable Cascade, stage C: unCLIP pictures, a few tokens each, behind the text."""

from __future__ import annotations

from torch import nn

from ...errors import LayoutMismatch
from ..grids import Grid
from ..layout import UNCLIP_TOKENS, Picture, Role, TokenLayout
from .base import (
    Architecture,
    Call,
    Forward,
    Layer,
    Piece,
    consecutive_spans,
    counted_layer,
    generated_grid,
)

_EACH = 4  # tokens that the model makes of one embedding, a picture's or the text's


def _layers(network: nn.Module) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for kind in ("down", "up"):
        groups = getattr(network, f"{kind}_blocks")
        repeats = getattr(network, f"{kind}_repeat_mappers")
        runs = (
            sum(hasattr(block, "attention") for block in group) * (1 + len(again))
            for group, again in zip(groups, repeats, strict=True)
        )
        layers += (Layer(kind, index) for index in range(sum(runs)))
    return tuple(layers)


def _references(forward: Forward) -> tuple[Picture, ...]:
    given = forward.shapes.get("unclip_conditioning", ())
    return (Picture(Grid(1, _EACH), (0, 0), UNCLIP_TOKENS),) * len(given)


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """Queries: the result. Keys: [result | text | text as one | picture 1 | picture 2 …].

    The text is repeated to the length of a longer one in the same batch.
    """
    references = _references(forward)
    result = (Role.GENERATED, generated_grid(forward))
    text = forward.shapes["clip_text"][1]
    pictures: tuple[Piece, ...] = tuple((Role.REFERENCE, one.grid) for one in references)
    if not references:
        pictures = ((Role.TEXT, _EACH),)  # the model then gets a black picture
    own = forward.shapes["cross_attn"][1]
    texts: tuple[Piece, ...] = ((Role.TEXT, own, 0),) * (text // own)
    keys = consecutive_spans(result, *texts, (Role.TEXT, _EACH), *pictures)
    if (call.queries, call.keys) != (result[1].area, keys[-1].stop):
        raise LayoutMismatch(
            f"{call.queries} queries and {call.keys} keys, but there are {result[1].area} tokens "
            f"of the result, {text + _EACH} of text and {_EACH} of each of {len(references)} "
            "references"
        )
    return counted_layer(forward.layers, call.nth), TokenLayout(consecutive_spans(result), keys)


CASCADE = Architecture(
    name="Stable Cascade",
    models=frozenset({"StableCascade_C"}),
    joint=True,
    reference_kind="picture of unCLIPConditioning",
    layers=_layers,
    references=_references,
    read=_read,
    note="Stage C. A picture is four tokens, so it has a share and a map over the result, but no "
    "map over the reference.",
)
