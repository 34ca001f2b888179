"""Within the picture: calls in plain numbers → layer and layout."""

from __future__ import annotations

import pytest
from torch import nn

from i2am.tokens import Grid, Role
from i2am.tokens.architectures.base import Call, Forward, Layer
from i2am.tokens.architectures.flux import FLUX
from i2am.tokens.architectures.unet import UNET
from i2am.tokens.architectures.within import within

FORWARD = Forward(latent=(12, 10), references=((7, 14),), patch=2, context=7)


def test_a_family_that_tells_the_place_of_the_picture() -> None:
    """Flux with a reference: [text 7 | result 30 | reference 28], the result watched."""
    read = within(FLUX).read(FORWARD, Call({"block_type": "double", "block_index": 5}, 65, 65))
    assert read is not None
    layer, layout = read
    assert layer == Layer("double", 5)
    spans = [(span.role, span.start, span.stop) for span in layout.keys]
    assert spans == [(Role.TEXT, 0, 7), (Role.REFERENCE, 7, 37), (Role.TEXT, 37, 65)]
    assert (layout.generated.start, layout.generated.grid) == (7, Grid(6, 5))


def test_a_level_of_a_unet() -> None:
    options = {"block": ("input", 3), "block_index": 0, "activations_shape": [2, 32, 6, 5]}
    one = within(UNET)
    read = one.read(Forward(latent=(12, 10), context=7), Call(options, 30, 30))
    assert read is not None
    assert (read[0], read[1].generated.grid) == (Layer("input", 3), Grid(6, 5))
    assert one.read(Forward(latent=(12, 10), context=7), Call(options, 30, 7)) is None


@pytest.mark.parametrize(
    ("queries", "keys", "nth", "options"),
    [
        (30, 30, 1, {"block_index": 0}),  # the text, of as many tokens
        (30, 37, 0, {"block_index": 0}),
        (37, 37, 0, {"block_index": 0}),  # who knows where the picture is
        (30, 30, 0, {}),  # which block
    ],
)
def test_what_is_not_read(queries: int, keys: int, nth: int, options: dict[str, int]) -> None:
    assert within(None).read(FORWARD, Call(options, queries, keys, nth)) is None


def test_an_unknown_model() -> None:
    network = nn.Module()
    network.refiner = nn.ModuleList([nn.Identity()])
    network.blocks = nn.ModuleList(nn.Identity() for _ in range(2))
    one = within(None)
    assert one.layers(network) == (Layer("block", 0), Layer("block", 1))
    read = one.read(FORWARD, Call({"block_index": 1}, 30, 30))
    assert read is not None
    assert read[0] == Layer("block", 1)
    assert [picture.kind for picture in one.references(FORWARD)] == ["the picture itself"]
