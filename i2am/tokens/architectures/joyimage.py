"""JoyImage: one sequence of result, reference latents and text in every block."""

from __future__ import annotations

from ..layout import Role, TokenLayout
from .base import (
    Architecture,
    Call,
    Forward,
    Layer,
    blocks,
    generated_grid,
    joint_layout,
    named_layer,
    prompt,
    reference_latents,
)


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """[result | reference 1 | reference 2 … | text]."""
    references = ((Role.REFERENCE, picture.grid) for picture in reference_latents(forward))
    pieces = ((Role.GENERATED, generated_grid(forward)), *references, prompt(forward))
    return named_layer(call), joint_layout(call, *pieces)


JOYIMAGE = Architecture(
    name="JoyImage",
    models=frozenset({"JoyImage"}),
    joint=True,
    reference_kind="reference latent",
    layers=blocks(double="double_blocks"),
    references=reference_latents,
    read=_read,
    tested="0.30.0",
)
