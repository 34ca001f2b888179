"""Flux.1 and Flux.2: one sequence of text, result and reference latents in every block."""

from __future__ import annotations

from torch import nn

from ..errors import LayoutMismatch
from ..geometry import Picture, Role, Span, TokenLayout, picture_grid
from .base import Architecture, Call, Forward, Layer


def _layers(network: nn.Module) -> tuple[Layer, ...]:
    blocks = (("double", "double_blocks"), ("single", "single_blocks"))
    return tuple(
        Layer(kind, index)
        for kind, name in blocks
        for index, _ in enumerate(getattr(network, name))
    )


def _references(forward: Forward) -> tuple[Picture, ...]:
    return tuple(
        Picture(picture_grid(*size, forward.patch), size, "reference latent")
        for size in forward.references
    )


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """[text | result | reference 1 | reference 2 …], counted from the end.

    The text grows with whatever else is appended to it (Redux, style tokens), and from the second
    evaluation on a cache of reference keys may leave the references out of the queries alone.
    """
    if not forward.references:
        return None
    generated = picture_grid(*forward.latent, forward.patch)
    references = [picture.grid for picture in _references(forward)]
    text = call.keys - generated.area - sum(grid.area for grid in references)
    if text < 0 or call.queries not in (call.keys, text + generated.area):
        raise LayoutMismatch(
            f"{call.queries} queries and {call.keys} keys, but the result has {generated.area} "
            f"tokens and the references {[grid.area for grid in references]}"
        )
    spans = [Span(Role.TEXT, 0, text)] if text else []
    for role, grid in ((Role.GENERATED, generated), *((Role.REFERENCE, g) for g in references)):
        start = spans[-1].stop if spans else 0
        spans.append(Span(role, start, start + grid.area, grid))
    queries = tuple(span for span in spans if span.stop <= call.queries)
    layer = Layer(call.options["block_type"], call.options["block_index"])
    return layer, TokenLayout(queries, tuple(spans))


FLUX = Architecture(
    name="Flux",
    models=frozenset({"Flux"}),
    joint=True,
    reference_kind="reference latent",
    layers=_layers,
    references=_references,
    read=_read,
)
