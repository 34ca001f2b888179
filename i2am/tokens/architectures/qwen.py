"""Qwen-Image-Edit: tokens as in Flux, one kind of block.

The text also holds the references as the text encoder saw them. A conditioning does not say
where, so they count as text unless they are marked as image tokens.
"""

from __future__ import annotations

from .base import Architecture, blocks
from .flux import FLUX

QWEN = Architecture(
    name="Qwen-Image-Edit",
    models=frozenset({"QwenImageTransformer2DModel"}),
    joint=True,
    reference_kind="reference latent",
    layers=blocks(double="transformer_blocks"),
    references=FLUX.references,
    read=FLUX.read,
    note="The references as the text encoder saw them count as text. Results of several layers "
    "(Layered) have maps frame by frame, as videos do.",
    video=True,
)
