"""A node pack for tests: tiny models of ComfyUI's own classes, in place of files.

Each node gets the name of the file the template loads, and makes a tiny model of that kind. Text
encoders are the only exception to ComfyUI's classes: each text is its own random numbers.
"""

from __future__ import annotations

import hashlib
from typing import Any

from . import models, smaller

smaller.shrink_fixed_sizes()


def _any(name: str) -> dict[str, Any]:
    return {"required": {name: ("STRING", {"default": ""})}}


class _Loader:
    FUNCTION = "load"
    CATEGORY = "stand-ins"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _any("name")


class Model(_Loader):
    """Replaces UNETLoader."""

    RETURN_TYPES = ("MODEL",)

    def load(self, name: str) -> tuple[Any]:
        return (models.model(name),)


class TextEncoder(_Loader):
    """Replaces CLIPLoader and DualCLIPLoader; the name is the type."""

    RETURN_TYPES = ("CLIP",)

    def load(self, name: str) -> tuple[Any]:
        return (models.TextEncoder(name),)


class Vae(_Loader):
    """Replaces VAELoader."""

    RETURN_TYPES = ("VAE",)

    def load(self, name: str) -> tuple[Any]:
        return (models.vae(name),)


class Checkpoint(_Loader):
    """Replaces CheckpointLoaderSimple."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    def load(self, name: str) -> tuple[Any, Any, Any]:
        return models.model(name), models.TextEncoder(models.text_of(name)), models.vae(name)


class Vision(_Loader):
    """Replaces CLIPVisionLoader."""

    RETURN_TYPES = ("CLIP_VISION",)

    def load(self, name: str) -> tuple[Any]:
        return (models.vision(name),)


class Style(_Loader):
    """Replaces StyleModelLoader."""

    RETURN_TYPES = ("STYLE_MODEL",)

    def load(self, name: str) -> tuple[Any]:
        return (models.style(),)


class Patch(_Loader):
    """Replaces ModelPatchLoader, for USO."""

    RETURN_TYPES = ("MODEL_PATCH",)

    def load(self, name: str) -> tuple[Any]:
        return (models.patch(),)


class Sound(_Loader):
    """Replaces AudioEncoderEncode: the output of Whisper for a few seconds."""

    RETURN_TYPES = ("AUDIO_ENCODER_OUTPUT",)

    def load(self, name: str) -> tuple[Any]:
        return (models.sound(),)


class Pictures(_Loader):
    """Replaces nodes that read or segment a video: some frames, and others."""

    RETURN_TYPES = ("IMAGE", "IMAGE")

    def load(self, name: str) -> tuple[Any, Any]:
        return models.frames(name), models.frames(f"{name}, others")


class Digest:
    """A digest of a picture or latent, to the last bit."""

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "digest"
    CATEGORY = "stand-ins"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"optional": {"picture": ("IMAGE",), "latent": ("LATENT",)}}

    def digest(self, picture: Any = None, latent: Any = None) -> dict[str, Any]:
        tensor = latent["samples"] if picture is None else picture
        data = tensor.contiguous().cpu().numpy().tobytes()
        digest = hashlib.sha256(repr(tuple(tensor.shape)).encode() + data).hexdigest()
        return {"ui": {"digest": [digest], "finite": [bool(tensor.isfinite().all())]}}


NODE_CLASS_MAPPINGS = {
    "StandIn_Model": Model,
    "StandIn_Text": TextEncoder,
    "StandIn_Vae": Vae,
    "StandIn_Checkpoint": Checkpoint,
    "StandIn_Vision": Vision,
    "StandIn_Style": Style,
    "StandIn_Patch": Patch,
    "StandIn_Sound": Sound,
    "StandIn_Pictures": Pictures,
    "StandIn_Digest": Digest,
}
