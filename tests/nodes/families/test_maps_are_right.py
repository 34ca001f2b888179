"""Every array of a recording equals a dense float64 computation, on ComfyUI's real model classes.

In each of these cases, sampling with capture gives exactly the same latent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from oracle import Place, Seen, Spy, expected, largest_deviation
from proof import TOLERANCE, arm_model, recording, rows_of, step_finder


def _flux_place(references: bool = True) -> Callable[[Seen], Place | None]:
    """Latent 12×10, references 7×14 and 6×5 (odd sides are padded), 7 text tokens.

    [text 0-7 | result 7-37, 6×5 | reference 1 37-65, 4×7 | reference 2 65-74, 3×3]
    """

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != 74:
            return None  # the pass without references
        number = call.options["block_index"] + (2 if call.options["block_type"] == "single" else 0)
        return Place(
            layer=number,
            generated=(7, 37),
            grid=(6, 5),
            own=(7, 37),
            references=((37, 65), (65, 74)),
            reference_grids=((4, 7), (3, 3)),
            keys=74,
        )

    return place


REFERENCES = (tiny.latent(10, 1, 16, 7, 14), tiny.latent(11, 1, 16, 6, 5))
FLUX_CASES = {
    "references on both, cfg 3": {"both": True, "cfg": 3.0, "sampler": "euler"},
    "references on positive only, cfg 3": {"both": False, "cfg": 3.0, "sampler": "euler"},
    "no cfg": {"both": False, "cfg": 1.0, "sampler": "euler"},
    "heun": {"both": True, "cfg": 3.0, "sampler": "heun"},
}


@pytest.mark.parametrize("case", FLUX_CASES)
def test_flux(comfy: Any, case: str, record_property: Any) -> None:
    """Flux: two references of different odd sizes, a batch of two."""
    options = dict(FLUX_CASES[case])
    both = options.pop("both")
    positive = tiny.conditioning(20, 7, 16, REFERENCES)
    negative = tiny.conditioning(21, 7, 16, REFERENCES if both else ())
    start = tiny.latent(22, 2, 16, 12, 10)
    model = tiny.flux()
    spy = Spy()
    armed = arm_model(comfy, spy.on(model))
    plain = tiny.sample(model, positive, negative, start, **options)
    latent = tiny.sample(armed, positive, negative, start, **options)
    assert torch.equal(latent, plain)

    record = recording(comfy, latent)
    steps = step_finder(record.header.run.schedule)
    assert len(record.header.run.schedule) == 4
    wanted = expected(spy.calls, rows_of(0, 2), _flux_place(), steps, grid=(6, 5), heads=2)
    deviations = largest_deviation(dict(record.arrays), wanted)
    record_property("largest deviation", max(deviations.values()))
    assert max(deviations.values()) < TOLERANCE, deviations
    assert [layer.name for layer in record.header.layers] == [
        *("double 0", "double 1", "single 0", "single 1"),
    ]
    evaluations = 5 if options["sampler"] == "heun" else 3
    assert (record.header.evaluations, record.header.expected_evaluations) == (
        *(evaluations, evaluations),
    )
    assert [picture.grid.covered for picture in record.header.references] == [(3.5, 7), (3, 2.5)]


def test_flux_unconditional_branch(comfy: Any) -> None:
    """On request the negative conditioning is recorded, here with its own order of references."""
    positive = tiny.conditioning(20, 7, 16, REFERENCES)
    negative = tiny.conditioning(21, 7, 16, REFERENCES)
    start = tiny.latent(22, 1, 16, 12, 10)
    spy = Spy()
    armed = arm_model(comfy, spy.on(tiny.flux()), branch="unconditional")
    latent = tiny.sample(armed, positive, negative, start, cfg=3.0)
    record = recording(comfy, latent)
    steps = step_finder(record.header.run.schedule)
    wanted = expected(spy.calls, rows_of(1, 1), _flux_place(), steps, (6, 5), heads=2)
    assert max(largest_deviation(dict(record.arrays), wanted).values()) < TOLERANCE


def _unet_place(call: Seen) -> Place | None:
    """Latent 16×12; context of 5 text tokens, 12 image tokens (3×4), 2 text tokens.

    Levels of 16×12 and 8×6. Cross-attention is told from self-attention by its keys: a
    multiple of 19, and no level has that many tokens.
    """
    if call.k.shape[2] % 19:
        return None
    layers = [("input", 1), ("input", 3), ("middle", 0), *(("output", i) for i in range(4))]
    height, width = call.options["activations_shape"][-2:]
    return Place(
        layer=layers.index(call.options["block"]),
        generated=(0, height * width),
        grid=(height, width),
        own=None,
        references=((5, 17),),
        reference_grids=((3, 4),),
        keys=19,
    )


@pytest.mark.parametrize("negative_tokens", [19, 38], ids=["same length", "repeated to 38"])
def test_unet(comfy: Any, negative_tokens: int, record_property: Any) -> None:
    """Stable Diffusion: image tokens after text tokens, a batch of two, contexts of two lengths."""
    positive = tiny.conditioning(30, 19, 24, i2am_image_tokens=[(5, 3, 4)])
    negative = tiny.conditioning(31, negative_tokens, 24)
    start = tiny.latent(32, 2, 4, 16, 12)
    model = tiny.unet()
    spy = Spy()
    armed = arm_model(comfy, spy.on(model))
    options = {"cfg": 3.0, "scheduler": "normal"}
    plain = tiny.sample(model, positive, negative, start, **options)
    latent = tiny.sample(armed, positive, negative, start, **options)
    assert torch.equal(latent, plain)

    record = recording(comfy, latent)
    steps = step_finder(record.header.run.schedule)
    wanted = expected(spy.calls, rows_of(0, 2), _unet_place, steps, (16, 12), heads=8)
    deviations = largest_deviation(dict(record.arrays), wanted)
    record_property("largest deviation", max(deviations.values()))
    assert max(deviations.values()) < TOLERANCE, deviations
    assert {len(seen.options["cond_or_uncond"]) for seen in spy.calls} == {2}
    assert len(record.header.layers) == record.header.expected_layers == 7
