"""The models that are measured: real shapes with random weights, and the trained demo model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tools.comfyui.in_process import ROOT

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One workload. build: (dtype, device) → model patcher; the other fields say what it samples.

    generated, references: where their keys are; keys: how many keys the recorded layers have.
    """

    name: str
    title: str
    build: Callable[[torch.dtype, torch.device], Any]
    latent: tuple[int, ...]
    conditioning: Callable[[], list[Any]]
    generated: slice
    references: tuple[slice, ...]
    keys: int
    steps: int = 4


def build(family: str, dtype: torch.dtype, device: torch.device, config: dict[str, Any]) -> Any:
    """A model with random weights. family: the name of a class in comfy.supported_models."""
    import comfy.model_patcher
    import comfy.supported_models

    settings = getattr(comfy.supported_models, family)(config)
    settings.set_inference_dtype(dtype, None)
    model = settings.get_model({}, "", device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, value in model.diffusion_model.state_dict().items():
        if value.ndim == 1:
            value.fill_(float("norm" in name and "bias" not in name))
        else:
            value.normal_(0, 1.5 / value[0].numel() ** 0.5, generator=generator)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def flux(hidden: int, double: int, single: int) -> Callable[[torch.dtype, torch.device], Any]:
    """A builder of a Flux with this width and these numbers of blocks."""
    config = {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "vec_in_dim": None,
        "context_in_dim": 64,
        "hidden_size": hidden,
        "mlp_ratio": 4.0,
        "num_heads": hidden // 128,
        "depth": double,
        "depth_single_blocks": single,
        "axes_dim": [16, 56, 56],
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": False,
        "txt_ids_dims": [],
    }
    return lambda dtype, device: build("Flux", dtype, device, config)


def sd15(dtype: torch.dtype, device: torch.device) -> Any:
    """The UNet of Stable Diffusion 1.5 at its real size."""
    config = {
        **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320},
        **{"num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "context_dim": 768},
        **{"transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1},
        **{"transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]},
        **{"num_heads": 8, "use_spatial_transformer": True, "legacy": False},
        **{"use_linear_in_transformer": False, "adm_in_channels": None},
        "use_temporal_attention": False,
    }
    return build("SD15", dtype, device, config)


def sdxl(dtype: torch.dtype, device: torch.device) -> Any:
    """The UNet of Stable Diffusion XL at its real size."""
    config = {
        **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320},
        **{"num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "context_dim": 2048},
        **{"transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10},
        **{"transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10]},
        **{"num_heads": -1, "num_head_channels": 64, "use_spatial_transformer": True},
        **{"use_linear_in_transformer": True, "num_classes": "sequential"},
        **{"adm_in_channels": 2816, "use_temporal_attention": False, "legacy": False},
    }
    return build("SDXL", dtype, device, config)


def wan(dtype: torch.dtype, device: torch.device) -> Any:
    """Wan 2.1 at the width of its small model, with four blocks."""
    config = {
        **{"image_model": "wan2.1", "model_type": "t2v", "in_dim": 16, "out_dim": 16},
        **{"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 4},
    }
    return build("WAN21_T2V", dtype, device, config)


def demo(dtype: torch.dtype, device: torch.device) -> Any:
    """The demo model that comes with the pack, trained."""
    import comfy.sd

    path = ROOT / "models" / "diffusion_models" / "i2am_demo_inpaint.safetensors"
    return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": dtype})


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def image_tokens(dim: int, **more: Any) -> Callable[[], list[Any]]:
    """A maker of conditioning: 77 random tokens of text, 257 of a picture."""
    return lambda: [
        [noise(1, 1, 77 + 257, dim), {"i2am_image_tokens": [(78, 16, 16)], **more}],
    ]


def latents(seed: int, count: int, side: int, text: int, dim: int) -> Callable[[], list[Any]]:
    """A maker of conditioning: `text` random tokens and `count` random reference latents."""
    return lambda: [
        [
            noise(seed, 1, text, dim),
            {
                "reference_latents": [
                    noise(seed + n, 1, 16, side, side) for n in range(1, count + 1)
                ]
            },
        ]
    ]


def flux_case(
    name: str, title: str, model: Any, side: int, text: int, references: int, steps: int
) -> Case:
    """A square result of `side` × `side` tokens and this many references of the same size."""
    area = side**2
    ends = [text + area * n for n in range(1, references + 2)]
    return Case(
        name,
        title,
        model,
        (1, 16, 2 * side, 2 * side),
        latents(1, references, 2 * side, text, 64),
        slice(text, ends[0]),
        tuple(slice(end, end + area) for end in ends[:-1]),
        ends[-1],
        steps,
    )


def cases(device: torch.device) -> list[Case]:
    """Every case; the largest are measured on a graphics card only."""
    small, full = flux(1024, 4, 8), flux(3072, 19, 38)
    demo_case = flux_case("d", "the demo model, 128²", demo, 8, 1, 2, 20)
    found = [
        flux_case("a", "Flux type, hidden 1024, 512², one reference", small, 32, 256, 1, 2),
        flux_case("b", "the same with three references", small, 32, 256, 3, 2),
        Case(
            "c",
            "the UNet of SD 1.5, 512², 257 image tokens",
            sd15,
            (1, 4, 64, 64),
            image_tokens(768),
            slice(0, None),
            (slice(78, 334),),
            334,
            2,
        ),
        Case(**{**vars(demo_case), "conditioning": latents(1, 2, 16, 1, 16)}),
    ]
    if device.type == "cuda":
        video = 21 * 30 * 52
        found += [
            Case(
                "sdxl",
                "the UNet of SDXL, 1024², 257 image tokens",
                sdxl,
                (1, 4, 128, 128),
                image_tokens(2048, pooled_output=noise(2, 1, 1280)),
                slice(0, None),
                (slice(78, 334),),
                334,
                4,
            ),
            Case(
                "wan",
                "Wan, 81 frames of 832×480, one reference picture",
                wan,
                (1, 16, 21, 60, 104),
                lambda: [
                    [noise(1, 1, 512, 4096), {"time_dim_concat": noise(2, 1, 16, 1, 60, 104)}]
                ],
                slice(0, video),
                (slice(video, video + 30 * 52),),
                video + 30 * 52,
                2,
            ),
            flux_case("flux1", "Flux.1, 1024², one reference", full, 64, 512, 1, 4),
            flux_case("flux3", "Flux.1, 1024², three references", full, 64, 512, 3, 4),
        ]
    return found
