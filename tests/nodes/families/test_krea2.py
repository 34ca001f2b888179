"""Krea 2, MageFlow and JoyImage: maps equal the dense oracle's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
from oracle import Place, Seen
from proof import arm_model, prove, refusal_reason

both = pytest.mark.parametrize("both", [False, True], ids=["on positive", "on both"])


def krea2() -> Any:
    """Two blocks with four query heads and two key heads; three layers of text."""
    return tiny.build(
        "Krea2",
        image_model="krea2",
        features=128,
        tdim=32,
        txtdim=16,
        heads=4,
        kvheads=2,
        layers=2,
        txtlayers=3,
        txtheads=2,
        txtkvheads=2,
    )


def mage_flow() -> Any:
    """Two blocks of two heads."""
    return tiny.build(
        "MageFlow",
        image_model="mage_flow",
        num_layers=2,
        num_attention_heads=2,
        joint_attention_dim=24,
    )


def joyimage() -> Any:
    """Two blocks of two heads."""
    return tiny.build(
        "JoyImage",
        image_model="joyimage",
        hidden_size=256,
        num_attention_heads=2,
        text_dim=24,
        num_layers=2,
    )


def first(text: int) -> Callable[[Seen], Place | None]:
    """[text | result 30, 6×5 | reference 1 28, 4×7 | reference 2 9, 3×3]"""

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != text + 67:
            return None  # the pass without references, and the text's own blocks
        return Place(
            layer=call.options["block_index"],
            generated=(text, text + 30),
            grid=(6, 5),
            own=(text, text + 30),
            references=((text + 30, text + 58), (text + 58, text + 67)),
            reference_grids=((4, 7), (3, 3)),
            keys=text + 67,
        )

    return place


@both
@pytest.mark.parametrize("method", ["index", "index_timestep_zero"])
def test_krea2(comfy: Any, method: str, both: bool, record_property: Any) -> None:
    references = (tiny.latent(92, 1, 16, 1, 7, 14), tiny.latent(93, 1, 16, 1, 6, 5))
    given = {"reference_latents_method": method}
    positive = tiny.conditioning(90, 9, 48, references, **given)
    negative = tiny.conditioning(91, 9, 48, references if both else (), **given)
    record, _ = prove(
        *(comfy, krea2, positive, negative, tiny.latent(94, 2, 16, 1, 11, 10), first(9)),
        grid=(6, 5),
        heads=4,
        note=record_property,
        cfg=3.0,
    )
    assert record.header.architecture == "Krea 2"
    assert [layer.name for layer in record.header.layers] == ["single 0", "single 1"]


def test_krea2_without_a_method(comfy: Any) -> None:
    """The model ignores its references, and the recording says what is missing."""
    given = tiny.conditioning(90, 9, 48, (tiny.latent(92, 1, 16, 1, 6, 6),))
    armed = arm_model(comfy, krea2())
    latent = tiny.sample(armed, given, given, tiny.latent(94, 1, 16, 1, 6, 6), steps=1)
    reason = refusal_reason(comfy, latent)
    assert "Edit Model Reference Method" in reason


@both
def test_mage_flow(comfy: Any, both: bool, record_property: Any) -> None:
    """One token per latent pixel."""
    references = (tiny.latent(92, 1, 128, 4, 7), tiny.latent(93, 1, 128, 3, 3))
    positive = tiny.conditioning(90, 9, 24, references)
    negative = tiny.conditioning(91, 9, 24, references if both else ())
    record, _ = prove(
        *(comfy, mage_flow, positive, negative, tiny.latent(94, 2, 128, 6, 5), first(9)),
        grid=(6, 5),
        heads=2,
        note=record_property,
        cfg=3.0,
    )
    assert record.header.architecture == "MageFlow"


@both
def test_joyimage(comfy: Any, both: bool, record_property: Any) -> None:
    """[result 30, 6×5 | reference 1 28, 4×7 | reference 2 9, 3×3 | text 9]"""

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != 76:
            return None  # the pass without references
        return Place(
            layer=call.options["block_index"],
            generated=(0, 30),
            grid=(6, 5),
            own=(0, 30),
            references=((30, 58), (58, 67)),
            reference_grids=((4, 7), (3, 3)),
            keys=76,
        )

    references = (tiny.latent(92, 1, 16, 1, 7, 14), tiny.latent(93, 1, 16, 1, 6, 5))
    positive = tiny.conditioning(90, 9, 24, references)
    negative = tiny.conditioning(91, 9, 24, references if both else ())
    record, _ = prove(
        *(comfy, joyimage, positive, negative, tiny.latent(94, 2, 16, 1, 11, 10), place),
        grid=(6, 5),
        heads=2,
        note=record_property,
        cfg=3.0,
    )
    assert record.header.architecture == "JoyImage"
    assert record.header.generated.grid.covered == (5.5, 5.0)
