"""Qwen-Image-Edit: calls in plain numbers → layer and layout."""

from __future__ import annotations

import pytest
from torch import nn

from i2am.errors import I2AMError, LayoutMismatch
from i2am.tokens import Grid, Role
from i2am.tokens.architectures import find
from i2am.tokens.architectures.base import Call, Forward, Layer
from i2am.tokens.architectures.qwen import QWEN

# A latent of 12×10 (30 tokens), references of 7×14 and 6×5: odd sides are padded to whole tokens.
SHAPES = {"ref_latents": ((1, 16, 1, 7, 14), (1, 16, 1, 6, 5))}
FORWARD = Forward(latent=(12, 10), references=((7, 14), (6, 5)), patch=2, context=9, shapes=SHAPES)
OPTIONS = {"block_type": "double", "block_index": 5}


@pytest.mark.parametrize(("queries", "asked"), [(76, 4), (39, 2)], ids=["all", "cached keys"])
def test_layout(queries: int, asked: int) -> None:
    """[text 9 | result 30 | reference 28 | reference 9]"""
    read = QWEN.read(FORWARD, Call(OPTIONS, queries, 76))
    assert read is not None
    layer, layout = read
    assert layer == Layer("double", 5)
    spans = [(0, 9), (9, 39), (39, 67), (67, 76)]
    assert [(span.start, span.stop) for span in layout.keys] == spans
    assert layout.queries == layout.keys[:asked]
    grids = [span.grid for span in layout.keys[1:]]
    assert grids == [Grid(6, 5), Grid(4, 7, (3.5, 7.0)), Grid(3, 3, (3.0, 2.5))]


def test_layers_of_a_result() -> None:
    """Layered: one frame after the other. [text 9 | 2 × 30 | reference 9]"""
    forward = Forward((12, 10), ((6, 5),), 2, context=9, frames=2)
    read = QWEN.read(forward, Call(OPTIONS, 78, 78))
    assert read is not None
    assert read[1].generated.grid == Grid(6, 5, frames=2)
    assert [(span.start, span.stop) for span in read[1].keys] == [(0, 9), (9, 69), (69, 78)]


@pytest.mark.parametrize(("queries", "keys"), [(75, 75), (77, 77), (67, 76)])
def test_refuses(queries: int, keys: int) -> None:
    with pytest.raises(LayoutMismatch, match=f"{queries} queries and {keys} keys"):
        QWEN.read(FORWARD, Call(OPTIONS, queries, keys))


def test_refuses_a_reference_of_several_frames() -> None:
    """Pictures encoded as one batch become frames of one latent, which has no one grid."""
    forward = Forward(
        (12, 10), ((7, 14),), 2, context=9, shapes={"ref_latents": ((1, 16, 3, 7, 14),)}
    )
    with pytest.raises(LayoutMismatch, match="3 frames"):
        QWEN.read(forward, Call(OPTIONS, 123, 123))


def test_no_reference() -> None:
    """Text and picture have their places; there is no reference among them."""
    read = QWEN.read(Forward((12, 10), patch=2, context=9), Call(OPTIONS, 39, 39))
    assert read is not None
    assert [span.role for span in read[1].keys] == [Role.TEXT, Role.GENERATED]


def test_layers() -> None:
    network = nn.Module()
    network.transformer_blocks = nn.ModuleList(nn.Identity() for _ in range(2))
    assert [layer.name for layer in QWEN.layers(network)] == ["double 0", "double 1"]


def test_models_that_only_share_the_base_class() -> None:
    """Another network under ComfyUI's QwenImage keeps its tokens elsewhere."""
    with pytest.raises(I2AMError, match="cannot read"):
        find(["SomebodysImage", "QwenImage", "BaseModel", "SomebodysTransformer", "Module"])
