"""Recording → words and numbers: what was recorded, of what, and how completely."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .attribution import best_definition
from .recorder import Recording


def item_shares(recording: Recording) -> Tensor:
    """Share of the model's attention on text, the picture itself, each reference: (batch, 2 + R).

    Mean over all generated tokens, heads, recorded layers and steps; each row adds up to one.
    """
    seen = torch.tensor(recording.header.counts) > 0
    return recording.arrays["share.step_layer"][:, seen].mean(1)


def shares(recording: Recording) -> dict[str, Any]:
    """The mean of `item_shares` over the batch, by name."""
    text, own, *references = (float(share) for share in item_shares(recording).mean(0))
    return {"text": text, "self": own, "references": references}


def coverage(recording: Recording) -> dict[str, int]:
    """How much of what was planned was seen."""
    header = recording.header
    return {
        "evaluations": header.evaluations,
        "expected_evaluations": header.expected_evaluations,
        "layers": len(header.layers),
        "expected_layers": header.expected_layers,
    }


def summary(recording: Recording) -> dict[str, Any]:
    """The recording in plain values, fit for JSON."""
    header = recording.header
    return {
        "model": header.run.model,
        "architecture": header.architecture,
        "seed": header.run.seed,
        "batch": header.run.batch,
        "branch": header.plan.branch,
        "steps": len(header.steps),
        "share": shares(recording),
        "coverage": coverage(recording),
        "sampling_seconds": header.seconds,
        "mebibytes": recording.bytes / 2**20,
        "definition": best_definition(recording).value,
        "versions": dict(header.run.versions),
    }


def report(recording: Recording) -> str:
    """The recording in an artist's words."""
    header, found = recording.header, coverage(recording)
    mean = shares(recording)
    frames = header.generated.grid.frames
    made = "pictures" if header.run.batch > 1 else "picture"
    if frames > 1:
        made += f" of {frames} latent frames"
    lines = [
        f"{header.run.model} ({header.architecture}), seed {header.run.seed}, "
        f"{header.run.batch} {made}, "
        f"{header.plan.branch} branch",
        f"Recorded {found['evaluations']} of {found['expected_evaluations']} model evaluations in "
        f"{len(header.steps)} steps, {found['layers']} of {found['expected_layers']} layers, up to "
        f"{max(header.heads)} heads; {recording.bytes / 2**20:.1f} MiB",
        "Share of the model's attention, mean over the result, all recorded layers and steps:",
        f"  text {mean['text']:.1%} · the picture itself {mean['self']:.1%}",
    ]
    for number, (share, picture) in enumerate(
        zip(mean["references"], header.references, strict=True), start=1
    ):
        grid = "×".join(map(str, picture.grid.shape))
        cells = f"{grid} cells" if picture.has_places else "no map over it"
        lines.append(f"  reference {number} {share:.1%} ({picture.kind}, {cells})")
    if found["evaluations"] < found["expected_evaluations"]:
        lines.append("Some evaluations were not seen: another node skips or replaces them.")
    if found["layers"] < found["expected_layers"]:
        lines.append("Some layers were not seen: another node replaces their attention.")
    return "\n".join(lines)
