"""OmniGen2 and Boogu: references before the result, in blocks that do not give their index."""

from __future__ import annotations

from torch import nn

from ..layout import Role, TokenLayout
from .base import (
    Architecture,
    Call,
    Forward,
    Layer,
    blocks,
    counted_layer,
    generated_grid,
    joint_layout,
    reference_latents,
)


def _joint(forward: Forward, call: Call, text: int) -> TokenLayout:
    """[text | reference 1 | reference 2 … | result]."""
    references = ((Role.REFERENCE, picture.grid) for picture in reference_latents(forward))
    return joint_layout(
        call, (Role.TEXT, text, 0), *references, (Role.GENERATED, generated_grid(forward))
    )


def _picture_tokens(forward: Forward) -> tuple[int, int]:
    """How many tokens the result and the references have."""
    references = sum(picture.grid.area for picture in reference_latents(forward))
    return generated_grid(forward).area, references


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """As `_joint`. The refiners, which run first, hold only text, result or references."""
    if call.keys in (forward.context, *_picture_tokens(forward)):
        return None
    return counted_layer(forward.layers, call.nth), _joint(forward, call, forward.context)


def _boogu_layers(network: nn.Module) -> tuple[Layer, ...]:
    """A double block attends twice: to everything, then to the pictures alone."""
    doubles, singles = blocks(double="double_stream_layers"), blocks(single="single_stream_layers")
    twice = (Layer("double", one.index, sub) for one in doubles(network) for sub in (0, 1))
    return (*twice, *singles(network))


def _boogu_read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """As OmniGen2, and [reference 1 | reference 2 … | result] in the double blocks."""
    pictures = _picture_tokens(forward)
    first, sub, text = 0, 0, forward.context
    if call.keys == sum(pictures):
        # The refiners of the text come first, and may have the same number of tokens.
        first, sub, text = forward.numbers["context_refiner"] * (text == call.keys), 1, 0
    if call.keys in (text, *pictures) or call.nth < first:
        return None
    layers = tuple(layer for layer in forward.layers if layer.sub == sub)
    return counted_layer(layers, call.nth - first), _joint(forward, call, text)


OMNIGEN2 = Architecture(
    name="OmniGen2",
    models=frozenset({"Omnigen2"}),
    joint=True,
    reference_kind="reference latent",
    layers=blocks(layer="layers"),
    references=reference_latents,
    read=_read,
)

BOOGU = Architecture(
    name="Boogu",
    models=frozenset({"Boogu"}),
    joint=True,
    reference_kind="reference latent",
    layers=_boogu_layers,
    references=reference_latents,
    read=_boogu_read,
    tested="0.30.0",
    note="Double blocks attend twice, to everything and to the pictures alone: two layers each.",
)
