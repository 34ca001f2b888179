"""The picture's attention to itself: on request, exact, and never in place of references."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from oracle import Place, Seen
from proof import arm_model, filed, prove, recording
from tiny_wan import START, texts, wan


def test_still(comfy: Any, record_property: Any) -> None:
    """One frame of Wan: only the picture in its sequence."""

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != 20:
            return None
        return Place(call.options["block_index"], (0, 20), (4, 5), None, ((0, 20),), ((4, 5),), 20)

    positive, negative = texts()
    record, _ = prove(
        *(comfy, lambda: wan("WAN21_T2V"), positive, negative, START[:, :, :1], place),
        grid=(4, 5),
        heads=2,
        plan={"within": True},
        words=False,
        note=record_property,
        cfg=3.0,
        steps=2,
    )
    assert record.header.architecture == "Wan, within the picture"
    assert [picture.kind for picture in record.header.references] == ["the picture itself"]


def test_unet(comfy: Any) -> None:
    """All levels, each with its own keys; brought to the finest."""
    text = tiny.conditioning(30, 19, 24)
    start = tiny.latent(32, 1, 4, 16, 12)
    latent = tiny.sample(arm_model(comfy, tiny.unet(), within=True), text, text, start)
    record = recording(comfy, latent)
    assert len(record.header.layers) == record.header.expected_layers == 7
    assert record.arrays["correspondence.0"].shape == (1, 16, 12, 16, 12)
    sums = record.arrays["model.g2r.0.step_layer"].sum((-2, -1))
    assert float((sums - 1).abs().max()) < 1e-5  # it attends to nothing else


@pytest.mark.parametrize("within", [False, True])
def test_is_off_unless_asked_for(comfy: Any, within: bool) -> None:
    """Without a reference there is nothing to record; an unknown model is refused."""
    positive, _ = texts()
    armed = arm_model(comfy, wan("WAN21_T2V"), within=within)
    latent = tiny.sample(armed, positive, positive, START, steps=1)
    record = filed(comfy, latent)
    assert isinstance(record, comfy.pack("i2am.recording").Recording) == within
    if within:
        assert record.arrays["paper.g2r.0.step_layer"].shape == (2, 1, 2, 3, 4, 5)


def test_beside_a_text(comfy: Any, record_property: Any) -> None:
    """Flux without references: text and picture in one sequence; the picture attends to both."""

    def place(call: Seen) -> Place | None:
        return Place(layer(call), (7, 37), (6, 5), None, ((7, 37),), ((6, 5),), 37)

    def layer(call: Seen) -> int:
        kind, index = call.options["block_type"], call.options["block_index"]
        return index + 2 * (kind == "single")

    text = tiny.conditioning(90, 7, 16, pooled_output=tiny.latent(91, 1, 8))
    prove(
        *(comfy, tiny.flux, text, text, tiny.latent(92, 2, 16, 12, 10), place),
        grid=(6, 5),
        heads=2,
        plan={"within": True},
        note=record_property,
        steps=2,
    )
