"""HunyuanVideo: calls in plain numbers → layer and layout."""

from __future__ import annotations

from dataclasses import replace

import pytest

from i2am.errors import I2AMError, LayoutMismatch
from i2am.tokens import Grid, Role
from i2am.tokens.architectures import find
from i2am.tokens.architectures.base import Call, Forward, ImageTokens, Layer
from i2am.tokens.architectures.hunyuan_video import HUNYUAN_VIDEO

# Two latent frames of 6×10: 2×3×5 tokens of patches, 2×6×10 without. A reference of 8×6.
FORWARD = Forward(*((6, 10), (), 2, 9), frames=2, shapes={"ref_latent": (1, 16, 1, 8, 6)})
VISION = Forward(
    *((6, 10), (), 1, 9, (ImageTokens(2, 2, 3),)),
    frames=2,
    shapes={"clip_fea": (1, 729, 1152), "txt_byt5": (1, 4, 1472)},
    numbers={"vision_in": 1, "byt5_in": 1, "cond_type_embedding": 1},
)
OPTIONS = {"block_type": "single", "block_index": 3}


def _spans(forward: Forward, count: int) -> list[tuple[int, int]]:
    read = HUNYUAN_VIDEO.read(forward, Call(OPTIONS, count, count))
    assert read is not None
    assert read[0] == Layer("single", 3)
    assert read[1].generated.grid is not None
    assert read[1].generated.grid.frames == 2
    return [(span.start, span.stop) for span in read[1].keys]


def test_reference() -> None:
    """[text | reference | video]"""
    assert _spans(FORWARD, 51) == [(0, 9), (9, 21), (21, 51)]


def test_vision() -> None:
    """[vision | glyphs | text, image tokens, text | video]; without an embedding glyphs later."""
    spans = [(0, 729), (729, 733), (733, 735), (735, 741), (741, 742), (742, 862)]
    assert _spans(VISION, 862) == spans
    assert HUNYUAN_VIDEO.references(VISION)[0].grid == Grid(27, 27)
    early = replace(VISION, numbers={"vision_in": 1, "byt5_in": 1})
    assert _spans(early, 862)[1:4] == [(729, 731), (731, 737), (737, 738)]


def test_nothing_to_look_at() -> None:
    assert HUNYUAN_VIDEO.read(FORWARD, Call({}, 9, 9)) is None  # the text's refiner


def test_without_a_reference() -> None:
    """There is a layout, but no reference in it."""
    read = HUNYUAN_VIDEO.read(replace(FORWARD, shapes={}), Call(OPTIONS, 39, 39))
    assert read is not None
    assert [(span.role, span.length) for span in read[1].keys] == [
        (Role.TEXT, 9),
        (Role.GENERATED, 30),
    ]


def test_refuses() -> None:
    with pytest.raises(LayoutMismatch, match="52 queries and 52 keys"):
        HUNYUAN_VIDEO.read(FORWARD, Call(OPTIONS, 52, 52))
    odd = replace(VISION, shapes={"clip_fea": (1, 700, 1152)})
    with pytest.raises(LayoutMismatch, match="700 vision tokens"):
        HUNYUAN_VIDEO.read(odd, Call(OPTIONS, 833, 833))


def test_found() -> None:
    assert find(["HunyuanVideo15", "HunyuanVideo", "BaseModel"]) is HUNYUAN_VIDEO
    with pytest.raises(I2AMError, match="HunyuanImage21 models have no reference"):
        find(["HunyuanImage21", "BaseModel", "HunyuanVideo"])
