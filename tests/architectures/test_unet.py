"""Stable Diffusion's UNets: calls in plain numbers → layer and layout."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from i2am.architectures.base import Call, Forward, ImageTokens, Layer
from i2am.architectures.unet import UNET
from i2am.errors import LayoutMismatch
from i2am.geometry import Grid, Role

# A latent of 17×12; a context of 5 text tokens, 3×4 of a picture, 2 text tokens.
FORWARD = Forward(latent=(17, 12), context=19, image_tokens=(ImageTokens(5, 3, 4),))
KEYS = [(Role.TEXT, 0, 5), (Role.REFERENCE, 5, 17), (Role.TEXT, 17, 19)]


def options(block: tuple[str, int], height: int, width: int, index: int = 0) -> dict[str, Any]:
    return {"block": block, "block_index": index, "activations_shape": [2, 32, height, width]}


@pytest.mark.parametrize(
    ("given", "queries", "keys", "layer", "grid"),
    [
        (options(("input", 1), 17, 12), 204, 19, Layer("input", 1), Grid(17, 12)),
        (options(("input", 4), 9, 6, 1), 54, 19, Layer("input", 4, 1), Grid(9, 6, (8.5, 6.0))),
        (options(("middle", 0), 5, 3), 15, 19, Layer("middle", 0), Grid(5, 3, (4.25, 3.0))),
        # the context repeated beside one of 38 tokens
        (options(("output", 2), 17, 12), 204, 38, Layer("output", 2), Grid(17, 12)),
        # a size that is no halving of the latent (another pack's deep shrink)
        (options(("input", 1), 6, 6), 36, 19, Layer("input", 1), Grid(6, 6)),
    ],
)
def test_layout(given: dict[str, Any], queries: int, keys: int, layer: Layer, grid: Grid) -> None:
    read = UNET.read(FORWARD, Call(given, queries, keys, nth=1))
    assert read is not None
    found, layout = read
    assert found == layer
    assert layout.generated.grid == grid
    assert layout.queries == (layout.generated,)
    assert [(span.role, span.start, span.stop) for span in layout.keys] == KEYS
    assert layout.references[0].grid == Grid(3, 4)


def test_two_pictures_side_by_side() -> None:
    """Image tokens at the start, one picture after the other, and no text between."""
    tokens = (ImageTokens(0, 2, 2), ImageTokens(4, 1, 3))
    forward = Forward(latent=(4, 4), context=9, image_tokens=tokens)
    read = UNET.read(forward, Call(options(("input", 1), 4, 4), 16, 9))
    assert read is not None
    assert [(span.role, span.start, span.stop) for span in read[1].keys] == [
        (Role.REFERENCE, 0, 4),
        (Role.REFERENCE, 4, 7),
        (Role.TEXT, 7, 9),
    ]


def test_self_attention_holds_no_reference() -> None:
    assert UNET.read(FORWARD, Call(options(("input", 1), 17, 12), 204, 204, nth=0)) is None


def test_as_many_places_as_context_tokens() -> None:
    """Where self- and cross-attention have the same counts, the second call is the cross one."""
    forward = Forward(latent=(4, 4), context=16, image_tokens=(ImageTokens(0, 4, 4),))
    given = options(("input", 1), 4, 4)
    assert UNET.read(forward, Call(given, 16, 16, nth=0)) is None
    read = UNET.read(forward, Call(given, 16, 16, nth=1))
    assert read is not None
    assert read[1].references[0].grid == Grid(4, 4)


def test_no_image_tokens() -> None:
    forward = Forward(latent=(17, 12), context=19)
    assert UNET.read(forward, Call(options(("input", 1), 17, 12), 204, 19)) is None


def test_refuses_keys_that_are_no_repetition() -> None:
    with pytest.raises(LayoutMismatch, match="20 keys, but the context has 19 tokens"):
        UNET.read(FORWARD, Call(options(("input", 1), 17, 12), 204, 20))


def test_refuses_queries_that_are_no_picture() -> None:
    with pytest.raises(LayoutMismatch, match="102 queries for a level of 17×12"):
        UNET.read(FORWARD, Call(options(("input", 1), 17, 12), 102, 19))


def test_refuses_marks_beyond_the_context() -> None:
    forward = Forward(latent=(17, 12), context=10, image_tokens=(ImageTokens(5, 3, 4),))
    with pytest.raises(LayoutMismatch, match="marked up to 17, but the context has 10"):
        UNET.read(forward, Call(options(("input", 1), 17, 12), 204, 10))


@pytest.mark.parametrize(
    "tokens",
    [
        (ImageTokens(5, 3, 4), ImageTokens(8, 1, 2)),
        (ImageTokens(-3, 1, 2),),
        (ImageTokens(0, 0, 4),),
    ],
    ids=["overlap", "before the start", "empty"],
)
def test_refuses_marks_that_make_no_sense(tokens: tuple[ImageTokens, ...]) -> None:
    forward = Forward(latent=(17, 12), context=19, image_tokens=tokens)
    with pytest.raises(LayoutMismatch):
        UNET.read(forward, Call(options(("input", 1), 17, 12), 204, 19))


def test_layers() -> None:
    """Every transformer of every block, in the order they run."""

    def block(depth: int) -> nn.Module:
        transformer = nn.Module()
        transformer.transformer_blocks = nn.ModuleList(nn.Identity() for _ in range(depth))
        return nn.Sequential(nn.Identity(), *([transformer] if depth else []))

    network = nn.Module()
    network.input_blocks = nn.ModuleList([block(0), block(1), block(2)])
    network.middle_block = block(1)
    network.output_blocks = nn.ModuleList([block(1), block(0)])
    names = [layer.name for layer in UNET.layers(network)]
    assert names == ["input 1", "input 2", "input 2.1", "middle 0", "output 0"]
    network.register_module("middle_block", None)
    assert "middle 0" not in [layer.name for layer in UNET.layers(network)]
