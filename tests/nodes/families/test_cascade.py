"""Stable Cascade: maps equal the dense oracle's."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from oracle import Place, Seen
from proof import prove


def cascade() -> Any:
    """Two blocks down, the first of them twice; two up; four heads."""
    return tiny.build(
        "Stable_Cascade_C",
        stable_cascade_stage="c",
        c_cond=32,
        c_hidden=[32, 48],
        nhead=[4, 4],
        blocks=[[1, 1], [1, 1]],
        block_repeat=[[2, 1], [1, 1]],
        c_clip_text=24,
        c_clip_text_pooled=20,
    )


def conditioning(seed: int, tokens: int, pictures: int) -> list[Any]:
    seen = [
        {
            "strength": 1.0,
            "clip_vision_output": SimpleNamespace(image_embeds=tiny.latent(seed + n, 1, 768)),
        }
        for n in range(1, pictures + 1)
    ]
    extra: dict[str, Any] = {"unclip_conditioning": seen} if seen else {}
    return tiny.conditioning(seed, tokens, 24, pooled_output=tiny.latent(seed, 1, 20), **extra)


@pytest.mark.parametrize("negative", [(7, 0), (7, 2), (14, 2)])
def test_maps(comfy: Any, negative: tuple[int, int], record_property: Any) -> None:
    """Queries: 7×5 cells. Keys: [result 35 | text 7, twice beside 14 | 4 | 4 | 4]

    Where the negative text is twice as long, the host repeats the positive one, which changes this
    model's result.
    """
    layers = count()
    text = negative[0] if negative[1] == 2 else 7

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != 35 + text + 12:
            return None  # the pass without pictures
        start = 35 + text + 4
        return Place(
            layer=next(layers) % 5,
            generated=(0, 35),
            grid=(7, 5),
            own=(0, 35),
            references=((start, start + 4), (start + 4, start + 8)),
            reference_grids=((1, 4), (1, 4)),
            keys=start + 8,
            words=tuple(tuple(range(35 + n, 35 + text, 7)) for n in range(7)),
        )

    record, _ = prove(
        *(comfy, cascade, conditioning(95, 7, 2), conditioning(98, *negative)),
        *(tiny.latent(99, 2, 16, 7, 5), place),
        grid=(7, 5),
        heads=4,
        note=record_property,
        cfg=3.0,
    )
    assert record.header.architecture == "Stable Cascade"
    names = [layer.name for layer in record.header.layers]
    assert names == ["down 0", "down 1", "down 2", "up 0", "up 1"]
