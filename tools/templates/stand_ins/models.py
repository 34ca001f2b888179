"""Tiny models of ComfyUI's own classes, chosen by the name of the file that a template loads."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FLUX: dict[str, Any] = {
    "image_model": "flux",
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
    "guidance_embed": True,
    "txt_ids_dims": [],
}
_FLUX2 = _FLUX | {
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "axes_dim": [32, 32, 32, 32],
    "theta": 2000,
    "mlp_ratio": 3.0,
    "qkv_bias": False,
    "ops_bias": False,
    "global_modulation": True,
    "mlp_silu_act": True,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
    "txt_ids_dims": [3],
}
_LONGCAT = _FLUX | {"context_in_dim": 3584, "txt_ids_dims": [1, 2], "guidance_embed": False}
_QWEN: dict[str, Any] = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 2,
    "attention_head_dim": 128,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
}
_KREA: dict[str, Any] = {
    "image_model": "krea2",
    "features": 128,
    "tdim": 32,
    "txtdim": 16,
    "heads": 4,
    "kvheads": 2,
    "layers": 2,
    "txtlayers": 3,
    "txtheads": 2,
    "txtkvheads": 2,
}
_OMNIGEN: dict[str, Any] = {
    "image_model": "omnigen2",
    "num_layers": 2,
    "text_feat_dim": 24,
    "hidden_size": 96,
    "num_refiner_layers": 2,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "multiple_of": 32,
    "axes_dim_rope": (8, 8, 8),
}
_WAN: dict[str, Any] = {
    "image_model": "wan2.1",
    "in_dim": 16,
    "out_dim": 16,
    "dim": 24,
    "ffn_dim": 32,
    "freq_dim": 32,
    "text_dim": 24,
    "num_heads": 2,
    "num_layers": 2,
}
_WAN_IMAGE = _WAN | {"model_type": "i2v", "in_dim": 36}
_SDXL: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,  # this family's heads have 64 channels
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 24,
    "num_heads": 8,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_linear_in_transformer": True,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
    "use_temporal_attention": False,
}

# Pattern in a file's name → class in comfy.supported_models, its network, its text.
_FAMILIES: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("longcat", "LongCatImage", _LONGCAT, "longcat_image"),
    ("klein", "Flux2", _FLUX2 | {"guidance_embed": False}, "flux2"),
    ("flux2", "Flux2", _FLUX2, "flux2"),
    ("flux1", "Flux", _FLUX, "flux"),
    (
        "qwen_image_layered",
        "QwenImage",
        _QWEN | {"default_ref_method": "negative_index", "use_additional_t_cond": True},
        "qwen_image",
    ),
    (
        "qwen_image_edit_2511",
        "QwenImage",
        _QWEN | {"default_ref_method": "index_timestep_zero"},
        "qwen_image",
    ),
    ("qwen_image|firered", "QwenImage", _QWEN, "qwen_image"),
    ("krea2", "Krea2", _KREA, "krea2"),
    ("omnigen2", "Omnigen2", _OMNIGEN, "omnigen2"),
    ("flf2v", "WAN21_I2V", _WAN_IMAGE | {"flf_pos_embed_token_number": 514}, "wan"),
    ("chrono|i2v", "WAN21_I2V", _WAN_IMAGE, "wan"),
    ("humo", "WAN21_HuMo", _WAN | {"model_type": "humo"}, "wan"),
    ("scail", "WAN21_SCAIL2", _WAN | {"model_type": "scail2", "in_dim": 20}, "wan"),
    ("sd_xl", "SDXL", _SDXL, "sdxl"),
)
_TEXT_WIDTH = {"flux": 16, "flux2": 16, "longcat_image": 3584, "krea2": 48}
_WORDS = 9  # tokens of a text


def _family(name: str) -> tuple[str, dict[str, Any], str]:
    for pattern, family, config, text in _FAMILIES:
        if re.search(pattern, name.lower()):
            return family, config, text
    raise ValueError(f"No tiny model is known for {name}: add its family to this file.")


def text_of(name: str) -> str:
    """The type of text encoder in a checkpoint's file."""
    return _family(name)[2]


def weights(network: torch.nn.Module, seed: int) -> dict[str, Tensor]:
    """Random weights, large enough that attention is far from even."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        if "norm" in key and value.ndim == 1:
            found[key] = torch.zeros_like(value) if "bias" in key else torch.ones_like(value)
        else:
            fan_in = value.numel() // max(1, len(value)) if value.ndim > 1 else 64
            found[key] = torch.randn(value.shape, generator=generator) * (
                1.5 / max(1, fan_in) ** 0.5
            )
    return found


@cache
def model(name: str) -> Any:
    """A model of the class that belongs to a file of this name."""
    import comfy.model_patcher
    import comfy.supported_models

    family, config, _ = _family(name)
    cpu = torch.device("cpu")
    settings = getattr(comfy.supported_models, family)(config)
    settings.set_inference_dtype(torch.float32, None)
    made = settings.get_model({}, "", device=cpu)
    made.diffusion_model.load_state_dict(weights(made.diffusion_model, 0))
    return comfy.model_patcher.ModelPatcher(made, load_device=cpu, offload_device=cpu)


@cache
def vae(name: str) -> Any:
    """A VAE: of Wan's class for Qwen and Wan, else a tiny autoencoder."""
    import comfy.ldm.wan.vae
    import comfy.sd
    import comfy.taesd.taesd

    if re.search("qwen|wan", name.lower()):
        colours = 4 if "layered" in name else 3
        network: Any = comfy.ldm.wan.vae.WanVAE(
            dim=8,
            z_dim=16,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=2,
            attn_scales=[],
            temperal_downsample=[False, True, True],
            image_channels=colours,
            conv_out_channels=colours,
        )
    else:
        flux2 = re.search("flux2|full_encoder", name.lower())
        channels = 128 if flux2 else 4 if "sd_xl" in name else 16
        network = comfy.taesd.taesd.TAESD(latent_channels=channels)
        # Flux.2's VAE has 32 channels and groups places by fours, which weights do not show.
        made = comfy.sd.VAE(sd=weights(network, 1), metadata={"tae_latent_channels": channels})
        if flux2:
            made.downscale_ratio = made.upscale_ratio = 16
        return made
    return comfy.sd.VAE(sd=weights(network, 1))


@cache
def vision(name: str) -> Any:
    """A CLIP vision model: SigLIP with 27×27 patches, or CLIP with 16×16 after a summary token."""
    from comfy.clip_vision import ClipVisionModel

    siglip = "sigclip" in name
    config = {
        "num_hidden_layers": 20 if siglip else 2,  # USO uses the last and the eleventh last
        "hidden_size": 32 if siglip else 1664 if "_g" in name else 1280,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "hidden_act": "gelu",
        "num_channels": 3,
        "image_size": 384 if siglip else 224,
        "patch_size": 14,
        "projection_dim": 1280,
        "model_type": "siglip_vision_model" if siglip else "clip_vision_model",
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(config))
        made = ClipVisionModel(str(file))
    made.model.load_state_dict(weights(made.model, 2))
    return made


@cache
def style() -> Any:
    """A Redux model for `vision` and Flux."""
    import comfy.ldm.flux.redux
    import comfy.sd

    network = comfy.ldm.flux.redux.ReduxImageEncoder(redux_dim=32, txt_in_features=16)
    network.load_state_dict(weights(network, 3))
    return comfy.sd.StyleModel(network)


@cache
def patch() -> Any:
    """USO's style projector, for `vision` and Flux."""
    from comfy.model_patcher import CoreModelPatcher
    from comfy_extras.nodes_model_patch import SigLIPMultiFeatProjModel

    network = SigLIPMultiFeatProjModel(siglip_token_dims=32, hidden_size=256, operations=torch.nn)
    network.load_state_dict(weights(network, 4))
    cpu = torch.device("cpu")
    return CoreModelPatcher(network, load_device=cpu, offload_device=cpu)


def random(text: str, *shape: int) -> Tensor:
    """Random numbers that are fixed for a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sound() -> dict[str, Any]:
    """Whisper's output for two seconds, with all its layers."""
    layers = [random(f"sound {layer}", 1, 100, 1280) for layer in range(33)]
    return {"encoded_audio_all_layers": layers, "audio_samples": 32000}


def frames(name: str) -> Tensor:
    """A small video of random colours: (frames, height, width, 3)."""
    return random(name, 5, 96, 64, 3).sigmoid()


class TextEncoder:
    """A text encoder that gives each text its own random numbers."""

    def __init__(self, kind: str) -> None:
        self.width = _TEXT_WIDTH.get(kind, 24)
        self.masked = kind == "omnigen2"  # the model asks for a mask over the text

    def tokenize(self, text: str, **_: Any) -> str:
        return text

    def encode_from_tokens(self, tokens: str, return_pooled: bool = False, **_: Any) -> Any:
        encoded, pooled = self._encode(tokens)
        return (encoded, pooled) if return_pooled else encoded

    def encode_from_tokens_scheduled(self, tokens: str, **_: Any) -> list[Any]:
        encoded, pooled = self._encode(tokens)
        options = {"pooled_output": pooled}
        if self.masked:
            options["attention_mask"] = torch.ones(1, _WORDS, dtype=torch.long)
        return [[encoded, options]]

    def _encode(self, text: str) -> tuple[Tensor, Tensor]:
        return random(text, 1, _WORDS, self.width) * 2, random(text, 1, 1280)
