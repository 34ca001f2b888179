"""Capture Attention: MODEL → the same MODEL, with its sampling runs recorded."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...i2am.errors import I2AMError
from ...i2am.recording import BUDGETS, RECORDED, Plan
from ...i2am.tokens import (
    MAX_POINTS,
    PointQuery,
    check_point_count,
    parse_point_queries,
    parse_ranges,
)
from ..host.hook import arm
from .support import SupportReport

CAPTURE_ID = "I2AM_Capture"
_REFERENCES, _ITSELF = "references", "the picture itself"
_PLAN_INPUTS = (
    *("layers", "steps", "branch", "correspondence", "within", "budget"),
    *("points", "reference_points", "definitions", "words"),
)


class CaptureAttention(io.ComfyNode):
    """MODEL → the same model, recorded while it samples."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=CAPTURE_ID,
            display_name="Capture Attention",
            category="I2AM",
            description="Watches how the model uses its references while it samples. The picture "
            "stays the same, bit for bit. Place it right before the sampler.",
            search_aliases=["attention map", "heatmap", "explain", "reference", "I2AM"],
            # Live maps are shown on this node, not on another one with the same inputs.
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,
            inputs=[
                io.Model.Input("model", tooltip="The model that goes into the sampler."),
                io.String.Input(
                    "layers",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Layers to watch, counted from 0, for example 0-7,12. Also last, -1, "
                    "50%-100%, and names of layers such as double, single.3 or output.8. Leave "
                    "empty for all.",
                ),
                io.String.Input(
                    "steps",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Sampling steps to watch, for example 0-9, last, -1 or 50%-100%. Each "
                    "sampler counts its own steps from 0, also in a second stage. Leave empty for "
                    "all.",
                ),
                io.Combo.Input(
                    "branch",
                    options=["conditional", "unconditional"],
                    default="conditional",
                    optional=True,
                    advanced=True,
                    tooltip="Conditional watches the positive conditioning, which is what you see "
                    "in the picture; unconditional watches the negative one.",
                ),
                io.Boolean.Input(
                    "correspondence",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Also keep which place looked at which, for questions about single "
                    "points. Turn off to save a little time and memory.",
                ),
                io.Combo.Input(
                    "within",
                    options=[_REFERENCES, _ITSELF],
                    default=_REFERENCES,
                    optional=True,
                    advanced=True,
                    tooltip="What the result is watched looking at: its references, or the picture "
                    "itself. The picture itself needs no reference, but a model whose attention "
                    "has the picture alone in a sequence.",
                ),
                io.Boolean.Input(
                    "live",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Show on this node, while it samples, where the references are used so "
                    "far. This changes neither the picture nor the recording.",
                ),
                io.Combo.Input(
                    "budget",
                    options=list(BUDGETS),
                    default="exact",
                    optional=True,
                    advanced=True,
                    tooltip="How much to watch. Exact: everything. Balanced: every third step, a "
                    "third of the work. Fast: every sixth step, and one place of four in large "
                    "pictures. The picture is the same with each.",
                ),
                io.String.Input(
                    "points",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Points of the result that Point Attribution can then answer exactly, "
                    "in every layer and step. Write x,y from 0 (left, top) to 1, separated by ;, "
                    "for example 0.5,0.4; 0.2,0.7. Write a rectangle from corner to corner: "
                    f"0.1,0.1-0.3,0.2. At most {MAX_POINTS} together with reference_points.",
                ),
                io.String.Input(
                    "reference_points",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="The same for the reference: which places of the result looked there. "
                    "For a reference other than the first, put its number in front, for example "
                    "2: 0.5,0.4.",
                ),
                io.Combo.Input(
                    "definitions",
                    options=list(RECORDED),
                    default="both",
                    optional=True,
                    advanced=True,
                    tooltip="What maps can be made of. Both: where the model looked, by its own "
                    "attention and by the paper's. All: also the effect, how far the output of "
                    "attention moves with a place of the reference left out. It predicts best what "
                    "the reference changes. On a CPU it takes 0.3 to 0.75 times as long as the "
                    "model's own attention. Model or paper: one of the two alone, which takes half "
                    "the memory; on a graphics card, model also takes less time.",
                ),
                io.Boolean.Input(
                    "words",
                    default=False,
                    optional=True,
                    tooltip="Also keep where the model attended to each word of the prompt, for "
                    "Word Attribution. Models that are given text alone can then be watched, too.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The same model, watched. Connect it to the sampler.",
                )
            ],
        )

    @classmethod
    def validate_inputs(
        cls, points: str | None = "", reference_points: str | None = ""
    ) -> bool | str:
        try:
            _point_queries(points or "", reference_points or "")  # a wire's text is not known yet
        except I2AMError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        layers: str = "",
        steps: str = "",
        branch: str = "conditional",
        correspondence: bool = True,
        within: str = _REFERENCES,
        live: bool = True,
        budget: str = "exact",
        points: str = "",
        reference_points: str = "",
        definitions: str = "both",
        words: bool = False,
    ) -> io.NodeOutput:
        plan = make_plan(
            layers=layers,
            steps=steps,
            branch=branch,
            correspondence=correspondence,
            within=within,
            budget=budget,
            points=points,
            reference_points=reference_points,
            definitions=definitions,
            words=words,
        )
        node = str(cls.hidden.unique_id)
        with SupportReport(node, type(model.model).__name__):
            return io.NodeOutput(arm(model, plan, node if live else ""))


def make_plan(
    layers: str = "",
    steps: str = "",
    branch: str = "conditional",
    correspondence: bool = True,
    within: str = _REFERENCES,
    budget: str = "exact",
    points: str = "",
    reference_points: str = "",
    definitions: str = "both",
    words: bool = False,
) -> Plan:
    """Capture Attention's widgets → the plan. Raises I2AMError if one cannot be read."""
    return Plan(
        layers=parse_ranges(layers, "layers"),
        steps=parse_ranges(steps, "steps"),
        branch=branch,
        correspondence=correspondence,
        within=within == _ITSELF,
        budget=budget,
        places=_point_queries(points, reference_points),
        definitions=definitions,
        words=words,
    )


def upstream_plans(prompt: dict[str, Any], collect: str) -> tuple[Plan, ...]:
    """The plans of all Capture Attention nodes above a Collect's latent, the nearest first.

    Runs recorded with different settings can make the same latent; the plans tell them apart.
    Empty if there are no such nodes, or if the settings of one come from other nodes.
    """
    plans: list[Plan] = []
    above, seen = [prompt.get(collect, {}).get("inputs", {}).get("samples")], set[str]()
    for link in above:  # grows during the loop: breadth first
        name = str(link[0]) if isinstance(link, list) and len(link) == 2 else ""
        if name in seen or name not in prompt:
            continue
        seen.add(name)
        inputs = prompt[name]["inputs"]
        if prompt[name]["class_type"] != CAPTURE_ID:
            above += inputs.values()
            continue
        # It replaces any Capture Attention above it, so nothing there is read.
        widgets = {name: inputs[name] for name in _PLAN_INPUTS if name in inputs}
        if any(isinstance(value, list) for value in widgets.values()):
            return ()
        plans.append(make_plan(**widgets))
    return tuple(plans)


def _point_queries(points: str, reference_points: str) -> tuple[PointQuery, ...]:
    queries = parse_point_queries(points, "points")
    queries += parse_point_queries(reference_points, "reference_points", numbered=True)
    check_point_count(queries)
    return queries
