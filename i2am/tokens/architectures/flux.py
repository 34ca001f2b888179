"""Flux.1, Flux.2 and their kin: one sequence of text, result and references in every block."""

from __future__ import annotations

from ...errors import LayoutMismatch
from ..grids import Grid
from ..layout import STYLE_TOKENS, Picture, Role, TokenLayout
from .base import (
    Architecture,
    Call,
    Forward,
    Layer,
    blocks,
    consecutive_spans,
    context_pieces,
    generated_grid,
    marked_pictures,
    named_layer,
    reference_latents,
)

# USO: 64 tokens from each of three depths of a vision model; the grid has no meaning.
_STYLE_PATCH, _STYLE = "UsoStyleProjectorPatch", Grid(12, 16)


def _styles(forward: Forward) -> tuple[Picture, ...]:
    count = forward.patches.count(_STYLE_PATCH)
    return (Picture(_STYLE, (0, 0), STYLE_TOKENS),) * count


def _references(forward: Forward) -> tuple[Picture, ...]:
    return (*_styles(forward), *marked_pictures(forward), *reference_latents(forward))


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """[style tokens | text, marked image tokens in it | result | reference 1 | reference 2 …].

    From the second evaluation on, with a cache of reference keys, the references may be missing
    from the queries.
    """
    latents = reference_latents(forward)
    spans = consecutive_spans(
        *((Role.REFERENCE, style.grid) for style in _styles(forward)),
        *context_pieces(forward),
        (Role.GENERATED, generated_grid(forward)),
        *((Role.REFERENCE, latent.grid) for latent in latents),
    )
    without_references = spans[-1 - len(latents)].stop
    if call.keys != spans[-1].stop or call.queries not in (call.keys, without_references):
        raise LayoutMismatch(
            f"{call.queries} queries and {call.keys} keys, but the text has {forward.context} "
            f"tokens, the result {generated_grid(forward).area} and the references "
            f"{[picture.grid.area for picture in _references(forward)]}"
        )
    queries = tuple(span for span in spans if span.stop <= call.queries)
    return named_layer(call), TokenLayout(queries, spans)


FLUX = Architecture(
    name="Flux",
    models=frozenset({"Flux"}),
    joint=True,
    reference_kind="reference latent, marked Redux tokens or style tokens",
    layers=blocks(double="double_blocks", single="single_blocks"),
    references=_references,
    read=_read,
    note="Style tokens (USO) have a share and a map over the result, but no map over the "
    "reference. FluxKVCache is supported.",
)
