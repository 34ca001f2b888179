"""HunyuanVideo: maps of videos equal the dense oracle's, on ComfyUI's own model classes."""

from __future__ import annotations

from typing import Any

import tiny
import torch
from oracle import Place, Seen
from video import prove_video

# Two latent frames of 6×10, which are 3×5 tokens each.
START = tiny.latent(80, 2, 16, 2, 6, 10)
TEXT = 9


def hunyuan(family: str = "HunyuanVideo", **config: Any) -> Any:
    """One double and one single block, two heads of 12."""
    settings: dict[str, Any] = {
        "image_model": "hunyuan_video",
        "in_channels": 16,
        "out_channels": 16,
        "vec_in_dim": 8,
        "context_in_dim": 24,
        "hidden_size": 24,
        "mlp_ratio": 2.0,
        "num_heads": 2,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [4, 4, 4],
        "theta": 256,
        "patch_size": [1, 2, 2],
        "qkv_bias": True,
        "guidance_embed": False,
        "byt5": False,
        "meanflow": False,
        "use_cond_type_embedding": False,
        "vision_in_dim": None,
        "meanflow_sum": False,
    }
    return tiny.build(family, **settings | config)


def texts(**extra: Any) -> tuple[list[Any], list[Any]]:
    """The positive and the negative conditioning."""
    pooled = tiny.latent(83, 1, 8)
    return (
        tiny.conditioning(81, TEXT, 24, pooled_output=pooled, **extra),
        tiny.conditioning(82, TEXT, 24, pooled_output=pooled, **extra),
    )


def vision(seed: int) -> Any:
    """SigLIP's output for one picture."""
    import comfy.clip_vision

    output: Any = comfy.clip_vision.Output()
    output.last_hidden_state = tiny.latent(seed, 1, 729, 1152) * 2
    return output


def _layer(call: Seen) -> int:
    return ["double", "single"].index(call.options["block_type"])


def test_custom_reference(comfy: Any, record_property: Any) -> None:
    """[text 9 | reference 4×3 | video 2×3×5]; the text encoder's mask hides two of the text.

    ComfyUI 0.30.0 writes into a view here, so it can run only one video, without cfg.
    """

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != 51:
            return None  # the text's refiner
        own = (21, 51)
        return Place(_layer(call), own, (6, 5), own, ((9, 21),), ((4, 3),), 51)

    positive, negative = texts(
        ref_latent=tiny.latent(84, 1, 16, 1, 8, 6), attention_mask=torch.tensor([[1] * 7 + [0] * 2])
    )
    record, calls = prove_video(
        *(comfy, hunyuan, positive, negative, START[:1], place),
        grid=(2, 3, 5),
        note=record_property,
        steps=2,
    )
    assert [layer.name for layer in record.header.layers] == ["double 0", "single 0"]
    assert record.header.references[0].latent == (8, 6)
    assert any(call.k.shape[2] == TEXT for call in calls)
    assert any(call.mask is not None for call in calls)


def test_vision_tokens(comfy: Any, record_property: Any) -> None:
    """1.5: [vision 27×27 | glyphs 4 | text 9, of which 2×3 are marked | video 2×6×10]"""

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != 729 + 4 + TEXT + 120:
            return None
        own = (742, 862)
        seen = (0, 729), (735, 741)
        words = tuple((733 + n,) if not 2 <= n < 8 else () for n in range(TEXT))
        spans = own, (12, 10), own, seen, ((27, 27), (2, 3)), 862
        return Place(_layer(call), *spans, words=words)

    def model() -> Any:
        return hunyuan(
            "HunyuanVideo15",
            in_channels=65,
            out_channels=32,
            vec_in_dim=None,
            patch_size=[1, 1, 1],
            byt5=True,
            use_cond_type_embedding=True,
            vision_in_dim=1152,
        )

    positive, negative = texts(
        clip_vision_output=vision(85),
        conditioning_byt5small=tiny.latent(86, 1, 4, 1472),
        i2am_image_tokens=[(2, 2, 3)],
    )
    prove_video(
        *(comfy, model, positive, negative, tiny.latent(87, 2, 32, 2, 6, 10), place),
        grid=(2, 6, 10),
        note=record_property,
        cfg=3.0,
        steps=2,
    )
