"""Lumina 2 and Z-Image Omni: maps equal the dense oracle's."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from oracle import Place, Seen
from proof import prove
from tiny_joint import SIZES, lumina2, z_image

# The model pads its result to whole tokens, but not the references.
START = tiny.latent(82, 2, 16, 11, 9)
REFERENCES = (tiny.latent(83, 1, 16, 8, 14), tiny.latent(84, 1, 16, 6, 4))
both = pytest.mark.parametrize("both", [False, True], ids=["on positive", "on both"])


@both
def test_z_image(comfy: Any, both: bool, record_property: Any) -> None:
    """[captions 32, 32, 32 | vision 64, 32, 32 | reference 1 28 of 32 | 2 6 of 32 | 30 of 32]

    Captions of 5, none and 7 tokens; vision tokens of 5×7, none, and none for the result. The
    captions' refiners run first, with as many tokens as the pictures' refiners.
    """
    seen = SimpleNamespace(
        last_hidden_state=tiny.latent(85, 1, 35, 16), image_sizes=[(3, 5 * 16, 7 * 16)]
    )
    omni = {
        "reference_latents_text_embeds": [tiny.latent(86, 1, 5, 24)],
        "clip_vision_outputs": [seen],
    }
    refiners, blocks = count(), count()

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] == 96:
            layer, text = next(refiners) % 4 - 2, 0
        elif call.k.shape[2] == 320:
            layer, text = next(blocks) % 2 + 2, 224
        else:
            return None
        if layer < 0:
            return None  # the captions' refiner
        return Place(
            layer=layer,
            generated=(text + 64, text + 94),
            grid=(6, 5),
            own=(text + 64, text + 94),
            references=((text, text + 28), (text + 32, text + 38)),
            reference_grids=((4, 7), (3, 2)),
            keys=text + 96,
            words=tuple((64 + n,) for n in range(7) if text),
        )

    positive = tiny.conditioning(80, 7, 24, REFERENCES, **omni)
    negative = tiny.conditioning(
        81, 7, 24, *((REFERENCES,) if both else ()), **(omni if both else {})
    )
    record, _ = prove(
        *(comfy, z_image, positive, negative, START, place),
        grid=(6, 5),
        heads=4,
        note=record_property,
        cfg=3.0,
    )
    assert record.header.architecture == "Lumina 2 and Z-Image"
    names = [layer.name for layer in record.header.layers]
    assert names == ["refiner 0", "refiner 1", "double 0", "double 1"]
    assert record.header.generated.grid.covered == (5.5, 4.5)


def test_z_image_in_pixels(comfy: Any, record_property: Any) -> None:
    """The same tokens without a VAE: [captions 3 × 32 | reference 1 | reference 2 | result]"""
    refiners, layers = count(), count()

    def model() -> Any:
        sizes = {"patch_size": 16, "in_channels": 3, "decoder_hidden_size": 32}
        return tiny.build(
            "ZImagePixelSpace",
            image_model="zimage_pixel",
            z_image_modulation=True,
            pad_tokens_multiple=32,
            decoder_num_res_blocks=1,
            **(SIZES | sizes),
        )

    def place(call: Seen) -> Place | None:
        text = call.k.shape[2] - 96
        if text == 0 and next(refiners) % 4 < 2:
            return None  # the captions' refiner
        return Place(
            layer=next(layers) % 4,
            generated=(text + 64, text + 94),
            grid=(6, 5),
            own=(text + 64, text + 94),
            references=((text, text + 28), (text + 32, text + 38)),
            reference_grids=((4, 7), (3, 2)),
            keys=text + 96,
            words=tuple((64 + n,) for n in range(7) if text),
        )

    pictures = (tiny.latent(83, 1, 3, 64, 112), tiny.latent(84, 1, 3, 48, 32))
    positive = tiny.conditioning(80, 7, 24, pictures)
    record, _ = prove(
        *(comfy, model, positive, positive, tiny.latent(82, 2, 3, 90, 72), place),
        grid=(6, 5),
        heads=4,
        note=record_property,
    )
    assert record.header.generated.grid.covered == (90 / 16, 4.5)


@both
def test_lumina2(comfy: Any, both: bool, record_property: Any) -> None:
    """[captions 5, 3 and 7 | reference 1 28 | reference 2 6 | result 30]

    Without padding, every reference needs a caption.
    """
    captions = [tiny.latent(90 + n, 1, n, 24) for n in (5, 3)]
    refiners, blocks = count(), count()

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] == 64:
            layer, text = next(refiners) % 2, 0
        elif call.k.shape[2] == 79:
            layer, text = next(blocks) % 2 + 2, 15
        else:
            return None
        return Place(
            layer=layer,
            generated=(text + 34, text + 64),
            grid=(6, 5),
            own=(text + 34, text + 64),
            references=((text, text + 28), (text + 28, text + 34)),
            reference_grids=((4, 7), (3, 2)),
            keys=text + 64,
            words=tuple((8 + n,) for n in range(7) if text),
        )

    positive, negative = (
        tiny.conditioning(seed, 7, 24, REFERENCES, reference_latents_text_embeds=captions)
        if references
        else tiny.conditioning(seed, 7, 24)
        for seed, references in ((80, True), (81, both))
    )
    prove(
        *(comfy, lumina2, positive, negative, START, place),
        grid=(6, 5),
        heads=4,
        note=record_property,
        cfg=3.0,
    )
