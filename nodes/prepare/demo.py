"""What the demo models need besides the stock nodes: a prompt, a loader, and a picture's tokens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import comfy.latent_formats
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import torch
from comfy_api.latest import io
from einops import rearrange
from torch import Tensor

from ...i2am.errors import I2AMError
from ..host.model_facts import IMAGE_TOKENS_KEY
from .image_tokens import appended

MODELS = Path(__file__).resolve().parents[2] / "models" / "diffusion_models"
INSERTION_MODEL = MODELS / "i2am_demo_insertion.safetensors"
REFERENCE_SIDE = 128  # pixels, down and across: what the insertion model was trained on
CHANNELS = 16  # in the demo VAE's latents
PATCH = 2  # latent pixels along one side of a token
FREQUENCIES = (1, 2, 4, 8)  # half waves across the picture, in the positions of its tokens


class BlankPrompt(io.ComfyNode):
    """One zero token, which the demo model was trained with in place of a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_BlankPrompt",
            display_name="Blank Prompt (I2AM demo)",
            category="I2AM",
            description="An empty prompt for the I2AM demo model, which reads pictures only and "
            "has no text encoder. Other models need a real prompt.",
            search_aliases=["empty conditioning", "I2AM"],
            inputs=[],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="A conditioning of one blank token, for the I2AM demo model.",
                )
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        # Older releases require a pooled text in every Flux conditioning; this model ignores it.
        return io.NodeOutput([[torch.zeros(1, 1, 16), {"pooled_output": torch.zeros(1, 1)}]])


class LoadInsertionModel(io.ComfyNode):
    """The demo model that reads its reference by cross-attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_LoadInsertion",
            display_name="Load Insertion Model (I2AM demo)",
            category="I2AM",
            description="Loads the small model of this pack that puts an object into a picture: a "
            "Stable Diffusion UNet at a fraction of its size that reads the reference through "
            "cross-attention. It is for learning and testing, not for real work.",
            search_aliases=["demo model", "object insertion", "unet loader", "I2AM"],
            inputs=[],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model. It needs a prompt from Reference Tokens, and the demo VAE.",
                )
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(load_insertion_model(INSERTION_MODEL))


class ReferenceTokens(io.ComfyNode):
    """IMAGE → CONDITIONING of the demo insertion model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_ReferenceTokens",
            display_name="Reference Tokens (I2AM demo)",
            category="I2AM",
            description="A prompt for the I2AM demo models for insertion and words: the patches of "
            "the object's picture as tokens, marked for Capture Attention. Other models cannot "
            "read it.",
            search_aliases=["image prompt", "patch tokens", "demo", "I2AM"],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The object to insert, cut out closely. It is resized to 128×128 "
                    "pixels. In a batch, each picture goes to the result with the same number.",
                ),
                io.Vae.Input("vae", tooltip="The demo VAE, from Load VAE."),
                io.Conditioning.Input(
                    "conditioning",
                    optional=True,
                    tooltip="The words, for the word model: from CLIP Text Encode. The reference "
                    "is appended to them. Leave it open for the insertion model.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="The prompt for the sampler's positive side and, through Conditioning "
                    "Zero Out, for its negative side.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, image: Tensor, vae: Any, conditioning: list[Any] | None = None
    ) -> io.NodeOutput:
        pixels = image[..., :3].movedim(-1, 1)
        square = comfy.utils.common_upscale(
            pixels, REFERENCE_SIDE, REFERENCE_SIDE, "bicubic", "disabled"
        )
        latents = vae.encode(square.clamp(0, 1).movedim(1, -1))
        if latents.ndim != 4 or latents.shape[1] != CHANNELS:
            raise I2AMError(
                f"The demo model reads latents of {CHANNELS} channels, but this VAE "
                f"gives the shape {tuple(latents.shape)}. Load i2am_demo_vae.safetensors."
            )
        tokens = picture_tokens(InsertionUNet.latent_format().process_in(latents))
        rows, columns = latents.shape[-2] // PATCH, latents.shape[-1] // PATCH
        places = [(0, rows, columns)]
        if conditioning is None:
            return io.NodeOutput([[tokens, {IMAGE_TOKENS_KEY: places}]])
        advice = "Use the CLIP from Load Word Model (I2AM demo), or leave the conditioning open."
        return io.NodeOutput([appended(text, tokens, places, advice) for text in conditioning])


class InsertionUNet(comfy.supported_models.SD15):
    """Stable Diffusion's UNet in the demo's size, for the latents of the demo VAE."""

    unet_extra_config: ClassVar = {"num_heads": 4, "num_head_channels": -1}
    sampling_settings: ClassVar = {"shift": 1.0}
    latent_format = comfy.latent_formats.Flux

    def model_type(self, state_dict: dict[str, Tensor], prefix: str = "") -> Any:
        return comfy.model_base.ModelType.FLOW


def load_insertion_model(path: Path) -> comfy.model_patcher.ModelPatcher:
    """A file → the demo insertion model."""
    return small_unet(weights_of(path))


def weights_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a demo model's file; an I2AMError if there is none."""
    if not path.exists():
        raise I2AMError(
            f"The demo model's file is missing: {path.name} in the folder "
            "models/diffusion_models of this pack. Install the pack anew."
        )
    weights: Any = comfy.utils.load_torch_file(str(path))
    return weights


def small_unet(weights: dict[str, Tensor]) -> comfy.model_patcher.ModelPatcher:
    """A model of these weights. ComfyUI's loaders know this kind of UNet only in full sizes."""
    config = InsertionUNet(comfy.model_detection.detect_unet_config(weights, ""))
    device = comfy.model_management.get_torch_device()
    config.set_inference_dtype(torch.float32, None)  # tiny: half precision gains nothing
    model = config.get_model(weights, "")
    model.load_model_weights(weights, "")
    return comfy.model_patcher.ModelPatcher(
        model, load_device=device, offload_device=comfy.model_management.unet_offload_device()
    )


def picture_tokens(latents: Tensor) -> Tensor:
    """Latents (B, 16, h, w), as the sampler sees them → tokens (B, h/2 * w/2, 80), row by row.

    The first 64 channels are the patch of 2×2 latent pixels. The last 16 are its position in the
    picture: sines and cosines down and across.
    """
    batch, _, height, width = latents.shape
    rows, columns = height // PATCH, width // PATCH
    patches = rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=PATCH, q=PATCH)
    down = ((torch.arange(rows) + 0.5) / rows)[:, None].expand(rows, columns)
    across = ((torch.arange(columns) + 0.5) / columns)[None, :].expand(rows, columns)
    waves = torch.stack(
        [
            wave(math.pi * frequency * place)
            for place in (down, across)
            for frequency in FREQUENCIES
            for wave in (torch.sin, torch.cos)
        ],
        dim=-1,
    )
    return torch.cat((patches, waves.flatten(0, 1).expand(batch, -1, -1).to(patches)), dim=-1)
