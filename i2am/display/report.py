"""Recording → words and numbers: what was recorded, of which model, and how completely."""

from __future__ import annotations

from typing import Any

from ..attention import SCRATCH_BYTES
from ..maps import (
    SINK_LEVEL,
    SINK_PART,
    find_sinks,
    mean_shares,
    recording_coverage,
    sink_correspondence,
    sink_mass,
)
from ..recording import (
    BUDGETS,
    Header,
    Recording,
    best_definition,
    planned_steps,
)
from ..tokens import RESULT


def recording_summary(recording: Recording) -> dict[str, Any]:
    """Recording → plain values, fit for JSON."""
    header = recording.header
    return {
        "model": header.run.model,
        "architecture": header.architecture,
        "seed": header.run.seed,
        "probed": header.run.probed,
        "batch": header.run.batch,
        "branch": header.plan.branch,
        "budget": header.plan.budget,
        "steps": len(header.steps),
        "share": mean_shares(recording),
        "coverage": recording_coverage(recording),
        "sampling_seconds": header.seconds,
        "mebibytes": recording.bytes / 2**20,
        "definition": best_definition(recording).value,
        "versions": dict(header.run.versions),
    }


def _plan_line(header: Header) -> str:
    """What was planned, before anything was recorded."""
    plan, steps = header.plan, len(header.run.schedule) - 1
    scratch = SCRATCH_BYTES // 2**20
    side = BUDGETS[plan.budget].side
    thin = f", one of {side}×{side} places of large results" if side > 1 else ""
    return (
        f"Planned ({plan.budget}): {len(planned_steps(plan, steps))} of {steps} steps, "
        f"{header.expected_layers} layers{thin}, at most {scratch} MiB of working memory"
    )


def recording_report(recording: Recording) -> str:
    """Recording → a report in an artist's words."""
    header, mean = recording.header, mean_shares(recording)
    frames = header.generated.grid.frames
    made = "pictures" if header.run.batch > 1 else "picture"
    if frames > 1:
        made += f" of {frames} latent frames"
    lines = [
        f"{header.run.model} ({header.architecture}), seed {header.run.seed}, "
        f"{header.run.batch} {made}, "
        f"{header.plan.branch} branch",
        *_probe_lines(header),
        _coverage_line(recording),
        _plan_line(header),
        *_way_lines(header),
        "Share of the model's attention, mean over the result, all recorded layers and steps:",
        f"  text {mean['text']:.1%} · the picture itself {mean['self']:.1%}",
    ]
    for number, (share, picture) in enumerate(
        zip(mean["references"], header.references, strict=True), start=1
    ):
        grid = "×".join(map(str, picture.grid.shape))
        cells = f"{grid} cells" if picture.has_places else "no map over it"
        lines.append(f"  reference {number} {share:.1%} ({picture.kind}, {cells})")
    lines += _word_lines(header)
    how = "probed" if header.run.probed else "sampled"
    lines += [f"Steered while it was {how}: {text}" for text in header.run.steering]
    lines += _place_lines(recording)
    return "\n".join(lines + _warnings(recording) + _sink_lines(recording))


def support_lines(recording: Recording) -> list[str]:
    """Recording → lines for a support report: the model and what was recorded, nothing private."""
    header = recording.header
    references = [
        f"{picture.kind} {'×'.join(map(str, picture.grid.shape))}" for picture in header.references
    ]
    result = "×".join(map(str, header.generated.grid.shape))
    lines = [
        f"Model: {header.run.model} ({header.architecture}), {header.run.batch} × {result} cells, "
        f"{header.plan.branch} branch; references: {', '.join(references)}",
        *_probe_lines(header),
        _coverage_line(recording),
        _plan_line(header),
        *_way_lines(header),
    ]
    steered = ["The model's attention was steered."] if header.run.steering else []
    found = [*_warnings(recording), *steered]
    return [*lines, *(f"Warning: {warning}" for warning in found or ["none"])]


def _probe_lines(header: Header) -> list[str]:
    """That nothing was sampled, and the noise levels; nothing for a sampling run."""
    if not header.run.probed:
        return []
    levels = ", ".join(f"{sigma:.3g}" for sigma in header.sigmas)
    return [f"Probed, not generated: a finished picture with noise added, at sigma {levels}"]


def _way_lines(header: Header) -> list[str]:
    """How the sums were computed, the most frequent way first; nothing for older files."""
    ways = sorted(header.ways.items(), key=lambda way: -way[1])
    said = "; ".join(f"{way} ({calls} calls)" for way, calls in ways)
    return [f"Computed: {said}"] if said else []


def _coverage_line(recording: Recording) -> str:
    header, found = recording.header, recording_coverage(recording)
    return (
        f"Recorded {found['evaluations']} of {found['expected_evaluations']} model evaluations in "
        f"{len(header.steps)} steps, {found['layers']} of {found['expected_layers']} layers, up to "
        f"{max(header.heads)} heads; {recording.bytes / 2**20:.1f} MiB"
    )


def _warnings(recording: Recording) -> list[str]:
    """What was planned but not recorded."""
    found, warnings = recording_coverage(recording), list[str]()
    if found["evaluations"] < found["expected_evaluations"]:
        warnings.append("Some evaluations were not recorded: another node skips or replaces them.")
    if found["layers"] < found["expected_layers"]:
        warnings.append("Some layers were not recorded: another node replaces their attention.")
    return warnings


def _place_lines(recording: Recording) -> list[str]:
    """The points named before sampling, and how they were recorded."""
    header = recording.header
    places = header.plan.places
    if not places:
        return []
    size = sum(4 * a.numel() for name, a in recording.arrays.items() if name.startswith("point."))
    together = max(header.step_groups.count(group) for group in header.step_groups)
    steps = "each step on its own" if together == 1 else f"up to {together} steps together"
    lines = [f"Exact points, {steps}, {size / 2**20:.1f} MiB:"]
    for reference in range(RESULT, max(place.reference for place in places) + 1):
        mine = "; ".join(place.name for place in places if place.reference == reference)
        whose = "result" if reference == RESULT else f"reference {reference + 1}"
        if mine and reference < len(header.references):
            lines.append(f"  {whose}: {mine}")
        elif mine:
            lines.append(f"  {whose}: {mine} not recorded: the model was not given this reference")
    return lines


def _word_lines(header: Header) -> list[str]:
    """What was recorded of the prompt's words; nothing if they were not asked for."""
    if not header.plan.words:
        return []
    if not header.prompts:
        return ["Words: none, since no attention that was recorded held tokens of a prompt"]
    counts = " and ".join(map(str, header.prompts))
    several = f"{len(header.prompts)} prompts" if len(header.prompts) > 1 else "one prompt"
    groups = header.word_groups[-1] + 1
    apart = ", in attention apart from the references" if header.words_apart else ""
    return [f"Words: {several} of {counts} tokens, in {groups} groups of steps{apart}"]


def _sink_lines(recording: Recording) -> list[str]:
    """One line for each reference that has sinks."""
    lines: list[str] = []
    for number, picture in enumerate(recording.header.references):
        if not recording.header.plan.correspondence or not picture.has_places:
            continue
        pairs = sink_correspondence(recording, best_definition(recording), number)
        found = find_sinks(pairs)
        if not bool(found.any()):
            continue
        counts = ", ".join(str(int(count)) for count in found.sum(-1))
        parts = ", ".join(f"{float(part):.0%}" for part in sink_mass(pairs, found))
        lines.append(
            f"Sinks: {counts} of {pairs.reference.area} places of reference {number + 1} get "
            f"at least {SINK_LEVEL:g} times an even spread from {SINK_PART:.0%} of the result, "
            f"whatever it shows there. They take {parts} of the reference's attention."
        )
    return lines
