"""HiDream-E1 and HiDream-O1: calls in plain numbers → layer and layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

from i2am.errors import I2AMError, LayoutMismatch
from i2am.tokens import Grid, Picture, Role
from i2am.tokens.architectures.base import Call, Forward, Layer
from i2am.tokens.architectures.hidream import HIDREAM
from i2am.tokens.architectures.hidream_o1 import HIDREAM_O1

# A latent of 3×4 beside a picture of 3×5: two rows of two and three tokens; 5 + 2 × 4 of text.
E1 = Forward(
    latent=(3, 4),
    patch=2,
    context=5,
    shapes={"image_cond": (1, 16, 3, 5), "encoder_hidden_states_llama3": (1, 2, 4, 20)},
    layers=(Layer("double", 0), Layer("single", 0)),
)


@pytest.mark.parametrize("nth", [0, 1])
def test_e1(nth: int) -> None:
    read = HIDREAM.read(E1, Call({}, 23, 23, nth))
    assert read is not None
    layer, layout = read
    assert layer == E1.layers[nth]
    assert (
        layout.key_order
        == layout.query_order
        == (
            *(0, 1, 5, 6),  # the result
            *(2, 3, 4, 7, 8, 9),  # the reference
            *range(10, 23),
        )
    )
    spans = [(Role.GENERATED, 0, 4), (Role.REFERENCE, 4, 10)]
    spans += [(Role.TEXT, 10, 15), (Role.TEXT, 15, 19), (Role.TEXT, 19, 23)]
    assert [(span.role, span.start, span.stop) for span in layout.keys] == spans
    assert [span.prompt for span in layout.keys] == [None, None, 0, 5, 5]
    assert layout.queries == layout.keys
    grids = [layout.generated.grid, layout.references[0].grid]
    assert grids == [Grid(2, 2, (1.5, 2.0)), Grid(2, 3, (1.5, 2.5))]


def test_e1_without_a_picture() -> None:
    """HiDream-I1 is the same class; it has words alone."""
    forward = replace(E1, shapes={"encoder_hidden_states_llama3": (1, 2, 4, 20)})
    read = HIDREAM.read(forward, Call({}, 17, 17))
    assert read is not None
    assert [(span.length, span.prompt) for span in read[1].keys] == [
        *((4, None), (5, 0), (4, 5), (4, 5)),
    ]
    assert HIDREAM.references(forward) == ()


def test_e1_refuses() -> None:
    with pytest.raises(LayoutMismatch, match="24 queries and 24 keys"):
        HIDREAM.read(E1, Call({}, 24, 24))
    with pytest.raises(LayoutMismatch, match="there are 2 layers, but call 3 came"):
        HIDREAM.read(E1, Call({}, 23, 23, 2))
    with pytest.raises(I2AMError, match=r"5 latent cells wide here.*a multiple of 16 pixels"):
        HIDREAM.read(replace(E1, latent=(3, 5)), Call({}, 23, 23))


# 2048×1536 pixels, 64×48 patches; a text of 20 tokens.
O1 = Forward(latent=(2048, 1536), patch=32, shapes={"input_ids": (1, 20)})


def given(*sizes: tuple[int, int]) -> Forward:
    """With so many references of (height, width) in pixels."""
    pictures = tuple((1, *size, 3) for size in sizes)
    return replace(
        O1, shapes={**O1.shapes, "ref_patches": (1, 9, 3072), "reference_latents": pictures}
    )


@pytest.mark.parametrize(
    ("sizes", "grids"),
    [
        # as the model's own preparation cut pictures of these sizes
        ([(1024, 1024)], [(64, 64)]),
        ([(300, 2000)], [(24, 165)]),
        ([(5000, 4000), (640, 480)], [(53, 42), (55, 41)]),
        ([(777, 555)] * 3, [(37, 27)] * 3),
        ([(32, 64)] * 9, [(11, 22)] * 9),
    ],
)
def test_o1_references(sizes: list[tuple[int, int]], grids: list[tuple[int, int]]) -> None:
    pictures = HIDREAM_O1.references(given(*sizes))
    assert pictures == tuple(Picture(Grid(*grid), (0, 0), "reference picture") for grid in grids)


@pytest.mark.parametrize("block", [0, 1])
def test_o1(block: int) -> None:
    """The text before its last token does not ask; the result has 3072 tokens."""
    options = {"block_type": "double", "block_index": block}
    read = HIDREAM_O1.read(given((1024, 1024)), Call(options, 1 + 3072 + 4096, 20 + 3072 + 4096))
    assert read is not None
    layer, layout = read
    assert layer == Layer("double", block)
    assert [span.start for span in layout.queries] == [0, 1, 3073]
    assert [span.start for span in layout.keys] == [0, 20, 3092]
    assert layout.generated.grid == Grid(64, 48)


def test_o1_holds_no_reference() -> None:
    options = {"block_type": "double", "block_index": 0}
    assert HIDREAM_O1.read(O1, Call(options, 3073, 3092)) is None
    # the blocks once more, on a picture moved by less than a token
    again = Call(options, 1 + 3072 + 4096, 20 + 3072 + 4096, 1)
    assert HIDREAM_O1.read(given((1024, 1024)), again) is None


@pytest.mark.parametrize("queries", [7168, 7170, 7188])
def test_o1_refuses(queries: int) -> None:
    options = {"block_type": "double", "block_index": 0}
    with pytest.raises(LayoutMismatch, match=f"{queries} queries and 7188 keys"):
        HIDREAM_O1.read(given((1024, 1024)), Call(options, queries, 7188))


def test_layers() -> None:
    network = nn.Module()
    network.double_stream_blocks = nn.ModuleList([nn.Identity()])
    network.single_stream_blocks = nn.ModuleList([nn.Identity()])
    assert HIDREAM.layers(network) == E1.layers
    network.language_model = nn.Module()
    network.language_model.layers = nn.ModuleList(nn.Identity() for _ in range(2))
    assert HIDREAM_O1.layers(network) == (Layer("double", 0), Layer("double", 1))
