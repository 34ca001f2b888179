"""OmniGen2 and Boogu: maps equal the dense oracle's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import tiny
from oracle import Place, Seen
from proof import prove
from tiny_omnigen2 import SIZES, START, conditioning, omnigen2

both = pytest.mark.parametrize("both", [False, True], ids=["on positive", "on both"])


def boogu() -> Any:
    """Two double blocks and a single one."""
    return tiny.build(
        "Boogu",
        image_model="boogu",
        num_layers=1,
        num_double_stream_layers=2,
        instruction_feat_dim=24,
        **SIZES,
    )


def pictures(layer: int, text: int) -> Place:
    """[text | reference 1 28, 4×7 | reference 2 9, 3×3 | result 30, 6×5]"""
    return Place(
        layer=layer,
        generated=(text + 37, text + 67),
        grid=(6, 5),
        own=(text + 37, text + 67),
        references=((text, text + 28), (text + 28, text + 37)),
        reference_grids=((4, 7), (3, 3)),
        keys=text + 67,
    )


@both
def test_omnigen2(comfy: Any, both: bool, record_property: Any) -> None:
    blocks = count()

    def place(call: Seen) -> Place | None:
        return pictures(next(blocks) % 2, 7) if call.k.shape[2] == 74 else None

    record, calls = prove(
        *(comfy, omnigen2, conditioning(50, 7), conditioning(51, 7, both), START, place),
        grid=(6, 5),
        heads=4,
        note=record_property,
        cfg=3.0,
    )
    assert record.header.architecture == "OmniGen2"
    assert [layer.name for layer in record.header.layers] == ["layer 0", "layer 1"]
    covered = [picture.grid.covered for picture in record.header.references]
    assert covered == [(3.5, 7.0), (3.0, 2.5)]
    refiners = {call.k.shape[2] for call in calls if call.k.shape[2] < 74}
    assert {7, 30, 37} <= refiners


def boogu_place(text: int) -> Callable[[Seen], Place | None]:
    """Layers: double 0, its pictures only, double 1, its pictures only, single 0.

    With 67 tokens of text, its two refiners run with as many tokens as the pictures have.
    """
    joint, alone = count(), count()
    refiners = 2 if text == 67 else 0

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] == text + 67:
            return pictures((0, 2, 4)[next(joint) % 3], text)
        if call.k.shape[2] == 67 and 0 in call.options["cond_or_uncond"]:
            nth = next(alone) % (2 + refiners) - refiners
            return pictures((1, 3)[nth], 0) if nth >= 0 else None
        return None

    return place


@both
@pytest.mark.parametrize("text", [7, 67])
def test_boogu(comfy: Any, text: int, both: bool, record_property: Any) -> None:
    record, _ = prove(
        *(comfy, boogu, conditioning(50, text), conditioning(51, text, both), START),
        boogu_place(text),
        grid=(6, 5),
        heads=4,
        note=record_property,
        cfg=3.0,
    )
    assert record.header.architecture == "Boogu"
    names = ["double 0", "double 0.1", "double 1", "double 1.1", "single 0"]
    assert [layer.name for layer in record.header.layers] == names
