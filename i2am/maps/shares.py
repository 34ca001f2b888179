"""Shares of attention by source, and how much of the plan was recorded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..recording import Recording


def item_shares(recording: Recording) -> Tensor:
    """Share of the model's attention on text, the picture itself, each reference: (batch, 2 + R).

    Mean over all generated tokens, heads, recorded layers and steps; each row adds up to one.
    """
    seen = torch.tensor(recording.header.counts) > 0
    return recording.arrays["share.step_layer"][:, seen].mean(1)


def mean_shares(recording: Recording) -> dict[str, Any]:
    """The mean of `item_shares` over the batch, by name."""
    text, own, *references = (float(share) for share in item_shares(recording).mean(0))
    return {"text": text, "self": own, "references": references}


def recording_coverage(recording: Recording) -> dict[str, int]:
    """How much of what was planned was seen."""
    header = recording.header
    return {
        "evaluations": header.evaluations,
        "expected_evaluations": header.expected_evaluations,
        "layers": len(header.layers),
        "expected_layers": header.expected_layers,
    }
