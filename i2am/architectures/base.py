"""What an architecture must tell: its layers, its references, and which token is which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..geometry import Picture, TokenLayout


@dataclass(frozen=True)
class Layer:
    """One attention site of a model: the `sub`-th transformer of the `index`-th block of a kind."""

    block: str
    index: int
    sub: int = 0

    @property
    def name(self) -> str:
        """As a user reads it: "double 3", "input 4.1"."""
        return f"{self.block} {self.index}" + (f".{self.sub}" if self.sub else "")


@dataclass(frozen=True)
class ImageTokens:
    """Tokens of a conditioning that stand for the patches of a picture, row by row."""

    start: int
    height: int
    width: int


@dataclass(frozen=True)
class Forward:
    """One pass of the model for one conditioning, in plain numbers.

    latent: (height, width) of the latent being sampled; references: of each reference latent.
    patch: the side of a token in latent pixels, where the model cuts patches.
    context: how many tokens the conditioning itself has, before a shorter one is repeated to the
    length of a longer one in the same batch. image_tokens: those of them that are a picture's.
    shapes: of everything else the model was given, by its name in the host, each a tensor's shape
    or those of a list of tensors.
    """

    latent: tuple[int, int]
    references: tuple[tuple[int, int], ...] = ()
    patch: int = 1
    context: int = 0
    image_tokens: tuple[ImageTokens, ...] = ()
    shapes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])


@dataclass(frozen=True)
class Call:
    """One attention call: the host's options, and how many queries and keys it has.

    nth: how many calls its block has made before it in this pass.
    """

    options: Mapping[str, Any]
    queries: int
    keys: int
    nth: int = 0


@dataclass(frozen=True)
class Architecture:
    """How to read one family of models. It hooks nothing; it answers from plain numbers.

    models: class names of the models (or of their networks) it is for.
    joint: whether text, picture and references compete in one softmax, so that the model's own
        attention is the definition to look at first.
    layers: the network → every layer that can look at a reference, in the order they run.
    references: a pass → each reference on the key axis, on the grid of its tokens.
    reference_kind: how a reference gets into these models, in a user's words.
    read: a pass and a call → the layer and its layout, or None for a call that holds no reference
        by design (self-attention beside cross-attention, refiners). Raises LayoutMismatch if the
        counts are not those of the architecture.
    """

    name: str
    models: frozenset[str]
    joint: bool
    reference_kind: str
    layers: Callable[[nn.Module], tuple[Layer, ...]]
    references: Callable[[Forward], tuple[Picture, ...]]
    read: Callable[[Forward, Call], tuple[Layer, TokenLayout] | None]
