"""Flux: calls in plain numbers → layer and layout."""

from __future__ import annotations

import pytest
from torch import nn

from i2am.errors import LayoutMismatch
from i2am.tokens import Grid, Picture, Role
from i2am.tokens.architectures.base import Call, Forward, ImageTokens, Layer
from i2am.tokens.architectures.flux import FLUX

# A latent of 12×10 (30 tokens), references of 7×14 and 6×5: odd sides are padded to whole tokens.
FORWARD = Forward(latent=(12, 10), references=((7, 14), (6, 5)), patch=2, context=7)
DOUBLE = {"block_type": "double", "block_index": 1}
SINGLE = {"block_type": "single", "block_index": 0}


@pytest.mark.parametrize(
    ("options", "queries", "keys", "layer", "spans", "references_asked"),
    [
        # [text 7 | result 30 | reference 28 | reference 9]
        (DOUBLE, 74, 74, Layer("double", 1), [(0, 7), (7, 37), (37, 65), (65, 74)], 2),
        (SINGLE, 74, 74, Layer("single", 0), [(0, 7), (7, 37), (37, 65), (65, 74)], 2),
        # reference keys from a cache: no reference asks
        (DOUBLE, 37, 74, Layer("double", 1), [(0, 7), (7, 37), (37, 65), (65, 74)], 0),
    ],
)
def test_layout(
    options: dict[str, object],
    queries: int,
    keys: int,
    layer: Layer,
    spans: list[tuple[int, int]],
    references_asked: int,
) -> None:
    read = FLUX.read(FORWARD, Call(options, queries, keys))
    assert read is not None
    found, layout = read
    assert found == layer
    assert [(span.start, span.stop) for span in layout.keys] == spans
    asked = len(spans) - 2 + references_asked
    assert [(span.start, span.stop) for span in layout.queries] == spans[:asked]
    assert layout.generated.grid == Grid(6, 5)
    first, second = layout.references
    assert first.grid == Grid(4, 7, (3.5, 7.0))
    assert second.grid == Grid(3, 3, (3.0, 2.5))


def test_patch_of_one() -> None:
    """Flux.2 cuts no patches: a token for every place of the latent."""
    forward = Forward(latent=(6, 5), references=((3, 4),), patch=1, context=3)
    read = FLUX.read(forward, Call(DOUBLE, 45, 45))
    assert read is not None
    assert [(span.start, span.stop) for span in read[1].keys] == [(0, 3), (3, 33), (33, 45)]


def test_no_text() -> None:
    forward = Forward(latent=(6, 5), references=((3, 4),), patch=1)
    read = FLUX.read(forward, Call(DOUBLE, 42, 42))
    assert read is not None
    assert [(span.start, span.stop) for span in read[1].keys] == [(0, 30), (30, 42)]


def test_redux_and_style_tokens() -> None:
    """[style 192 | text 7 | 2×3 of one picture | 2×2 of another | text 1 | result 30 | latent 9]"""
    forward = Forward(
        latent=(12, 10),
        references=((6, 5),),
        patch=2,
        context=18,
        image_tokens=(ImageTokens(7, 2, 3), ImageTokens(13, 2, 2)),
        patches=("SomebodysPatch", "UsoStyleProjectorPatch"),
    )
    for queries in (249, 240):
        read = FLUX.read(forward, Call(SINGLE, queries, 249))
        assert read is not None
        assert [(span.role.value[0], span.start, span.stop) for span in read[1].keys] == [
            *(("r", 0, 192), ("t", 192, 199), ("r", 199, 205), ("r", 205, 209), ("t", 209, 210)),
            *(("g", 210, 240), ("r", 240, 249)),
        ]
        assert len(read[1].queries) == (7 if queries == 249 else 6)
    kinds = [(picture.kind, picture.has_places) for picture in FLUX.references(forward)]
    assert kinds == [
        ("style tokens", False),
        *[("image tokens", True)] * 2,
        ("reference latent", True),
    ]


def test_refuses_marks_in_a_text_that_is_filled_up() -> None:
    """Flux.2 puts padding before a short text, so that marked tokens move."""
    marked = Forward(
        latent=(6, 5),
        context=512,
        image_tokens=(ImageTokens(3, 2, 2),),
        shapes={"cross_attn": (1, 7, 16)},
    )
    with pytest.raises(LayoutMismatch, match="text of 7 tokens, but the model reads 512"):
        FLUX.read(marked, Call(DOUBLE, 542, 542))


def test_no_reference() -> None:
    """Text and picture have their places; there is no reference among them."""
    read = FLUX.read(Forward(latent=(12, 10), patch=2, context=7), Call(DOUBLE, 37, 37))
    assert read is not None
    assert [span.role for span in read[1].keys] == [Role.TEXT, Role.GENERATED]


@pytest.mark.parametrize(
    ("queries", "keys"),
    [(66, 66), (79, 79), (40, 74), (30, 74), (75, 74), (28, 28)],
    ids=["too few", "too many", "part of a reference", "no text", "more queries", "one reference"],
)
def test_refuses(queries: int, keys: int) -> None:
    """Tokens that are not where they should be: a reason with both counts in it."""
    with pytest.raises(LayoutMismatch, match=rf"{queries} queries and {keys} keys.*30.*\[28, 9\]"):
        FLUX.read(FORWARD, Call(DOUBLE, queries, keys))


def test_layers_and_references() -> None:
    network = nn.Module()
    network.double_blocks = nn.ModuleList(nn.Identity() for _ in range(2))
    network.single_blocks = nn.ModuleList(nn.Identity() for _ in range(3))
    names = [layer.name for layer in FLUX.layers(network)]
    assert names == ["double 0", "double 1", "single 0", "single 1", "single 2"]
    assert FLUX.references(FORWARD) == (
        Picture(Grid(4, 7, (3.5, 7.0)), (7, 14), "reference latent"),
        Picture(Grid(3, 3, (3.0, 2.5)), (6, 5), "reference latent"),
    )
