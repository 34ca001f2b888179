"""Tiny text encoders of ComfyUI's own classes, with its own tokenizers and random weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

_CLIP = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
_CLIP |= {"intermediate_size": 32, "projection_dim": 16}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
_LLAMA = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4}
_LLAMA |= {"num_attention_heads": 2, "num_key_value_heads": 1}
SIZES = {
    "clip_l_model_config": _CLIP,
    "clip_g_model_config": _CLIP,
    "t5xxl_model_config": _T5,
    "pile_t5xl_model_config": _T5,
    "qwen25_7b_model_config": _LLAMA,
    "llama_model_config": _LLAMA,
}


def encoder(model: Any, tokenizer: Any, folder: str | None = None, **sizes: dict[str, int]) -> Any:
    """A CLIP as ComfyUI makes it: of a model class and a tokenizer class.

    folder: of textual inversions. sizes: other ones than SIZES.
    """
    import comfy.sd

    target = SimpleNamespace(clip=model, tokenizer=tokenizer, params={})
    options = {**SIZES, **sizes, "dtype": torch.float32}
    clip = comfy.sd.CLIP(target, embedding_directory=folder, model_options=options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in clip.cond_stage_model.named_parameters():
            if "norm" not in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
            else:
                value.fill_(0.0 if "bias" in name else 1.0)
    return clip


def sd15(folder: str | None = None) -> Any:
    """CLIP L, as Stable Diffusion 1.5 has it."""
    import comfy.sd1_clip

    return encoder(comfy.sd1_clip.SD1ClipModel, comfy.sd1_clip.SD1Tokenizer, folder)


def sdxl() -> Any:
    """CLIP L and G beside each other in the values of a token."""
    import comfy.sdxl_clip

    return encoder(comfy.sdxl_clip.SDXLClipModel, comfy.sdxl_clip.SDXLTokenizer)


def sd3() -> Any:
    """CLIP L and G beside each other, then T5."""
    import comfy.text_encoders.sd3_clip as sd3_clip

    wide = {**SIZES["t5xxl_model_config"], "d_model": 4096, "num_layers": 1}  # what it pads to
    model = sd3_clip.sd3_clip(dtype_t5=torch.bfloat16)
    return encoder(model, sd3_clip.SD3Tokenizer, t5xxl_model_config=wide)


def flux() -> Any:
    """T5; the model reads nothing else's tokens."""
    import comfy.text_encoders.flux as flux

    return encoder(flux.flux_clip(dtype_t5=torch.float32), flux.FluxTokenizer)


def hidream() -> Any:
    """T5, then Llama's layers."""
    import comfy.text_encoders.hidream as hidream

    model = hidream.hidream_clip(dtype_t5=torch.float32, dtype_llama=torch.float32)
    return encoder(model, hidream.HiDreamTokenizer)


def qwen_image() -> Any:
    """Qwen 2.5, within a template that is cut off in front."""
    import comfy.text_encoders.qwen_image as qwen

    return encoder(qwen.te(dtype_llama=torch.float32), qwen.QwenImageTokenizer)


def hunyuan_video() -> Any:
    """Llama, within a template that is cut off in front."""
    import comfy.text_encoders.hunyuan_video as hunyuan

    model = hunyuan.hunyuan_video_clip(dtype_llama=torch.float32)
    return encoder(model, hunyuan.HunyuanVideoTokenizer)


def aura_flow() -> Any:
    """The pile's T5."""
    import comfy.text_encoders.aura_t5 as aura

    return encoder(aura.AuraT5Model, aura.AuraT5Tokenizer)
