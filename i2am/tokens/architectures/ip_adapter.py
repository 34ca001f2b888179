"""IP-Adapter: pictures that a UNet's queries attend to beside the text, in a softmax of their own.

An adapter has 257 tokens for each picture (CLS, then 16×16 patches), or a few that its projector
makes of the whole picture: 4 from the embedding, 16 from a resampler. Those have no positions.
"""

from __future__ import annotations

from ..grids import Grid
from ..layout import ADAPTER_TOKENS, Picture, Role, Span
from .base import Adapter

_PATCHES = Grid(16, 16)


def adapter_pictures(adapters: tuple[Adapter, ...]) -> tuple[Picture, ...]:
    """Each picture of each adapter."""
    return tuple(
        Picture(_PATCHES, (0, 0), "IP-Adapter image")
        if adapter.tokens == 1 + _PATCHES.area
        else Picture(Grid(1, adapter.tokens), (0, 0), ADAPTER_TOKENS)
        for adapter in adapters
        for _ in range(adapter.images)
    )


def adapter_spans(adapters: tuple[Adapter, ...], start: int) -> tuple[Span, ...]:
    """The keys of each picture of each adapter, from `start` on; CLS counts as text."""
    spans: list[Span] = []
    for softmax, adapter in enumerate(adapters, start=1):
        for picture in adapter_pictures((adapter,)):
            summary = adapter.tokens - picture.grid.area
            if summary:
                spans.append(Span(Role.TEXT, start, start + summary, softmax=softmax))
            stop = start + adapter.tokens
            spans.append(Span(Role.REFERENCE, start + summary, stop, picture.grid, softmax))
            start = stop
    return tuple(spans)
