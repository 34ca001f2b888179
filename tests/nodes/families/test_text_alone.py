"""Models and prompts without a reference: the maps of words equal the dense oracle's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import tiny
import torch
from oracle import Place, Seen
from proof import arm_model, prove
from tiny_joint import e1, e1_conditioning, flux, flux2, lumina2, qwen, z_image
from tiny_unets import SD15, SDXL, SDXL_SITES, TWO_LEVEL_SITES
from tiny_wan import EVEN, TEXT, texts, wan
from video import prove_video

START = tiny.latent(42, 2, 16, 11, 10)
PlaceOf = Callable[[Seen], Place | None]


def joint(
    keys: int,
    own: tuple[int, int],
    first: int,
    layer_of: Callable[[Seen], int],
    grid: tuple[int, int] = (6, 5),
    tokens: int = 7,
) -> PlaceOf:
    """One sequence of text, from `first` on, and picture; other calls hold something else."""

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != keys or call.q.shape[2] != keys:
            return None
        words = tuple((first + n,) for n in range(tokens))
        return Place(layer_of(call), own, grid, own, (), (), keys, words=words)

    return place


def in_turn(layers: int) -> Callable[[Seen], int]:
    """Calls in the order of the layers, again and again."""
    numbers = count()
    return lambda call: next(numbers) % layers


def named(call: Seen) -> int:
    return call.options["block_index"]


def sd3(**config: Any) -> Any:
    settings = {"in_channels": 16, "patch_size": 2, "depth": 2, "input_size": None}
    settings |= {"adm_in_channels": 12, "qkv_bias": True, "pos_embed_max_size": 8}
    context = {"target": "torch.nn.Linear", "params": {"in_features": 24, "out_features": 128}}
    settings |= {"context_embedder_config": context, "num_patches": 64}
    return tiny.build("SD3", **settings | config)


def aura_flow() -> Any:
    return tiny.build(
        "AuraFlow",
        cond_seq_dim=24,
        n_double_layers=2,
        n_layers=3,
        dim=64,
        global_conddim=64,
        n_heads=4,
        max_seq=64,
    )


def chroma() -> Any:
    return tiny.build(
        "Chroma",
        image_model="chroma",
        in_channels=64,
        out_channels=64,
        in_dim=64,
        out_dim=256,
        hidden_dim=64,
        n_layers=1,
        context_in_dim=24,
        hidden_size=256,
        mlp_ratio=2.0,
        num_heads=2,
        depth=2,
        depth_single_blocks=2,
        axes_dim=[16, 56, 56],
        theta=10000,
        patch_size=2,
        qkv_bias=True,
        txt_ids_dims=[],
        vec_in_dim=None,
    )


def lens() -> Any:
    return tiny.build(
        "Lens",
        in_channels=128,
        num_layers=2,
        attention_head_dim=64,
        num_attention_heads=2,
        enc_hidden_dim=6,
    )


def ideogram4() -> Any:
    import comfy.supported_models

    sizes = {"num_attention_heads": 2, "attention_head_dim": 128, "intermediate_size": 64}
    sizes |= {"adaln_dim": 32, "llm_features_dim": 24}
    tiny.not_before("0.30.0", "Ideogram 4")
    family = comfy.supported_models.Ideogram4
    with pytest.MonkeyPatch.context() as patched:  # ComfyUI knows one size only
        patched.setattr(family, "unet_extra_config", family.unet_extra_config | sizes)
        return tiny.build("Ideogram4", num_layers=2)


def pixel_dit() -> Any:
    """Text is cut to six tokens, of seven."""
    return tiny.build(
        "PixelDiTT2I",
        num_groups=2,
        hidden_size=64,
        pixel_hidden_size=4,
        pixel_attn_hidden_size=32,
        pixel_num_groups=2,
        patch_depth=2,
        pixel_depth=1,
        txt_embed_dim=24,
        txt_max_length=6,
    )


def double_and_single(call: Seen) -> int:
    return call.options["block_index"] + 2 * (call.options["block_type"] == "single")


def cut_to_six(place_of: PlaceOf) -> PlaceOf:
    """The seventh token is among no keys."""

    def place(call: Seen) -> Place | None:
        found = place_of(call)
        return found and replace(found, words=(*found.words[:6], ()))  # type: ignore[index]

    return place


def hidream(layer_of: Callable[[Seen], int]) -> PlaceOf:
    """[result 30 | one encoder's text 5 | the other's 4 | the other's 4, of this block]"""
    words = (*((30 + n,) for n in range(5)), *((35 + n, 39 + n) for n in range(4)))

    def place(call: Seen) -> Place:
        return Place(layer_of(call), (0, 30), (6, 5), (0, 30), (), (), 43, words=words)

    return place


# What it is: the model, its text's width, the latent, the place, heads
JOINT: dict[str, tuple[Callable[[], Any], int, torch.Tensor, Callable[[], PlaceOf], int]] = {
    "Flux": (flux, 16, START, lambda: joint(37, (7, 37), 0, double_and_single), 2),
    "Flux.2": (
        lambda: flux2(True),
        16,
        tiny.latent(41, 2, 128, 6, 5),
        # the text is padded in front, to 512 tokens, and padding has numbers too
        lambda: joint(542, (512, 542), 0, double_and_single, tokens=512),
        2,
    ),
    "Chroma": (chroma, 24, START, lambda: joint(37, (7, 37), 0, double_and_single), 2),
    "Qwen-Image": (qwen, 24, START[:, :, None], lambda: joint(37, (7, 37), 0, named), 2),
    "Lumina 2": (lumina2, 24, START, lambda: joint(37, (7, 37), 0, in_turn(2)), 4),
    "SD3": (sd3, 24, START, lambda: joint(37, (7, 37), 0, in_turn(2)), 2),
    "AuraFlow": (
        aura_flow,
        24,
        tiny.latent(42, 2, 4, 11, 10),
        lambda: joint(45, (15, 45), 8, in_turn(3)),
        4,
    ),
    "Lens": (
        lens,
        24,
        tiny.latent(42, 2, 128, 6, 5),
        lambda: joint(37, (0, 30), 30, named),
        2,
    ),
    "Ideogram 4": (
        ideogram4,
        24,
        tiny.latent(42, 2, 128, 6, 5),
        lambda: joint(37, (7, 37), 0, in_turn(2)),
        2,
    ),
    "PixelDiT": (
        pixel_dit,
        24,
        tiny.latent(42, 2, 3, 90, 80),
        lambda: cut_to_six(joint(36, (6, 36), 0, in_turn(2))),
        2,
    ),
    "HiDream-I1": (
        e1,
        24,
        tiny.latent(63, 2, 16, 11, 10),
        lambda: hidream(in_turn(3)),
        2,
    ),
    "Z-Image": (
        z_image,
        24,
        tiny.latent(82, 2, 16, 11, 9),
        lambda: joint(64, (32, 62), 0, in_turn(2)),
        4,
    ),
}


@pytest.mark.parametrize("case", JOINT)
def test_joint(comfy: Any, case: str, record_property: Any) -> None:
    model, width, start, place, heads = JOINT[case]
    pooled: dict[str, Any] = {"pooled_output": tiny.latent(5, 1, 12)}
    positive = tiny.conditioning(45, 7, width, **pooled)
    negative = tiny.conditioning(46, 7, width, **pooled)
    if case == "HiDream-I1":
        positive, negative = e1_conditioning(60), e1_conditioning(64)
    record, _ = prove(
        *(comfy, model, positive, negative, start, place()),
        grid=(6, 5),
        heads=heads,
        note=record_property,
        cfg=3.0,
    )
    assert record.header.references == ()
    assert record.header.joint


def cross(
    keys: int, grid: tuple[int, int], layer_of: Callable[[Seen], int], tokens: int = 7
) -> PlaceOf:
    """Attention of the picture to the text alone, the first of its repetitions."""
    area = grid[0] * grid[1]

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] % keys or call.q.shape[2] != area:
            return None
        words = tuple((n,) for n in range(tokens))
        return Place(layer_of(call), (0, area), grid, None, (), (), keys, words=words)

    return place


@pytest.mark.parametrize("negative", [23, 46])
@pytest.mark.parametrize("family", ["SD15", "SDXL"])
def test_unets(comfy: Any, family: str, negative: int, record_property: Any) -> None:
    """DAAM's quantity: mean over heads, layers and steps of the softmax over the text."""
    config, sites = (SD15, TWO_LEVEL_SITES) if family == "SD15" else (SDXL, SDXL_SITES)
    size, cell = (11, 14), 1 if family == "SD15" else 2

    def place(call: Seen) -> Place | None:
        site = (*call.options["block"], call.options["block_index"])
        height, width = (-(-side // sites[site]) for side in size)
        if call.k.shape[2] not in (23, 46) or call.q.shape[2] != height * width:
            return None
        words = tuple((n,) for n in range(23))
        spot = list(sites).index(site), (0, height * width), (height, width)
        return Place(*spot, None, (), (), 23, cell=sites[site], words=words)

    pooled: dict[str, Any] = {"pooled_output": tiny.latent(5, 1, 10)}
    record, _ = prove(
        *(comfy, lambda: tiny.build(family, **config)),
        *(tiny.conditioning(30, 23, 24, **pooled), tiny.conditioning(31, negative, 24, **pooled)),
        *(tiny.latent(32, 2, 4, *size), place),
        grid=(-(-size[0] // cell), -(-size[1] // cell)),
        heads=8 if family == "SD15" else 2,
        latent=size,
        note=record_property,
        cfg=3.0,
        scheduler="normal",
    )
    total = record.arrays["words.0.map"].sum(2)  # over the tokens: all the attention there is
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)


def test_kandinsky5(comfy: Any, record_property: Any) -> None:
    """The text's own blocks come before; in each block the picture attends to itself first."""

    def model() -> Any:
        return tiny.build(
            "Kandinsky5Image",
            in_text_dim=24,
            in_text_dim2=12,
            time_dim=32,
            model_dim=48,
            ff_dim=64,
            visual_embed_dim=64,
            num_text_blocks=1,
            num_visual_blocks=2,
            axes_dims=(8, 8, 8),
        )

    def place(call: Seen) -> Place | None:
        return None if "block_index" not in call.options else in_text(call)

    in_text = cross(7, (6, 5), named)
    pooled: dict[str, Any] = {"pooled_output": tiny.latent(5, 1, 12)}
    prove(
        *(comfy, model, tiny.conditioning(45, 7, 24, **pooled)),
        *(tiny.conditioning(46, 7, 24, **pooled), tiny.latent(42, 2, 16, 12, 10), place),
        grid=(6, 5),
        heads=2,
        note=record_property,
        cfg=3.0,
    )


def test_wan(comfy: Any, record_property: Any) -> None:
    """Text to video: each block attends to the text after the video itself."""
    positive, negative = texts()
    prove_video(
        *(comfy, lambda: wan("WAN21_T2V"), positive, negative, EVEN),
        cross(TEXT, (12, 5), named, TEXT),
        grid=(3, 4, 5),
        note=record_property,
        cfg=3.0,
    )


def test_mochi(comfy: Any, record_property: Any) -> None:
    """[video 60 | text, of which the mask keeps five]"""

    def model() -> Any:
        return tiny.build(
            "GenmoMochi",
            in_channels=12,
            hidden_size_x=48,
            hidden_size_y=24,
            depth=2,
            num_heads=2,
            mlp_ratio_x=256.0,
            mlp_ratio_y=256.0,
            use_t5=True,
            t5_feat_dim=24,
            t5_token_length=7,
            learn_sigma=False,
            qkv_bias=False,
            use_extended_posenc=False,
            posenc_preserve_area=True,
            rope_theta=10000.0,
            qk_norm=True,
            out_bias=True,
        )

    layers = in_turn(2)

    def place(call: Seen) -> Place:
        words = (*((60 + n,) for n in range(5)), (), ())
        own = (0, 60)
        return Place(layers(call), own, (12, 5), own, (), (), 65, words=words)

    mask = torch.tensor([[1] * 5 + [0] * 2])
    positive = tiny.conditioning(45, 7, 24, attention_mask=mask)
    prove_video(
        *(comfy, model, positive, positive, tiny.latent(60, 2, 12, 3, 8, 10), place),
        grid=(3, 4, 5),
        note=record_property,
    )


def test_not_asked_for(comfy: Any) -> None:
    """Without words these models are refused, and told what to turn on."""
    ours = comfy.pack("i2am.errors").I2AMError
    with pytest.raises(
        ours, match=r"SD3 models have no reference to watch: it gets text only\. Turn"
    ):
        arm_model(comfy, sd3())
