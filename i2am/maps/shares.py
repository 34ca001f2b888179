"""Recording → shares of attention by source, and how much of the plan was recorded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..recording import Recording


def item_shares(recording: Recording) -> Tensor:
    """Shares of the model's attention: (batch, 2 + R) for text, the picture itself, references.

    Mean over all generated tokens, heads, recorded layers and steps. Each row sums to one.
    """
    seen = torch.tensor(recording.header.counts) > 0
    return recording.arrays["share.step_layer"][:, seen].mean(1)


def mean_shares(recording: Recording) -> dict[str, Any]:
    """The mean of `item_shares` over the batch, by name."""
    text, own, *references = (float(share) for share in item_shares(recording).mean(0))
    return {"text": text, "self": own, "references": references}


def recording_coverage(recording: Recording) -> dict[str, int]:
    """How many of the planned evaluations and layers were recorded."""
    header = recording.header
    return {
        "evaluations": header.evaluations,
        "expected_evaluations": header.expected_evaluations,
        "layers": len(header.layers),
        "expected_layers": header.expected_layers,
    }
