"""Tiny random models of ComfyUI's real classes, and conditionings for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor


def _random_weights(network: torch.nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights large enough that attention is far from even."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if "norm" in name and value.ndim == 1:
            weights[name] = (
                torch.ones_like(value) if "bias" not in name else torch.zeros_like(value)
            )
            continue
        fan_in = value[0].numel() if value.ndim > 1 else 64
        weights[name] = torch.randn(value.shape, generator=generator) * (1.5 / fan_in**0.5)
    return weights


def flux(seed: int = 0) -> Any:
    """A Flux of hidden size 256: 2 heads, 2 double and 2 single blocks, 16 latent channels."""
    import comfy.ldm.flux.model
    import comfy.ops
    import comfy.sd

    network = comfy.ldm.flux.model.Flux(
        dtype=torch.float32,
        device="cpu",
        operations=comfy.ops.disable_weight_init,
        image_model="flux",
        in_channels=16,
        out_channels=16,
        patch_size=2,
        vec_in_dim=None,
        context_in_dim=16,
        hidden_size=256,
        mlp_ratio=4.0,
        num_heads=2,
        depth=2,
        depth_single_blocks=2,
        axes_dim=[16, 56, 56],
        theta=10000,
        qkv_bias=True,
        guidance_embed=False,
        txt_ids_dims=[],
    )
    return comfy.sd.load_diffusion_model_state_dict(_random_weights(network, seed))


def not_before(version: str, what: str) -> None:
    """Skips what older releases do not have. The models page says since which release a model is
    tested: a skip from that release on would hide a gap."""
    import comfyui_version

    have, wanted = (
        tuple(map(int, text.split("."))) for text in (comfyui_version.__version__, version)
    )
    if have < wanted:
        pytest.skip(f"this release of ComfyUI has no {what}")


def build(family: str, seed: int = 0, **config: Any) -> Any:
    """A model of one of the classes in comfy.supported_models, with this network configuration."""
    import comfy.model_patcher
    import comfy.supported_models

    cpu = torch.device("cpu")
    if not hasattr(comfy.supported_models, family):
        not_before("0.30.0", family)
    settings = getattr(comfy.supported_models, family)(config)
    settings.set_inference_dtype(torch.float32, None)
    model = settings.get_model({}, "", device=cpu)
    network = model.diffusion_model
    network.load_state_dict(_random_weights(network, seed))
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def unet(seed: int = 0) -> Any:
    """A Stable Diffusion 1.5 UNet of 32 channels: two levels and a middle, 8 heads."""
    return build(
        "SD15",
        seed,
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=32,
        num_res_blocks=[1, 1],
        channel_mult=[1, 2],
        transformer_depth=[1, 1],
        transformer_depth_output=[1, 1, 1, 1],
        transformer_depth_middle=1,
        context_dim=24,
        num_heads=8,
        use_spatial_transformer=True,
        legacy=False,
        use_linear_in_transformer=False,
        adm_in_channels=None,
        use_temporal_attention=False,
    )


def latent(seed: int, *shape: int) -> Tensor:
    """A random latent."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conditioning(
    seed: int, tokens: int, dim: int, references: tuple[Tensor, ...] = (), **extra: Any
) -> list[Any]:
    """A random text of so many tokens, with reference latents.

    Like those from text encoders, it has a vector: before ComfyUI 0.24 models asked for one even if
    unused.
    """
    options: dict[str, Any] = {"pooled_output": torch.zeros(1, 8), **extra}
    if references:
        options["reference_latents"] = list(references)
    return [[latent(seed, 1, tokens, dim) * 2, options]]


def sample(
    model: Any,
    positive: list[Any],
    negative: list[Any],
    start: Tensor,
    *,
    steps: int = 3,
    cfg: float = 1.0,
    sampler: str = "euler",
    scheduler: str = "simple",
    seed: int = 1,
    **options: Any,
) -> Tensor:
    """ComfyUI's own sampling, as KSampler calls it."""
    import comfy.sample

    with torch.inference_mode():
        noise = comfy.sample.prepare_noise(start, seed)
        return comfy.sample.sample(
            model, noise, steps, cfg, sampler, scheduler, positive, negative, start,
            disable_pbar=True, seed=seed, **options,
        )  # fmt: skip
