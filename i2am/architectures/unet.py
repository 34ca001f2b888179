"""Stable Diffusion's UNets: cross-attention from the result to image tokens in the context."""

from __future__ import annotations

from torch import nn

from ..errors import LayoutMismatch
from ..geometry import Grid, Picture, Role, Span, TokenLayout
from .base import Architecture, Call, Forward, Layer, context_spans

_MAX_LEVELS = 8


def _layers(network: nn.Module) -> tuple[Layer, ...]:
    blocks: list[tuple[str, int, nn.Module]] = []
    for kind in ("input", "middle", "output"):
        found = getattr(network, f"{kind}_block" + ("" if kind == "middle" else "s"), None)
        if kind == "middle":
            blocks += [(kind, 0, found)] if found is not None else []
        else:
            blocks += [(kind, index, block) for index, block in enumerate(found or ())]
    return tuple(
        Layer(kind, index, sub)
        for kind, index, block in blocks
        for module in block.modules()
        for sub, _ in enumerate(getattr(module, "transformer_blocks", ()))
    )


def _references(forward: Forward) -> tuple[Picture, ...]:
    return tuple(
        Picture(Grid(tokens.height, tokens.width), (0, 0), "image tokens")
        for tokens in forward.image_tokens
    )


def _generated(forward: Forward, height: int, width: int) -> Grid:
    """The grid of a level: each halving rounds up, so its last cells may stick out."""
    for level in range(_MAX_LEVELS):
        cell = 2**level
        if (-(-forward.latent[0] // cell), -(-forward.latent[1] // cell)) == (height, width):
            return Grid(height, width, (forward.latent[0] / cell, forward.latent[1] / cell))
    return Grid(height, width)


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """Queries: the result at this level. Keys: the context.

    A shorter context is repeated to the length of a longer one beside it in the batch. Repeating
    every key the same number of times changes no softmax once the copies are added up, so the
    layout describes the first copy, and the caller cuts the keys to it.
    """
    if not forward.image_tokens:
        return None
    if call.keys == call.queries and (call.nth != 1 or call.keys % forward.context):
        return None  # self-attention, which runs first in every block
    if call.keys % forward.context:
        raise LayoutMismatch(f"{call.keys} keys, but the context has {forward.context} tokens")
    height, width = call.options["activations_shape"][-2:]
    if call.queries != height * width:
        raise LayoutMismatch(f"{call.queries} queries for a level of {height}×{width}")
    grid = _generated(forward, height, width)
    kind, index = call.options["block"][:2]
    layer = Layer(kind, index, call.options["block_index"])
    return layer, TokenLayout((Span(Role.GENERATED, 0, grid.area, grid),), context_spans(forward))


UNET = Architecture(
    name="Stable Diffusion UNet",
    models=frozenset({"UNetModel"}),
    joint=False,
    reference_kind="image tokens",
    layers=_layers,
    references=_references,
    read=_read,
)
