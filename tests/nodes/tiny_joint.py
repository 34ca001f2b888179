"""Tiny models whose text, picture and references share one sequence."""

from __future__ import annotations

from typing import Any

import tiny


def flux(**config: Any) -> Any:
    """Flux.1 without guidance: two heads, two double and two single blocks."""
    settings: dict[str, Any] = {
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "vec_in_dim": None,
        "context_in_dim": 16,
        "hidden_size": 256,
        "mlp_ratio": 4.0,
        "num_heads": 2,
        "depth": 2,
        "depth_single_blocks": 2,
        "axes_dim": [16, 56, 56],
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": False,
        "txt_ids_dims": [],
    }
    family = config.pop("family", "FluxSchnell")
    return tiny.build(family, image_model="flux", **(settings | config))


def flux2(guidance: bool) -> Any:
    """Flux.2: dev takes guidance, Klein does not."""
    return flux(
        family="Flux2",
        in_channels=128,
        out_channels=128,
        patch_size=1,
        axes_dim=[32, 32, 32, 32],
        theta=2000,
        mlp_ratio=3.0,
        qkv_bias=False,
        ops_bias=False,
        global_modulation=True,
        mlp_silu_act=True,
        guidance_embed=guidance,
        default_ref_method="index",
        ref_index_scale=10.0,
        txt_ids_dims=[3],
    )


def qwen(**config: Any) -> Any:
    """Two blocks of two heads."""
    return tiny.build(
        "QwenImage",
        image_model="qwen_image",
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=128,
        num_attention_heads=2,
        joint_attention_dim=24,
        **config,
    )


SIZES = {
    "patch_size": 2,
    "in_channels": 16,
    "dim": 256,
    "n_layers": 2,
    "n_refiner_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "multiple_of": 32,
    "qk_norm": True,
    "cap_feat_dim": 24,
    "axes_dims": [32, 16, 16],
}


def z_image() -> Any:
    """Parts padded to 32 tokens, and vision tokens."""
    return tiny.build(
        "ZImage",
        image_model="lumina2",
        z_image_modulation=True,
        pad_tokens_multiple=32,
        siglip_feat_dim=16,
        **SIZES,
    )


def lumina2() -> Any:
    """No padding, no vision tokens."""
    return tiny.build("Lumina2", image_model="lumina2", **SIZES)


def e1() -> Any:
    """A double block and two single ones, two heads each."""
    return tiny.build(
        "HiDream",
        image_model="hidream",
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        caption_channels=[24, 20],
        text_emb_dim=12,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=[16, 8, 8],
        llama_layers=[0, 1, 1],
    )


def e1_conditioning(seed: int, **extra: Any) -> list[Any]:
    """Five tokens of T5, and four for each layer of Llama."""
    llama = tiny.latent(seed, 1, 2, 4, 20)
    pooled = tiny.latent(seed + 1, 1, 12)
    return tiny.conditioning(seed, 5, 24, conditioning_llama3=llama, pooled_output=pooled, **extra)
