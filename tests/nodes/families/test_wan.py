"""Wan: maps of videos equal the dense oracle's, on ComfyUI's own model classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import tiny
import torch
from oracle import Place, Seen
from proof import arm_model, refusal_reason
from tiny_wan import EVEN, START, TEXT, texts, wan
from video import prove_video


def clip(seed: int, pictures: int = 1) -> Any:
    """CLIP tokens of so many pictures, joined as by WanFirstLastFrameToVideo."""
    import comfy.clip_vision

    output: Any = comfy.clip_vision.Output()
    output.penultimate_hidden_states = tiny.latent(seed, 1, 257 * pictures, 1280) * 2
    return output


def beside_the_text(pictures: int, columns: int = 5) -> Callable[[Seen], Place | None]:
    """[CLS | 16×16] of each picture, seen by 3×4×`columns` video tokens, apart from the text."""
    spans = tuple((257 * n + 1, 257 * (n + 1)) for n in range(pictures))

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != 257 * pictures:
            return None
        layer = call.options["block_index"]
        whole = (0, 12 * columns), (12, columns), None
        return Place(layer, *whole, spans, ((16, 16),) * pictures, 257 * pictures)

    return place


def in_text(first: int = 0, columns: int = 5) -> Callable[[Seen], Place | None]:
    """Attention to the text, in a call of its own; the video's queries begin at `first`."""
    words = tuple((n,) for n in range(TEXT))

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != TEXT:
            return None
        own = (first, first + 12 * columns)
        layer = call.options["block_index"]
        return Place(layer, own, (12, columns), None, (), (), TEXT, words=words)

    return place


@pytest.mark.parametrize("pictures", [1, 2], ids=["I2V", "FLF"])
def test_clip_tokens(comfy: Any, pictures: int, record_property: Any) -> None:
    """The start image, and the end image where there is one."""
    place = beside_the_text(pictures)
    config: dict[str, Any] = {"model_type": "i2v", "in_dim": 36}
    if pictures == 2:
        config["flf_pos_embed_token_number"] = 514
    image = tiny.latent(64, 1, 16, 3, 7, 10)
    positive, negative = texts(clip_vision_output=clip(63, pictures), concat_latent_image=image)
    record, calls = prove_video(
        *(comfy, lambda: wan("WAN21_I2V", **config), positive, negative, START, place),
        grid=(3, 4, 5),
        note=record_property,
        words_at=in_text(),
        cfg=3.0,
        steps=2,
    )
    header = record.header
    assert (header.architecture, header.joint) == ("Wan", False)
    assert (header.generated.grid.covered, header.generated.grid.frames) == ((3.5, 5.0), 3)
    assert {call.k.shape[2] for call in calls} == {60, TEXT, 257 * pictures}


def test_animate(comfy: Any, record_property: Any) -> None:
    """CLIP tokens of the character; the face acts outside of the attention that can be watched."""
    image = tiny.latent(64, 1, 16, 3, 7, 10)
    positive, negative = texts(
        clip_vision_output=clip(63),
        concat_latent_image=image,
        pose_video_latent=tiny.latent(76, 1, 16, 2, 8, 10),
        face_video_pixels=tiny.latent(77, 1, 3, 1, 512, 512).tanh(),
    )

    def animate() -> Any:
        return wan("WAN22_Animate", model_type="animate", in_dim=36, num_layers=5)

    record, _ = prove_video(
        *(comfy, animate, positive, negative, START, beside_the_text(1)),
        grid=(3, 4, 5),
        note=record_property,
        words_at=in_text(),
        steps=1,
    )
    assert len(record.header.layers) == 5


def test_dancer(comfy: Any, record_property: Any) -> None:
    """CLIP tokens of the reference before those of the start image, with music."""
    start = tiny.latent(60, 2, 16, 3, 8, 12)
    positive, negative = texts(
        clip_vision_output=clip(63),
        clip_vision_output_ref=clip(78),
        concat_latent_image=start[:1],
        audio_embed=tiny.latent(79, 1, 6, 35),
    )

    def dancer() -> Any:
        return wan("WAN22_WanDancer", model_type="wandancer", in_dim=36, audio_inject_layers=[0])

    record, _ = prove_video(
        *(comfy, dancer, positive, negative, start, beside_the_text(2, 6)),
        grid=(3, 4, 6),
        note=record_property,
        words_at=in_text(columns=6),
        cfg=3.0,
        steps=2,
    )
    assert len(record.header.references) == 2


def joint(*pieces: tuple[str, tuple[int, int]]) -> Any:
    """The layout of self-attention over one sequence: its pieces, including the result."""
    ends = [0]
    for _, (height, width) in pieces:
        ends.append(ends[-1] + height * width)
    spans = {span[0]: span for span in pairwise(ends)}

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != ends[-1]:
            return None
        own = next(n for n, (role, _) in enumerate(pieces) if role == "result")
        given = [n for n, (role, _) in enumerate(pieces) if role == "reference"]
        return Place(
            layer=call.options["block_index"],
            generated=spans[ends[own]],
            grid=pieces[own][1],
            own=spans[ends[own]],
            references=tuple(spans[ends[n]] for n in given),
            reference_grids=tuple(pieces[n][1] for n in given),
            keys=ends[-1],
        )

    return place


def test_reference_convolution(comfy: Any, record_property: Any) -> None:
    """[reference 4×5 | video 3×4×5]"""
    positive, negative = texts(reference_latents=[tiny.latent(65, 1, 16, 1, 8, 10)])
    place = joint(("reference", (4, 5)), ("result", (12, 5)))
    record, _ = prove_video(
        *(comfy, lambda: wan("WAN21_T2V", in_dim_ref_conv=16), positive, negative, EVEN, place),
        grid=(3, 4, 5),
        note=record_property,
        words_at=in_text(20),
        cfg=3.0,
        steps=2,
    )
    assert record.header.joint
    assert [picture.latent for picture in record.header.references] == [(8, 10)]


def test_context_latents(comfy: Any, record_property: Any) -> None:
    """[video 3×4×5 | a video of 2×3×4, covering 5×8 | picture 2×3]"""
    tiny.not_before("0.30.0", "context latents of Wan")
    given = [tiny.latent(66, 1, 16, 2, 5, 8), tiny.latent(67, 1, 16, 1, 4, 6)]
    positive, negative = texts(context_latents=given)
    place = joint(("result", (12, 5)), ("reference", (6, 4)), ("reference", (2, 3)))
    record, _ = prove_video(
        *(comfy, lambda: wan("WAN21_T2V"), positive, negative, START, place),
        grid=(3, 4, 5),
        reference_frames=(2, 1),
        note=record_property,
        words_at=in_text(),
        cfg=3.0,
        steps=2,
    )
    assert [picture.grid.covered for picture in record.header.references] == [(2.5, 4), (2, 3)]


def test_pictures_as_further_frames(comfy: Any, record_property: Any) -> None:
    """Phantom: [video 3×4×5 | picture 4×5 | picture 4×5]"""
    positive, negative = texts(time_dim_concat=tiny.latent(68, 1, 16, 2, 7, 10))
    place = joint(("result", (12, 5)), ("reference", (4, 5)), ("reference", (4, 5)))
    prove_video(
        *(comfy, lambda: wan("WAN21_T2V"), positive, negative, START, place),
        grid=(3, 4, 5),
        note=record_property,
        words_at=in_text(),
        cfg=3.0,
        steps=2,
    )


def test_with_sound(comfy: Any, record_property: Any) -> None:
    """HuMo: [video 3×4×5 | reference 4×5]; each frame also attends to its sound."""
    positive, negative = texts(
        reference_latents=[tiny.latent(69, 1, 16, 1, 8, 10)],
        audio_embed=tiny.latent(70, 1, 3, 8, 5, 1280),
    )
    place = joint(("result", (12, 5)), ("reference", (4, 5)))
    _, calls = prove_video(
        *(comfy, lambda: wan("WAN21_HuMo", model_type="humo"), positive, negative, EVEN, place),
        grid=(3, 4, 5),
        note=record_property,
        words_at=in_text(),
        cfg=3.0,
        steps=2,
    )
    assert {call.k.shape[2] for call in calls} == {80, TEXT, 16}


def test_with_pose(comfy: Any, record_property: Any) -> None:
    """SCAIL: [reference 2, 4×5 | reference 3 | reference 1 | video 3×4×5 | pose 3×2×3]"""
    tiny.not_before("0.30.0", "several references of SCAIL")
    given = [tiny.latent(seed, 1, 16, 1, 7, 10) for seed in (71, 72, 74)]
    positive, negative = texts(
        reference_latents=given, pose_video_latent=tiny.latent(73, 1, 16, 3, 4, 6)
    )
    pieces = [("reference", (4, 5))] * 3 + [("result", (12, 5)), ("pose", (6, 3))]

    def place(call: Seen) -> Place | None:
        found = joint(*pieces)(call)
        if found is None:
            return None
        second, third, first = found.references
        return replace(found, references=(first, second, third))

    def scail() -> Any:
        return wan("WAN21_SCAIL", model_type="scail", in_dim=20)

    prove_video(
        *(comfy, scail, positive, negative, START, place),
        grid=(3, 4, 5),
        note=record_property,
        words_at=in_text(60),
        cfg=3.0,
        steps=2,
    )


def test_other_pictures_in_a_combination(comfy: Any) -> None:
    """Two positive conditionings with CLIP tokens of different pictures have no common map."""
    first, _ = texts(clip_vision_output=clip(63))
    second, negative = texts(clip_vision_output=clip(64))
    armed = arm_model(comfy, wan("WAN21_I2V", model_type="i2v", in_dim=36))
    latent = tiny.sample(armed, [*first, *second], negative, START, steps=1)
    reason = refusal_reason(comfy, latent)
    assert "different reference pictures" in reason


def test_a_model_without_the_convolution(comfy: Any) -> None:
    """It is given a reference latent and ignores it: there is nothing to record."""
    positive, _ = texts(reference_latents=[tiny.latent(65, 1, 16, 1, 8, 10)])
    armed = arm_model(comfy, wan("WAN21_T2V"))
    latent = tiny.sample(armed, positive, positive, EVEN, steps=1)
    reason = refusal_reason(comfy, latent)
    assert "held a reference" in reason
    assert torch.isfinite(latent).all()


def test_with_earlier_frames(comfy: Any, record_property: Any) -> None:
    """S2V: [video 3×4×5 | reference 4×5 | earlier frames 1×4×5, 1×2×2 and 4×1×1]"""
    positive, negative = texts(
        reference_latents=[tiny.latent(74, 1, 16, 1, 8, 10)],
        reference_motion=tiny.latent(75, 1, 16, 19, 8, 10),
    )
    place = joint(
        *(("result", (12, 5)), ("reference", (4, 5))),
        *(("earlier", (4, 5)), ("earlier", (2, 2)), ("earlier", (4, 1))),
    )

    def s2v() -> Any:
        return wan("WAN22_S2V", model_type="s2v", audio_dim=32, audio_inject_layers=[0])

    prove_video(
        *(comfy, s2v, positive, negative, EVEN, place),
        grid=(3, 4, 5),
        note=record_property,
        words_at=in_text(),
        cfg=3.0,
        steps=2,
    )
