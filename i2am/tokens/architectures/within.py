"""Any model's attention within its own picture, which takes the place of a reference.

It reads calls whose sequence is the picture and nothing else, and calls in which the model's
family knows where the picture is.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..layout import Picture, Role, Span, TokenLayout
from .base import Architecture, Call, Forward, Layer, generated_grid, named_layer
from .unet import level_grid


def within(family: Architecture | None) -> Architecture:
    """How to read the picture's own tokens in a model of this family, or of an unknown one."""

    def read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
        if call.adapted:
            return None
        found = None if family is None else family.read(forward, call)
        if found is not None and any(span.role is Role.GENERATED for span in found[1].keys):
            return found[0], replace(found[1], keys=tuple(map(_as_reference, found[1].keys)))
        options = call.options
        if options.get("block_index") is None or call.nth:
            return None  # the picture attends to itself first in every block
        grid, layer = generated_grid(forward), Layer("block", options["block_index"])
        if "activations_shape" in options:
            grid = level_grid(forward, *options["activations_shape"][-2:])
            kind, number = options["block"][:2]
            layer = Layer(kind, number, options["block_index"])
        elif family is not None:
            layer = named_layer(call)
        if not call.queries == call.keys == grid.area:
            return None
        result = Span(Role.GENERATED, 0, grid.area, grid)
        return layer, TokenLayout((result,), (_as_reference(result),))

    return Architecture(
        name=f"{'Unknown' if family is None else family.name}, within the picture",
        models=frozenset(),
        joint=False,
        reference_kind="the picture's own tokens, in a sequence of nothing else",
        layers=_longest_list if family is None else family.layers,
        references=_the_picture,
        read=read,
        video=family is None or family.video,
    )


def _as_reference(span: Span) -> Span:
    """A span of keys, with the picture as the reference and everything else as text."""
    if span.role is Role.GENERATED:
        return replace(span, role=Role.REFERENCE)
    return replace(span, role=Role.TEXT, grid=None)


def _the_picture(forward: Forward) -> tuple[Picture, ...]:
    return (Picture(generated_grid(forward), forward.latent, "the picture itself"),)


def _longest_list(network: nn.Module) -> tuple[Layer, ...]:
    """The layers of an unknown network: the longest of its lists of modules."""
    lists = [len(part) for part in network.children() if isinstance(part, nn.ModuleList)]
    return tuple(Layer("block", index) for index in range(max(lists, default=0)))
