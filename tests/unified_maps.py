"""Unified maps made by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from i2am.maps import AttributionMap, Level
from i2am.recording import Definition, Direction
from i2am.tokens import Grid


def unified(values: Tensor) -> AttributionMap:
    """(height, width) or (batch, height, width) as a map of the unified level."""
    values = values if values.ndim == 3 else values[None]
    return AttributionMap(
        values[:, None],
        ("unified",),
        Grid(values.shape[1], values.shape[2]),
        Definition.PAPER,
        Direction.REFERENCE_TO_GENERATED,
        Level.UNIFIED,
    )


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
