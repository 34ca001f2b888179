"""Attention between places of the result and places of a reference, pooled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..errors import I2AMError
from ..recording import Definition, Recording, check_definition, correspondence_name
from ..tokens import Grid


@dataclass(frozen=True)
class Correspondence:
    """Attention from each place of the result to each place of a reference, pooled.

    values: (batch, result cells, reference cells), mean over heads, layers and steps. In the
    paper's definition each row sums to one, in the model's to the place's share. An effect row
    sums to the squared change that all its cells make. result, reference: the grids.
    """

    values: Tensor
    result: Grid
    reference: Grid

    @property
    def looks(self) -> Tensor:
        """Each row as a distribution over the reference: (batch, result cells, reference cells).

        A place that gave the reference no attention has a row of zeros.
        """
        total = self.values.sum(-1, keepdim=True)
        return torch.where(total > 0, self.values / total, 0)


def correspondence_of(
    recording: Recording, definition: Definition, reference: int
) -> Correspondence:
    """Recording → its correspondence. Raises I2AMError if it was not recorded."""
    check_definition(recording.header, definition)
    values = recording.arrays.get(correspondence_name(definition, reference))
    if values is None:
        raise I2AMError(
            "This needs the correspondence, which was not recorded. Turn it on in Capture "
            "Attention."
        )
    result = recording.header.generated.grid.one_frame
    over = recording.header.references[reference].grid.one_frame
    return Correspondence(
        rearrange(values, "b hg wg hr wr -> b (hg wg) (hr wr)"),
        result.with_cells(*values.shape[1:3]),
        over.with_cells(*values.shape[3:]),
    )
