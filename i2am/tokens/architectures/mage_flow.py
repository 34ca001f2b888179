"""MageFlow: Qwen-Image's blocks, one token for each pixel of the latent."""

from __future__ import annotations

from .base import Architecture, blocks
from .flux import FLUX

MAGE_FLOW = Architecture(
    name="MageFlow",
    models=frozenset({"MageFlow"}),
    joint=True,
    reference_kind="reference latent",
    layers=blocks(double="transformer_blocks"),
    references=FLUX.references,
    read=FLUX.read,
    tested="0.30.0",
)
