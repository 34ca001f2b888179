"""IMACS: how well the maps agree with masks, as numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...i2am.errors import I2AMError
from ...i2am.maps import AttributionMap, attribution_map, recording_coverage
from ...i2am.recording import Attribution, Direction, check_reference
from ...i2am.scores import PENALTY, Preset, Score, imacs_score
from ...i2am.scores.imacs import THRESHOLD
from ..inputs import (
    AUTO,
    DEFINITION,
    REFERENCE,
    WITHIN_MASK,
    choose_definition,
    fitted_mask,
    mask_within,
)
from ..sockets import AttributionSocket


class Imacs(io.ComfyNode):
    """The paper's score over the result and over the reference, for each picture of the batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_IMACS",
            display_name="IMACS",
            category="I2AM",
            description="Scores how well attention agrees with a mask: the mean of the map inside "
            "the mask, minus a penalty times the mean outside. 1 is best. Above 0, at the default "
            "penalty, the map is more than three times higher inside than outside. The scores of "
            "the last runs stay on the node.",
            search_aliases=["score", "metric", "consistency", "evaluate", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                REFERENCE,
                io.Combo.Input(
                    "preset",
                    options=[preset.value for preset in Preset],
                    default=Preset.PAPER.value,
                    optional=True,
                    tooltip="Paper computes the score as the paper's authors do. Robust has no "
                    "threshold and is not decided by a single stray cell.",
                ),
                io.Float.Input(
                    "penalty",
                    default=PENALTY,
                    optional=True,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    advanced=True,
                    tooltip="How much attention outside the mask costs. The paper uses 3.",
                ),
                io.Float.Input(
                    "threshold",
                    default=THRESHOLD,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="For the paper preset: values up to this fraction of the map's range "
                    "count as nothing. The paper uses 0.4.",
                ),
                io.Boolean.Input(
                    "complement",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Score where the attention is not. The authors' code does this for "
                    "models with a single reference token.",
                ),
                DEFINITION,
                WITHIN_MASK,
                io.Mask.Input(
                    "generated_mask",
                    optional=True,
                    tooltip="White where the reference was meant to go in the result, for example "
                    "the inpainting mask. If left open, the mask of Collect Attribution is used.",
                ),
                io.Mask.Input(
                    "reference_mask",
                    optional=True,
                    tooltip="White on the wanted object in the reference.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="imacs_generated",
                    is_output_list=True,
                    tooltip="The score over the result, one for each picture; not a number (NaN) "
                    "without a mask.",
                ),
                io.Float.Output(
                    display_name="imacs_reference",
                    is_output_list=True,
                    tooltip="The score over the reference, one for each picture; not a number "
                    "(NaN) without a mask.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The scores, their parts, and how they were made.",
                ),
                io.Float.Output(
                    display_name="inside_generated",
                    is_output_list=True,
                    tooltip="How much of the map over the result lies inside the mask, 0 to 1, "
                    "one for each picture. Good for ranking tries with Pick Best.",
                ),
                io.Float.Output(
                    display_name="inside_reference",
                    is_output_list=True,
                    tooltip="How much of the map over the reference lies inside the mask, 0 to 1, "
                    "one for each picture.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        attribution: Attribution,
        reference: int = 1,
        preset: str = Preset.PAPER.value,
        penalty: float = PENALTY,
        threshold: float = THRESHOLD,
        complement: bool = False,
        definition: str = AUTO,
        within_mask: bool = False,
        generated_mask: Tensor | None = None,
        reference_mask: Tensor | None = None,
    ) -> io.NodeOutput:
        chosen = choose_definition(attribution, definition)
        sides = score_sides(
            attribution,
            reference=reference,
            preset=preset,
            penalty=penalty,
            threshold=threshold,
            complement=complement,
            definition=definition,
            within_mask=within_mask,
            generated_mask=generated_mask,
            reference_mask=reference_mask,
        )
        scores = [side.score for side in sides]
        whose_mask = "connected here"
        if generated_mask is None:
            generated_mask = attribution.mask
            whose_mask = "it was sampled with" if attribution.mask_sampled else "of the attribution"
        batch = attribution.recording.header.run.batch
        nothing = [math.nan] * batch
        generated, over_reference = (
            nothing if score is None else score.imacs.tolist() for score in scores
        )
        inside = [nothing if score is None else score.share_inside.tolist() for score in scores]
        if generated_mask is None:
            whose_mask = "none"
        settings = {
            "reference": reference,
            "definition": chosen.value,
            "preset": preset,
            "penalty": penalty,
            "threshold": threshold if preset == Preset.PAPER.value else None,
            "complement": complement,
            "within_mask": within_mask,
            "generated_mask": whose_mask,
        }
        header = attribution.recording.header
        shown = {
            "imacs_generated": [_plain(value) for value in generated],
            "imacs_reference": [_plain(value) for value in over_reference],
            "settings": settings,
            "run": {
                "model": header.run.model,
                "seed": header.run.seed,
                "steps": len(header.run.schedule) - 1,
            },
        }
        text = _report(scores, settings, recording_coverage(attribution.recording))
        return io.NodeOutput(
            generated, over_reference, text, *inside, ui={"i2am": [shown], "i2am_text": [text]}
        )


@dataclass(frozen=True)
class ScoredSide:
    """One side of IMACS: its map, and if there is a mask over the same picture, its score.

    map: None for a reference whose tokens have no places.
    """

    map: AttributionMap | None
    mask: Tensor | None
    score: Score | None


def score_sides(
    attribution: Attribution,
    *,
    reference: int = 1,
    preset: str = Preset.PAPER.value,
    penalty: float = PENALTY,
    threshold: float = THRESHOLD,
    complement: bool = False,
    definition: str = AUTO,
    within_mask: bool = False,
    generated_mask: Tensor | None = None,
    reference_mask: Tensor | None = None,
) -> tuple[ScoredSide, ScoredSide]:
    """The inputs of the node → both sides of IMACS, over the result and over the reference.

    Raises I2AMError if there is no mask, and for masks that do not fit.
    """
    over_result = attribution.mask if generated_mask is None else generated_mask
    if over_result is None and reference_mask is None:
        raise I2AMError(
            "IMACS needs a mask, and none is connected. Give it generated_mask (where the "
            "reference was meant to go), reference_mask (where the object is), or both."
        )
    chosen = choose_definition(attribution, definition)
    header = attribution.recording.header
    check_reference(header, reference - 1, Direction.REFERENCE_TO_GENERATED)
    has_places = header.references[reference - 1].has_places

    def side(direction: Direction, mask: Tensor | None, name: str) -> ScoredSide:
        if mask is None and direction is Direction.GENERATED_TO_REFERENCE and not has_places:
            return ScoredSide(None, None, None)
        maps = attribution_map(
            attribution.recording,
            chosen,
            direction,
            reference=reference - 1,
            within=mask_within(attribution, within_mask),
        )
        if mask is None:
            return ScoredSide(maps, None, None)
        fitted = fitted_mask(mask, attribution, direction, reference - 1, name)
        score = imacs_score(
            maps,
            fitted,
            preset=Preset(preset),
            penalty=penalty,
            threshold=threshold,
            complement=complement,
            size=attribution.size(direction, reference - 1),
            name=name,
        )
        return ScoredSide(maps, fitted, score)

    return (
        side(Direction.REFERENCE_TO_GENERATED, over_result, "generated mask"),
        side(Direction.GENERATED_TO_REFERENCE, reference_mask, "reference mask"),
    )


def _plain(value: float) -> float | None:
    """A value → itself; NaN → None, since JSON has no NaN."""
    return None if math.isnan(value) else value


def _report(scores: list[Score | None], settings: dict[str, Any], seen: dict[str, int]) -> str:
    penalty = settings["penalty"]
    lines: list[str] = []
    for side, score in zip(("result", "reference"), scores, strict=True):
        if score is None:
            lines.append(f"IMACS over the {side}: no mask, not scored")
            continue
        for number, value in enumerate(score.imacs.tolist()):
            which = f" {number + 1}" if len(score.imacs) > 1 else ""
            inside, outside, share, area, spread = (
                float(part[number])
                for part in (
                    score.inside,
                    score.outside,
                    score.share_inside,
                    score.area,
                    score.entropy,
                )
            )
            lines += [
                f"IMACS over the {side}{which}: {value:+.3f} "
                f"(inside {inside:.3f} − {penalty:g} × outside {outside:.3f})",
                f"  {share:.0%} of the attention lies in the mask, {share / area:.1f} × what its "
                f"{area:.0%} of the picture would get evenly; spread (entropy) {spread:.2f}",
            ]
    cut = settings["threshold"]
    lines += [
        f"Reference {settings['reference']}, {settings['definition']} definition, "
        f"{settings['preset']} preset"
        + ("" if cut is None else f", threshold {cut:g}")
        + (", complement" if settings["complement"] else ""),
        f"Mask over the result: {settings['generated_mask']}",
        f"Recorded {seen['evaluations']} of {seen['expected_evaluations']} evaluations, "
        f"{seen['layers']} of {seen['expected_layers']} layers",
    ]
    if settings["within_mask"]:
        lines.append("Over the reference: what the masked part of the result looked at, alone")
    return "\n".join(lines)
