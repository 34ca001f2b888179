"""Krea 2: tokens as in Flux, one kind of block."""

from __future__ import annotations

from dataclasses import replace

from ..layout import TokenLayout
from .base import Architecture, Call, Forward, Layer, blocks, generated_grid
from .flux import FLUX


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """As Flux. Without a reference method, the model leaves its references out.

    Before the blocks, the text attends to itself.
    """
    plain = forward.context + generated_grid(forward).area
    if "block_index" not in call.options:
        return None
    return FLUX.read(replace(forward, references=()) if call.keys == plain else forward, call)


KREA2 = Architecture(
    name="Krea 2",
    models=frozenset({"Krea2"}),
    joint=True,
    reference_kind="reference latent, and a method for it (Edit Model Reference Method)",
    layers=blocks(single="blocks"),
    references=FLUX.references,
    read=_read,
    tested="0.30.0",
    note="Without a reference method the model ignores its references.",
)
