"""Stable Diffusion's UNets: cross-attention from the result to image tokens in the context.

Beside the context, adapters may attend to pictures of their own.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ...errors import LayoutMismatch
from ..grids import Grid
from ..layout import Picture, Role, Span, TokenLayout
from .base import Architecture, Call, Forward, ImageTokens, Layer, context_spans, marked_pictures
from .ip_adapter import adapter_pictures, adapter_spans

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
    return (*marked_pictures(forward), *adapter_pictures(forward.adapters))


def level_grid(forward: Forward, height: int, width: int) -> Grid:
    """The grid of a level of the UNet: halving rounds up, so its last cells may stick out."""
    for level in range(_MAX_LEVELS):
        cell = 2**level
        if (-(-forward.latent[0] // cell), -(-forward.latent[1] // cell)) == (height, width):
            return Grid(height, width, (forward.latent[0] / cell, forward.latent[1] / cell))
    return Grid(height, width)


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """Queries: the result at this level. Keys: the context.

    A context may be repeated to the length of a longer one in the same batch. Repeating every key
    equally often changes no softmax once the copies are added up, so the layout describes the
    first copy, and the caller cuts the keys to it.
    """
    if forward.adapters and not call.adapted:
        return None  # self-attention, or a layer the adapters leave out
    if call.keys == call.queries and not call.adapted:
        if call.nth != 1 or call.keys % forward.context:
            return None  # self-attention, which runs first in every block
    height, width = call.options["activations_shape"][-2:]
    if call.queries != height * width == call.keys and not call.adapted:
        return None  # self-attention among merged queries, as ToMe makes them
    if call.keys % forward.context:
        raise LayoutMismatch(f"{call.keys} keys, but the context has {forward.context} tokens")
    if call.queries != height * width:
        raise LayoutMismatch(f"{call.queries} queries for a level of {height}×{width}")
    grid = level_grid(forward, height, width)
    kind, index = call.options["block"][:2]
    layer = Layer(kind, index, call.options["block_index"])
    keys = (*context_spans(forward), *adapter_spans(forward.adapters, forward.context))
    return layer, TokenLayout((Span(Role.GENERATED, 0, grid.area, grid),), keys)


def _with_its_token(forward: Forward) -> Forward:
    """The only token of these models' context is a picture."""
    if forward.context != 1:
        return forward
    return replace(forward, image_tokens=(ImageTokens(0, 1, 1),))


def _reference_of_one_token(forward: Forward) -> tuple[Picture, ...]:
    return _references(_with_its_token(forward))


def _read_one_token(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """As `_read`, without the attention over time, which runs after that over places."""
    height, width = call.options["activations_shape"][-2:]
    if call.queries != height * width or call.keys == call.queries or call.nth:
        return None
    return _read(_with_its_token(forward), call)


UNET = Architecture(
    name="Stable Diffusion UNet",
    models=frozenset({"UNetModel"}),
    joint=False,
    reference_kind="marked image tokens, or an IP-Adapter",
    layers=_layers,
    references=_references,
    read=_read,
    tested="0.16.3, 0.24.1, 0.30.0",
    note="Image tokens of the conditioning, marked by Image Tokens to Conditioning; a single token "
    "has no map over the reference. IP-Adapters of the pack ComfyUI_IPAdapter_plus always have a "
    "map over the result. They have one over the reference with 257 tokens (full face), or with a "
    "resampler (plus) after Trace IP-Adapter Tokens. In their shares the text has weight 1, an "
    "adapter its weight and mask. The pack leaves the middle block out. Pictures that enter as "
    "channels (inpainting, InstructPix2Pix, the x4 upscaler), as one vector (unCLIP) or through "
    "SUPIR have no attention to read.",
)

ONE_TOKEN_UNET = replace(
    UNET,
    name="Image-to-video and novel-view UNet",
    models=frozenset({"SVD_img2vid", "Stable_Zero123"}),
    reference_kind="the model's own image token",
    references=_reference_of_one_token,
    read=_read_one_token,
    tested="0.16.3, 0.24.1, 0.30.0",
    note="The picture is a single token. It has a map over the result in the paper's definition, "
    "but none over the reference. Each frame of a video is a result of its own.",
)
