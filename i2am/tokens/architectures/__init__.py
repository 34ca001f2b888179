"""The model families whose attention can be read: a new one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import I2AMError
from .base import Adapter, Architecture, Call, Forward, ImageTokens, Layer
from .cascade import CASCADE
from .flux import FLUX
from .hidream import HIDREAM
from .hidream_o1 import HIDREAM_O1
from .hunyuan_video import HUNYUAN_VIDEO
from .joyimage import JOYIMAGE
from .krea2 import KREA2
from .ltxv import LTXV
from .lumina2 import LUMINA2
from .mage_flow import MAGE_FLOW
from .omnigen2 import BOOGU, OMNIGEN2
from .qwen import QWEN
from .text_alone import (
    AURA_FLOW,
    CHROMA,
    HUNYUAN_IMAGE,
    IDEOGRAM4,
    KANDINSKY5,
    LENS,
    MOCHI,
    PIXEL_DIT,
    SD3,
)
from .unet import ONE_TOKEN_UNET, UNET
from .unread import NOT_YET, WITHOUT_REFERENCES
from .wan import WAN, WAN_WITH_POSE, WAN_WITH_SOUND

ARCHITECTURES = (
    *(FLUX, QWEN, KREA2, MAGE_FLOW, JOYIMAGE, OMNIGEN2, BOOGU, HIDREAM, HIDREAM_O1, LUMINA2),
    *(CASCADE, UNET, ONE_TOKEN_UNET),
    *(WAN, WAN_WITH_SOUND, WAN_WITH_POSE, HUNYUAN_VIDEO, LTXV),
    *(SD3, AURA_FLOW, CHROMA, LENS, IDEOGRAM4, KANDINSKY5, HUNYUAN_IMAGE, MOCHI, PIXEL_DIT),
)

__all__ = [
    "ARCHITECTURES",
    "NOT_YET",
    "WITHOUT_REFERENCES",
    "Adapter",
    "Architecture",
    "Call",
    "Forward",
    "ImageTokens",
    "Layer",
    "find",
]


def find(class_names: Iterable[str], words: bool = False) -> Architecture:
    """The architecture of a model, from the names of its classes, the most derived first.

    words: whether words will do where there can be no reference. Raises I2AMError if there is none,
    or the model is known to use nothing that is asked for.
    """
    names = tuple(class_names)
    known = ", ".join(one.name for one in ARCHITECTURES if words or not one.without)
    for name in names:
        if name in WITHOUT_REFERENCES:
            nothing = "neither words nor a reference" if words else "no reference"
            raise I2AMError(
                f"{name} models have {nothing} to watch: {WITHOUT_REFERENCES[name]}. "
                f"Use a model that has. Capture Attention knows: {known}."
            )
        for architecture in ARCHITECTURES:
            if name not in architecture.models:
                continue
            if architecture.without and not words:
                raise I2AMError(
                    f"{name} models have no reference to watch: {architecture.without}. Turn on "
                    "words in Capture Attention to see what each word of the prompt did, or use a "
                    f"model that reads a reference: {known}."
                )
            return architecture
        if name in NOT_YET:
            raise I2AMError(
                f"Capture Attention cannot read {name} models yet: {NOT_YET[name]}. "
                f"It knows: {known}. Remove it from the graph, or use one of these models."
            )
    raise I2AMError(
        f"Capture Attention cannot read “{names[0]}” models yet. It knows: {known}. "
        "Remove Capture Attention from the graph, or use one of these models."
    )
