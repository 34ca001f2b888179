"""Stable Cascade: calls in plain numbers → layer and layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

from i2am.errors import LayoutMismatch
from i2am.tokens import Grid, Role
from i2am.tokens.architectures.base import Call, Forward, Layer
from i2am.tokens.architectures.cascade import CASCADE

# A latent of 6×5, seven tokens of text, two pictures.
FORWARD = Forward(
    latent=(6, 5),
    shapes={
        **{"clip_text": (2, 7, 24), "cross_attn": (1, 7, 24)},
        "unclip_conditioning": ((), ()),
    },
    layers=(Layer("down", 0), Layer("up", 0)),
)


@pytest.mark.parametrize("nth", [0, 1])
def test_layout(nth: int) -> None:
    read = CASCADE.read(FORWARD, Call({}, 30, 49, nth))
    assert read is not None
    layer, layout = read
    assert layer == FORWARD.layers[nth]
    assert layout.queries == (layout.generated,)
    assert layout.generated.grid == Grid(6, 5)
    assert [(span.role, span.start, span.stop) for span in layout.keys] == [
        (Role.GENERATED, 0, 30),
        (Role.TEXT, 30, 37),
        (Role.TEXT, 37, 41),
        (Role.REFERENCE, 41, 45),
        (Role.REFERENCE, 45, 49),
    ]
    assert not any(picture.has_places for picture in CASCADE.references(FORWARD))


def test_no_picture() -> None:
    """There is the text, and the tokens of a black picture, which count as text."""
    forward = replace(FORWARD, shapes={"clip_text": (2, 7, 24), "cross_attn": (1, 7, 24)})
    read = CASCADE.read(forward, Call({}, 30, 45))
    assert read is not None
    assert [(s.role, s.length, s.prompt) for s in read[1].keys] == [
        (Role.GENERATED, 30, None),
        *((Role.TEXT, 7, 0), (Role.TEXT, 4, None), (Role.TEXT, 4, None)),
    ]


def test_a_repeated_text() -> None:
    """A text repeated to the length of another: each token of it has two keys."""
    shapes = {**FORWARD.shapes, "clip_text": (2, 14, 24)}
    read = CASCADE.read(replace(FORWARD, shapes=shapes), Call({}, 30, 56))
    assert read is not None
    assert [(s.length, s.prompt) for s in read[1].keys[1:3]] == [(7, 0), (7, 0)]


@pytest.mark.parametrize(("queries", "keys", "nth"), [(30, 45, 0), (15, 49, 0), (30, 49, 2)])
def test_refuses(queries: int, keys: int, nth: int) -> None:
    with pytest.raises(LayoutMismatch):
        CASCADE.read(FORWARD, Call({}, queries, keys, nth))


def test_layers() -> None:
    """A group of blocks may run again."""

    def group(attending: int) -> nn.ModuleList:
        blocks = [nn.Module() for _ in range(attending)]
        for block in blocks:
            block.attention = nn.Identity()
        return nn.ModuleList([nn.Identity(), *blocks])

    network = nn.Module()
    network.down_blocks = nn.ModuleList([group(1), group(2)])
    network.down_repeat_mappers = nn.ModuleList([nn.ModuleList([nn.Identity()]), nn.ModuleList()])
    network.up_blocks = nn.ModuleList([group(1)])
    network.up_repeat_mappers = nn.ModuleList([nn.ModuleList()])
    names = [layer.name for layer in CASCADE.layers(network)]
    assert names == ["down 0", "down 1", "down 2", "down 3", "up 0"]
