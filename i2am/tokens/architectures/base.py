"""What an architecture describes: its layers, its references, and which token is which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ...errors import LayoutMismatch
from ..grids import Grid, picture_grid
from ..layout import Picture, Role, Span, TokenLayout


@dataclass(frozen=True)
class Layer:
    """One attention site of a model: transformer `sub` of block `index` of one kind of block."""

    block: str
    index: int
    sub: int = 0

    @property
    def name(self) -> str:
        """The name users see: "double 3", "input 4.1"."""
        return f"{self.block} {self.index}" + (f".{self.sub}" if self.sub else "")


@dataclass(frozen=True)
class ImageTokens:
    """Tokens of a conditioning that are the patches of a picture, row by row."""

    start: int
    height: int
    width: int


@dataclass(frozen=True)
class Adapter:
    """An IP-Adapter: cross-attention to pictures beside the text, added to its output.

    images: how many pictures share its softmax. tokens: of each picture.
    """

    images: int
    tokens: int


@dataclass(frozen=True)
class Forward:
    """One pass of the model for one conditioning, in plain numbers.

    latent: (height, width) of the latent being sampled. references: those of each reference latent.
    patch: the side of a token in latent pixels, if the model cuts patches.
    context: how many tokens the conditioning has, before a shorter one is repeated to the length
    of a longer one in the same batch. image_tokens: those of them that belong to a picture.
    shapes: of everything else in the conditioning, by its name in the host; each is the shape of
    a tensor, or those of a list of tensors. layers: all layers of the network.
    patches: class names of patches, from other nodes, that change the tokens before the first
    layer. numbers: the network's integer attributes and the lengths of its lists, by name.
    adapters: beside the text, in order. frames: of the latent, if it is a video.
    """

    latent: tuple[int, int]
    references: tuple[tuple[int, int], ...] = ()
    patch: int = 1
    context: int = 0
    image_tokens: tuple[ImageTokens, ...] = ()
    shapes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])
    patches: tuple[str, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    layers: tuple[Layer, ...] = ()
    numbers: Mapping[str, int] = field(default_factory=dict[str, int])
    frames: int = 1


@dataclass(frozen=True)
class Call:
    """One attention call: the host's options, and how many queries and keys it has.

    options: `block`, `block_type`, `block_index` and `activations_shape`, if the host gives them.
    nth: how many calls with the same counts its block has made before in this pass. If the host
    does not name the block, all calls of the pass count as one block's. adapted: whether adapters
    attend beside this call, each in a softmax of its own.
    """

    options: Mapping[str, Any]
    queries: int
    keys: int
    nth: int = 0
    adapted: bool = False

    @property
    def identity(self) -> tuple[object, ...]:
        """A key to look the call up by: equal if all fields are."""
        options = (*self.options, *map(str, self.options.values()))
        return (*options, self.queries, self.keys, self.nth, self.adapted)


@dataclass(frozen=True)
class Architecture:
    """How to read one family of models. It hooks nothing; it answers from plain numbers.

    models: class names of its models, or of their networks.
    joint: whether text, picture and references compete in one softmax. If so, maps start with the
        model's own attention.
    layers: the network → every layer that can attend to a reference, in the order they run.
    references: a pass → each reference on the key axis, with the grid of its tokens.
    reference_kind: how a reference gets into these models, in words for users.
    read: a pass and a call → the layer and its layout, or None for a call that never holds a
        reference (self-attention beside cross-attention, refiners). A pass without references may
        have a layout too, of picture and text. Raises LayoutMismatch if the counts do not fit the
        architecture.
    note: what users should know about its maps. tested: releases of the host it was tested with.
    video: whether a latent of several frames is a video, and can be read.
    without: why there can be no reference, if so; its words can be read all the same.
    """

    name: str
    models: frozenset[str]
    joint: bool
    reference_kind: str
    layers: Callable[[nn.Module], tuple[Layer, ...]]
    references: Callable[[Forward], tuple[Picture, ...]]
    read: Callable[[Forward, Call], tuple[Layer, TokenLayout] | None]
    note: str = ""
    tested: str = "0.24.1, 0.30.0"
    video: bool = False
    without: str = ""


def blocks(**names: str) -> Callable[[nn.Module], tuple[Layer, ...]]:
    """For `Architecture.layers`: one layer for each block of these lists of the network."""

    def layers(network: nn.Module) -> tuple[Layer, ...]:
        return tuple(
            Layer(kind, index)
            for kind, name in names.items()
            for index, _ in enumerate(getattr(network, name))
        )

    return layers


def reference_latents(forward: Forward) -> tuple[Picture, ...]:
    """For `Architecture.references`: every reference latent, cut into patches like the result.

    Raises LayoutMismatch for one of several frames, which has no single grid.
    """
    for shape in forward.shapes.get("ref_latents", ()):
        if len(shape) == 5 and shape[2] != 1:
            raise LayoutMismatch(
                f"a reference latent has {shape[2]} frames; encode each picture on its own"
            )
    return tuple(
        Picture(picture_grid(*size, forward.patch), size, "reference latent")
        for size in forward.references
    )


def generated_grid(forward: Forward) -> Grid:
    """The grid of the result, if the model cuts the latent, or each frame of it, into patches."""
    return replace(picture_grid(*forward.latent, forward.patch), frames=forward.frames)


def marked_pictures(forward: Forward) -> tuple[Picture, ...]:
    """The pictures whose tokens are marked in the conditioning."""
    grids = (Grid(tokens.height, tokens.width) for tokens in forward.image_tokens)
    return tuple(Picture(grid, (0, 0), "image tokens") for grid in grids)


def named_layer(call: Call) -> Layer:
    """The layer of a call whose block the host names."""
    return Layer(call.options["block_type"], call.options["block_index"])


def counted_layer(layers: tuple[Layer, ...], nth: int) -> Layer:
    """The layer of call number `nth`, if the host does not name its block: they run in order."""
    if nth >= len(layers):
        raise LayoutMismatch(f"there are {len(layers)} layers, but call {nth + 1} came")
    return layers[nth]


# A role and how many tokens, or a grid; for tokens of the prompt, the number of the first of them.
Piece = tuple[Role, int | Grid] | tuple[Role, int | Grid, int | None]


def prompt(forward: Forward) -> Piece:
    """All tokens of the conditioning's text, as the model is given them."""
    return Role.TEXT, forward.context, 0


def consecutive_spans(*pieces: Piece) -> tuple[Span, ...]:
    """Spans one after the other, each of so many tokens or on a grid; empty ones are left out."""
    spans: list[Span] = []
    end = 0
    for role, piece, *first in pieces:
        grid, length = (piece, piece.area) if isinstance(piece, Grid) else (None, piece)
        if length:
            spans.append(Span(role, end, end + length, grid, prompt=first[0] if first else None))
            end += length
    return tuple(spans)


def context_spans(forward: Forward) -> tuple[Span, ...]:
    """The context of one conditioning: its image tokens, and text before and after them.

    Raises LayoutMismatch if they are marked in a text that the model pads to another length.
    """
    marked_in = forward.shapes.get("cross_attn", ())[1:2]
    if forward.image_tokens and marked_in not in ((), (forward.context,)):
        raise LayoutMismatch(
            f"image tokens are marked in a text of {marked_in[0]} tokens, but the model reads "
            f"{forward.context}"
        )
    spans: list[Span] = []
    end = 0
    for tokens in forward.image_tokens:
        grid = Grid(tokens.height, tokens.width)
        if tokens.start > end:
            spans.append(Span(Role.TEXT, end, tokens.start, prompt=end))
        end = tokens.start + grid.area
        spans.append(Span(Role.REFERENCE, tokens.start, end, grid))
    if end > forward.context:
        raise LayoutMismatch(
            f"image tokens are marked up to {end}, but the context has {forward.context}"
        )
    if end < forward.context:
        spans.append(Span(Role.TEXT, end, forward.context, prompt=end))
    return tuple(spans)


def context_pieces(forward: Forward) -> tuple[Piece, ...]:
    """`context_spans`, as pieces of a longer sequence."""
    spans = context_spans(forward)
    return tuple((span.role, span.grid or span.length, span.prompt) for span in spans)


def joint_layout(call: Call, *pieces: Piece) -> TokenLayout:
    """Self-attention of one sequence of these pieces.

    Raises LayoutMismatch if the call does not have as many tokens.
    """
    spans = consecutive_spans(*pieces)
    if not call.queries == call.keys == sum(span.length for span in spans):
        found = ", ".join(f"{span.length} {span.role.value}" for span in spans)
        raise LayoutMismatch(f"{call.queries} queries and {call.keys} keys, but there are {found}")
    return TokenLayout(spans, spans)
