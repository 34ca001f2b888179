"""Krea 2, MageFlow and JoyImage: calls in plain numbers → layer and layout."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from i2am.errors import LayoutMismatch
from i2am.tokens import Grid
from i2am.tokens.architectures import find
from i2am.tokens.architectures.base import Architecture, Call, Forward, Layer
from i2am.tokens.architectures.joyimage import JOYIMAGE
from i2am.tokens.architectures.krea2 import KREA2
from i2am.tokens.architectures.mage_flow import MAGE_FLOW

# A latent of 12×10 (30 tokens), references of 7×14 and 6×5: odd sides are padded to whole tokens.
FORWARD = Forward(latent=(12, 10), references=((7, 14), (6, 5)), patch=2, context=9)
UNCUT = Forward(latent=(6, 5), references=((4, 7), (3, 3)), context=9)
GRIDS = [Grid(4, 7, (3.5, 7.0)), Grid(3, 3, (3.0, 2.5))]
FIRST, LAST = [(0, 9), (9, 39), (39, 67), (67, 76)], [(0, 30), (30, 58), (58, 67), (67, 76)]


@pytest.mark.parametrize(
    ("architecture", "forward", "kind", "spans", "grids"),
    [
        (KREA2, FORWARD, "single", FIRST, GRIDS),
        (MAGE_FLOW, UNCUT, "double", FIRST, [Grid(4, 7), Grid(3, 3)]),
        (JOYIMAGE, FORWARD, "double", LAST, GRIDS),
    ],
    ids=["Krea 2", "MageFlow", "JoyImage"],
)
def test_layout(
    architecture: Architecture,
    forward: Forward,
    kind: str,
    spans: list[tuple[int, int]],
    grids: list[Grid],
) -> None:
    options: dict[str, Any] = {"block_type": kind, "block_index": 5}
    read = architecture.read(forward, Call(options, 76, 76))
    assert read is not None
    layer, layout = read
    assert layer == Layer(kind, 5)
    assert [(span.start, span.stop) for span in layout.keys] == spans
    assert layout.queries == layout.keys
    assert layout.generated.grid == Grid(6, 5)
    assert [span.grid for span in layout.references] == grids
    plain = Forward(forward.latent, patch=forward.patch, context=9)
    read = architecture.read(plain, Call(options, 39, 39))
    assert read is not None
    assert read[1].references == ()
    for tokens in (75, 77):
        with pytest.raises(LayoutMismatch, match=f"{tokens} queries and {tokens} keys"):
            architecture.read(forward, Call(options, tokens, tokens))


def test_krea2_holds_no_reference() -> None:
    """In the blocks of the text, and where the model leaves its references out."""
    for tokens in (3, 9, 76):
        assert KREA2.read(FORWARD, Call({}, tokens, tokens)) is None
    read = KREA2.read(FORWARD, Call({"block_type": "single", "block_index": 0}, 39, 39))
    assert read is not None
    assert read[1].references == ()


def test_layers() -> None:
    network = nn.Module()
    for name in ("blocks", "transformer_blocks", "double_blocks"):
        setattr(network, name, nn.ModuleList(nn.Identity() for _ in range(2)))
    assert KREA2.layers(network) == (Layer("single", 0), Layer("single", 1))
    assert MAGE_FLOW.layers(network) == (Layer("double", 0), Layer("double", 1))
    assert JOYIMAGE.layers(network) == MAGE_FLOW.layers(network)


def test_mage_flow_is_not_qwen() -> None:
    names = ["MageFlow", "QwenImage", "BaseModel", "MageFlowTransformer2DModel", "Module"]
    assert find(names) is MAGE_FLOW
