"""Qwen-Image-Edit, with all its ways to place references: maps equal the dense oracle's."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from oracle import Place, Seen
from proof import prove
from tiny_joint import qwen

# Sides that are not whole numbers of tokens, like the latents of pictures with odd sizes.
START = tiny.latent(42, 2, 16, 1, 11, 10)
REFERENCES = (tiny.latent(43, 1, 16, 1, 7, 14), tiny.latent(44, 1, 16, 1, 6, 5))


def place(call: Seen) -> Place | None:
    """[text 9 | result 30, 6×5 | reference 1 28, 4×7 | reference 2 9, 3×3]"""
    if call.k.shape[2] != 76:
        return None  # the pass without references
    return Place(
        layer=call.options["block_index"],
        generated=(9, 39),
        grid=(6, 5),
        own=(9, 39),
        references=((39, 67), (67, 76)),
        reference_grids=((4, 7), (3, 3)),
        keys=76,
    )


KINDS = {
    "2509": {},
    "2511": {"default_ref_method": "index_timestep_zero"},
    "Layered": {"default_ref_method": "negative_index", "use_additional_t_cond": True},
}


@pytest.mark.parametrize("both", [False, True], ids=["on positive", "on both"])
@pytest.mark.parametrize("kind", KINDS)
def test_maps(comfy: Any, kind: str, both: bool, record_property: Any) -> None:
    positive = tiny.conditioning(45, 9, 24, REFERENCES)
    negative = tiny.conditioning(46, 9, 24, REFERENCES if both else ())
    record, _ = prove(
        *(comfy, lambda: qwen(**KINDS[kind]), positive, negative, START, place),
        grid=(6, 5),
        heads=2,
        note=record_property,
        cfg=3.0,
    )
    assert record.header.architecture == "Qwen-Image-Edit"
    assert record.header.generated.grid.covered == (5.5, 5.0)
    covered = [picture.grid.covered for picture in record.header.references]
    assert covered == [(3.5, 7.0), (3.0, 2.5)]


def test_plain_with_a_masked_text(comfy: Any, record_property: Any) -> None:
    """One reference; the text encoder's mask hides the last two of nine tokens."""
    mask = torch.tensor([[1] * 7 + [0] * 2])
    positive = tiny.conditioning(45, 9, 24, REFERENCES[:1], attention_mask=mask)
    negative = tiny.conditioning(46, 9, 24, REFERENCES[:1], attention_mask=mask)

    def one(call: Seen) -> Place:
        assert call.mask is not None
        return Place(
            call.options["block_index"], (9, 39), (6, 5), (9, 39), ((39, 67),), ((4, 7),), 67
        )

    prove(
        *(comfy, qwen, positive, negative, START, one),
        grid=(6, 5),
        heads=2,
        note=record_property,
        cfg=3.0,
    )


def test_cached_references(comfy: Any, record_property: Any) -> None:
    """With cached reference keys, references have no queries after the first evaluation."""
    cached = comfy.node("FluxKVCache").execute
    positive = tiny.conditioning(45, 9, 24, REFERENCES)
    _, calls = prove(
        *(comfy, lambda: cached(qwen())[0], positive, positive, START, place),
        grid=(6, 5),
        heads=2,
        note=record_property,
    )
    assert [call.q.shape[2] for call in calls] == [76] * 2 + [39] * 4


def test_layers(comfy: Any, record_property: Any) -> None:
    """A result of three layers: 3×3 tokens frame after frame, each with its own maps."""
    positive = tiny.conditioning(45, 9, 24, REFERENCES)
    start = tiny.latent(42, 2, 16, 3, 5, 6)

    def stacked(call: Seen) -> Place:
        """[text 9 | result 27, three times 3×3 | reference 1 28, 4×7 | reference 2 9, 3×3]"""
        return Place(
            layer=call.options["block_index"],
            generated=(9, 36),
            grid=(9, 3),
            own=(9, 36),
            references=((36, 64), (64, 73)),
            reference_grids=((4, 7), (3, 3)),
            keys=73,
        )

    record, _ = prove(
        *(comfy, lambda: qwen(**KINDS["Layered"]), positive, positive, start, stacked),
        grid=(9, 3),
        heads=2,
        note=record_property,
    )
    assert record.arrays["share.map"].shape == (2, 4, 3, 3, 3)
    assert record.header.generated.grid.covered == (2.5, 3.0)
