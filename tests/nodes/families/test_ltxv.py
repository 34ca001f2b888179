"""LTX-Video: maps of guides equal the dense oracle's, on ComfyUI's own model class."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from oracle import Place, Seen
from proof import arm_model, refusal_reason
from video import prove_video

# Three latent frames of 4×5 tokens, followed by two frames of guides.
START = tiny.latent(80, 2, 16, 5, 4, 5)
OWN, ALL = 60, 100
TEXT = 9


def ltxv(seed: int = 0) -> Any:
    """Two blocks of two heads of 12."""
    return tiny.build(
        "LTXV",
        seed,
        image_model="ltxv",
        in_channels=16,
        cross_attention_dim=24,
        attention_head_dim=12,
        num_attention_heads=2,
        caption_channels=24,
        num_layers=2,
    )


def guided(text: int = TEXT, **extra: Any) -> tuple[list[Any], list[Any]]:
    """Both conditionings with two guides, marked as LTXVAddGuide marks them: times and places."""
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")
    places = [
        torch.stack((torch.full((4, 5), time), rows * 32, columns * 32)).flatten(1)
        for time in (0, 16)
    ]
    start = torch.cat(places, 1)[None]
    extra |= {"keyframe_idxs": torch.stack((start, start + 32), -1).float()}
    extra |= {"attention_mask": torch.ones(1, text, dtype=torch.int64)}
    return (
        tiny.conditioning(81, text, 24, **extra),
        tiny.conditioning(82, text, 24, **extra),
    )


MASK = torch.ones(2, 1, 5, 4, 5)
MASK[:, :, 3:] = 0


def place_of(text: int = TEXT, queries: int = ALL) -> Any:
    """The layout of each block's first attention: [video 3×4×5 | guide 4×5 | guide 4×5]."""
    order: list[int] = []

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != ALL or call.q.shape[2] != queries:
            return None
        order.append(len(order))
        nth = order[-1]
        if text == ALL:
            if nth % 2:
                return None
            nth //= 2
        spans, grids = ((60, 80), (80, 100)), ((4, 5), (4, 5))
        return Place(nth % 2, (0, OWN), (12, 5), (0, OWN), spans, grids, ALL)

    return place


def in_text(text: int = TEXT) -> Any:
    """Each block's second attention, to the text."""
    order: list[int] = []
    words = tuple((n,) for n in range(text))

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != text or call.q.shape[2] != ALL:
            return None
        order.append(len(order))
        nth = order[-1]
        if text == ALL:
            if not nth % 2:
                return None
            nth //= 2
        return Place(nth % 2, (0, OWN), (12, 5), None, (), (), text, words=words)

    return place


@pytest.mark.parametrize("text", [TEXT, ALL], ids=["", "text as long as the video"])
def test_guides(comfy: Any, record_property: Any, text: int) -> None:
    """Each frame of guides is a reference, and the result is the frames before them."""
    positive, negative = guided(text)
    record, _ = prove_video(
        *(comfy, ltxv, positive, negative, START, place_of(text)),
        grid=(3, 4, 5),
        words_at=in_text(text),
        note=record_property,
        noise_mask=MASK,
        cfg=3.0,
        steps=2,
    )
    header = record.header
    assert (header.architecture, header.joint) == ("LTX-Video", True)
    assert header.generated.grid.frames == 3
    assert [picture.kind for picture in header.references] == ["guide", "guide"]


def test_a_guide_of_half_strength(comfy: Any, record_property: Any) -> None:
    """The video's queries then have a call of their own, with a mask."""
    entries = [
        {
            "pre_filter_count": 20,
            "strength": strength,
            "pixel_mask": None,
            "latent_shape": [1, 4, 5],
        }
        for strength in (0.5, 1.0)
    ]
    positive, negative = guided(guide_attention_entries=entries)
    record, calls = prove_video(
        *(comfy, ltxv, positive, negative, START, place_of(queries=OWN)),
        grid=(3, 4, 5),
        words_at=in_text(),
        note=record_property,
        noise_mask=MASK,
        cfg=3.0,
        steps=2,
    )
    assert {call.q.shape[2] for call in calls} == {OWN, ALL - OWN, ALL}
    assert len(record.header.references) == 2


def test_guides_of_another_grid(comfy: Any) -> None:
    """Guides whose tokens are not whole frames of the video are refused, not misread."""
    positive, negative = guided()
    for conditioning in (positive, negative):
        given = conditioning[0][1]
        given["keyframe_idxs"] = given["keyframe_idxs"][:, :, :33]
    latent = tiny.sample(
        *(arm_model(comfy, ltxv()), positive, negative, START), noise_mask=MASK, steps=1
    )
    reason = refusal_reason(comfy, latent)
    assert "do not fill whole frames" in reason
