"""Stable Diffusion's UNets: calls in plain numbers → layer and layout."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from i2am.errors import LayoutMismatch
from i2am.tokens import ADAPTER_TOKENS, Grid, Role
from i2am.tokens.architectures.base import Adapter, Call, Forward, ImageTokens, Layer
from i2am.tokens.architectures.unet import ONE_TOKEN_UNET, UNET

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
    """There is the text alone."""
    forward = Forward(latent=(17, 12), context=19)
    read = UNET.read(forward, Call(options(("input", 1), 17, 12), 204, 19))
    assert read is not None
    assert [(span.length, span.prompt) for span in read[1].keys] == [(19, 0)]


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


# Beside 7 tokens of text: two pictures of 4 tokens that share a softmax, and one of CLS and 16×16.
ADAPTERS = (Adapter(2, 4), Adapter(1, 257))


@pytest.mark.parametrize("text_keys", [7, 14], ids=["same length", "repeated"])
def test_adapters(text_keys: int) -> None:
    """Adapter after adapter behind the text, picture after picture, CLS apart."""
    forward = Forward(latent=(17, 12), context=7, adapters=ADAPTERS)
    given = options(("output", 3), 9, 6)
    read = UNET.read(forward, Call(given, 54, text_keys, adapted=True))
    assert read is not None
    assert read[0] == Layer("output", 3)
    assert [(span.role, span.start, span.stop, span.softmax) for span in read[1].keys] == [
        (Role.TEXT, 0, 7, 0),
        (Role.REFERENCE, 7, 11, 1),
        (Role.REFERENCE, 11, 15, 1),
        (Role.TEXT, 15, 16, 2),
        (Role.REFERENCE, 16, 272, 2),
    ]
    pictures = UNET.references(forward)
    assert [picture.grid for picture in pictures] == [Grid(1, 4), Grid(1, 4), Grid(16, 16)]
    assert [picture.kind for picture in pictures] == [*[ADAPTER_TOKENS] * 2, "IP-Adapter image"]
    assert [picture.has_places for picture in pictures] == [False, False, True]


def test_adapters_beside_image_tokens() -> None:
    """Pictures in the context come first."""
    forward = Forward(
        latent=(4, 4), context=9, image_tokens=(ImageTokens(3, 2, 3),), adapters=(Adapter(1, 16),)
    )
    read = UNET.read(forward, Call(options(("input", 1), 4, 4), 16, 9, adapted=True))
    assert read is not None
    assert [(span.start, span.stop) for span in read[1].references] == [(3, 9), (9, 25)]
    grids = [picture.grid for picture in UNET.references(forward)]
    assert grids == [span.grid for span in read[1].references]


def test_layers_without_their_adapters() -> None:
    """The middle block, which the adapters leave out, and self-attention."""
    forward = Forward(latent=(4, 4), context=7, adapters=ADAPTERS)
    for keys in (7, 16):
        assert UNET.read(forward, Call(options(("middle", 0), 4, 4), 16, keys)) is None


def test_as_many_places_as_text_tokens_beside_adapters() -> None:
    forward = Forward(latent=(2, 2), context=4, adapters=(Adapter(1, 16),))
    assert UNET.read(forward, Call(options(("input", 1), 2, 2), 4, 4, adapted=True)) is not None


@pytest.mark.parametrize(
    ("queries", "keys", "nth", "is_read"),
    [
        (30, 30, 0, False),  # self-attention over places
        (30, 1, 0, True),
        (14, 14, 0, False),  # over time
        (14, 1, 0, False),
        (30, 30, 1, False),  # over time, as many frames as places
        (30, 1, 1, False),
    ],
)
def test_a_context_of_one_token(queries: int, keys: int, nth: int, is_read: bool) -> None:
    forward = Forward(latent=(9, 12), context=1)
    given = options(("input", 1), 5, 6)
    read = ONE_TOKEN_UNET.read(forward, Call(given, queries, keys, nth))
    assert (read is not None) == is_read
    if read is not None:
        assert read[1].references[0].grid == Grid(1, 1)
    assert ONE_TOKEN_UNET.references(forward)[0].has_places is False
