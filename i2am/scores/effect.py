"""Recording → how much each reference contributes to attention's output: the effect definition."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import I2AMError
from ..recording import Definition, Recording, check_definition
from ..tokens import mask_coverage


def output_change(recording: Recording, region: Tensor | None = None) -> Tensor:
    """Recording → how far attention's output moves with a reference left out: (batch, references).

    √(Σ ‖Δ‖² / Σ ‖o‖²) over the region's places and all heads, layers and steps. 0 is no change, 1 a
    change as large as the output itself. region: (1 or batch, height, width), over the result; all
    of it by default. For a video, the mean frame is used.

    Raises I2AMError for an empty region or if the effect was not recorded.
    """
    header, arrays = recording.header, recording.arrays
    check_definition(header, Definition.EFFECT)
    grid = header.generated.grid.one_frame
    weights = torch.ones(1, grid.area)
    if region is not None:
        weights = mask_coverage(region, grid)
        if not bool((weights.sum(1) > 0).all()):
            raise I2AMError("The region is empty. Paint it white where you want to know.")
    weights = weights / weights.mean(1, keepdim=True)
    output = arrays["output.map"]
    output = (output.mean(1) if output.ndim == 4 else output).flatten(1)
    seen = torch.tensor(header.counts) > 0
    changes: list[Tensor] = []
    for r in range(len(header.references)):
        moved = arrays[f"effect.r2g.{r}.step_layer"][:, seen].mean(1)  # over places, sums to a mean
        moved = (moved.sum(1) if moved.ndim == 4 else moved).flatten(1)
        changes.append((moved * weights).sum(1))
    total = (output * weights).mean(1, keepdim=True)
    return (torch.stack(changes, 1) / total.clamp(min=torch.finfo(torch.float32).tiny)).sqrt()
