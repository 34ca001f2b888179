"""Capture Attention and Collect Attribution: the two nodes around a user's own sampler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate

from ...i2am.display import recording_report, recording_summary
from ...i2am.errors import I2AMError
from ...i2am.recording import (
    BUDGETS,
    Attribution,
    Direction,
    Plan,
    Recording,
    Refusal,
    fingerprint,
    fits_reference,
    fits_results,
)
from ...i2am.tokens import (
    MAX_POINTS,
    PointQuery,
    check_point_count,
    parse_point_queries,
    parse_ranges,
)
from ..host.hook import arm
from ..sockets import RECORDINGS, AttributionSocket
from ..support import Support

CAPTURE_ID = "I2AM_Capture"
_GIVEN, _ITSELF = "references", "the picture itself"
_REFERENCES = [f"reference_{number}" for number in range(1, 9)]


def _plan(
    layers: str,
    steps: str,
    branch: str,
    within: str,
    budget: str,
    points: str,
    reference_points: str,
    correspondence: bool,
) -> Plan:
    return Plan(
        layers=parse_ranges(layers, "layers"),
        steps=parse_ranges(steps, "steps"),
        branch=branch,
        correspondence=correspondence,
        within=within == _ITSELF,
        budget=budget,
        places=_places(points, reference_points),
    )


def _places(points: str, reference_points: str) -> tuple[PointQuery, ...]:
    places = parse_point_queries(points, "points")
    places += parse_point_queries(reference_points, "reference_points", numbered=True)
    check_point_count(places)
    return places


class CaptureAttention(io.ComfyNode):
    """MODEL → MODEL whose sampling runs are recorded."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=CAPTURE_ID,
            display_name="Capture Attention",
            category="I2AM",
            description="Watches how the model uses its references while it samples. The picture "
            "does not change by a single bit. Put it right before the sampler.",
            search_aliases=["attention map", "heatmap", "explain", "reference", "I2AM"],
            # The node that shows what is recorded is this very one, not another one like it.
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,
            inputs=[
                io.Model.Input("model", tooltip="The model that goes into the sampler."),
                io.String.Input(
                    "layers",
                    default="",
                    advanced=True,
                    tooltip="Which layers to watch, numbered from 0, such as 0-7,12. "
                    "Empty watches all of them.",
                ),
                io.String.Input(
                    "steps",
                    default="",
                    advanced=True,
                    tooltip="Which steps of the sampler to watch, such as 0-9. Each sampler's own "
                    "first step is 0, also in a second stage. Empty watches all of them.",
                ),
                io.Combo.Input(
                    "branch",
                    options=["conditional", "unconditional"],
                    default="conditional",
                    advanced=True,
                    tooltip="Conditional watches what the positive conditioning does, which is "
                    "what you see in the picture; unconditional the negative one.",
                ),
                io.Boolean.Input(
                    "correspondence",
                    default=True,
                    advanced=True,
                    tooltip="Also keep which place looked at which place, for questions about one "
                    "point. Off saves a little time and memory.",
                ),
                io.Combo.Input(
                    "within",
                    options=[_GIVEN, _ITSELF],
                    default=_GIVEN,
                    advanced=True,
                    tooltip="What to watch the result look at. The picture itself: where each "
                    "place of the result looked within the result, without any reference, in "
                    "models whose attention has the picture alone in a sequence.",
                ),
                io.Boolean.Input(
                    "live",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Show on this node, while it samples, where the references are used "
                    "so far. Neither the picture nor the recording depends on it.",
                ),
                io.Combo.Input(
                    "budget",
                    options=list(BUDGETS),
                    default="exact",
                    optional=True,
                    advanced=True,
                    tooltip="How closely to watch. Exact: everything. Balanced: every third step, "
                    "a third of the work. Fast: every sixth step, and in large pictures one place "
                    "of four. The picture is the same with each.",
                ),
                io.String.Input(
                    "points",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Places of the result to ask Point Attribution about exactly, in each "
                    "layer and step: x,y from 0 at the left and top to 1, with ; between them, "
                    "such as 0.5,0.4; 0.2,0.7. A rectangle goes from corner to corner: "
                    f"0.1,0.1-0.3,0.2. With reference_points at most {MAX_POINTS}.",
                ),
                io.String.Input(
                    "reference_points",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="The same in the reference: which places of the result looked there. "
                    "Of another than reference 1 its number stands in front, such as 2: 0.5,0.4.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The same model, watched. Connect the sampler."
                )
            ],
        )

    @classmethod
    def validate_inputs(
        cls, points: str | None = "", reference_points: str | None = ""
    ) -> bool | str:
        try:
            _places(points or "", reference_points or "")  # of a wire nothing is known yet
        except I2AMError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        layers: str,
        steps: str,
        branch: str,
        correspondence: bool,
        within: str = _GIVEN,
        live: bool = True,
        budget: str = "exact",
        points: str = "",
        reference_points: str = "",
    ) -> io.NodeOutput:
        plan = _plan(
            *(layers, steps, branch, within, budget), points, reference_points, correspondence
        )
        node = str(cls.hidden.unique_id)
        with Support(node, type(model.model).__name__):
            return io.NodeOutput(arm(model, plan, node if live else ""))


class CollectAttribution(io.ComfyNode):
    """LATENT → the recording of the run that made it, with the pictures to draw on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        references = io.Autogrow.TemplateNames(
            io.Image.Input(
                "reference",
                tooltip="A reference picture, in the order the model was given them. "
                "Maps over the reference are drawn on it.",
            ),
            names=_REFERENCES,
            min=0,
        )
        return io.Schema(
            node_id="I2AM_Collect",
            display_name="Collect Attribution",
            category="I2AM",
            description="Finds what Capture Attention recorded while this latent was sampled, and "
            "adds the pictures to draw the maps on.",
            search_aliases=["attribution", "attention map", "recording", "I2AM"],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            inputs=[
                io.Latent.Input(
                    "samples",
                    tooltip="The latent straight from the sampler that used the watched model.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The finished picture, to draw the maps over. Without it, maps are "
                    "drawn alone.",
                ),
                io.Autogrow.Input(
                    "references",
                    template=references,
                    optional=True,
                    tooltip="The reference pictures, in the order the model was given them.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where in the result the reference was meant to go, for the scores. "
                    "Left open, the inpainting mask that the latent was sampled with is used.",
                ),
            ],
            outputs=[
                AttributionSocket.Output(
                    display_name="attribution", tooltip="What was recorded, for the other nodes."
                ),
                io.Latent.Output(
                    display_name="samples", tooltip="The latent that came in, unchanged."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="What was recorded, how completely, and how much of the model's "
                    "attention went to the text, the picture itself and each reference.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        samples: dict[str, Any],
        image: Tensor | None = None,
        references: dict[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        node = str(cls.hidden.unique_id)
        with Support(node) as support:
            plans = _upstream_plans(cls.hidden.prompt or {}, node)
            support.record = _find(samples["samples"], plans)
            record = _readable(support.record)
            given = _reference_pictures(references or {}, record)
            result = _result_picture(image, record)
            if record.header.plan.within and result is not None:
                given = (result,)
            attribution = Attribution(record, result, given, mask)
            if mask is None:
                attribution = replace(
                    attribution, mask=_sampled_mask(samples, attribution), mask_sampled=True
                )
        text = recording_report(record)
        if attribution.mask is not None:
            whose = "the inpainting mask it was sampled with" if mask is None else "connected here"
            text += f"\nMask over the result: {whose}"
        shown = {"i2am": [recording_summary(record)], "i2am_support": [support.report()]}
        return io.NodeOutput(attribution, samples, text, ui=shown)


def _sampled_mask(samples: dict[str, Any], attribution: Attribution) -> Tensor | None:
    """The inpainting mask a latent was sampled with, over the result: (1 or batch, height, width).

    None where there is none, or one that is all or nothing, which masks no place from another; and
    for a video, whose frames may each have their own.
    """
    header = attribution.recording.header
    mask = samples.get("noise_mask")
    if mask is None or header.generated.grid.frames > 1:
        return None
    mask = mask.reshape(-1, 1, *mask.shape[-2:]).float().cpu()
    if len(mask) not in (1, header.run.batch):  # as the sampler repeats it
        mask = mask.repeat(-(-header.run.batch // len(mask)), 1, 1, 1)[: header.run.batch]
    size = attribution.size(Direction.REFERENCE_TO_GENERATED, 0)
    if tuple(mask.shape[-2:]) != size:
        mask = interpolate(mask, size, mode="bilinear")
    inside = mask >= 0.5
    return mask[:, 0] if bool(inside.any()) and not bool(inside.all()) else None


def _find(latent: Tensor, plans: tuple[Plan, ...]) -> Recording | Refusal | None:
    if latent.is_nested:
        raise I2AMError("This latent mixes picture and sound, which cannot be read so far.")
    return RECORDINGS.get(fingerprint(latent), plans)


def _readable(record: Recording | Refusal | None) -> Recording:
    if isinstance(record, Recording):
        return record
    if isinstance(record, Refusal):
        raise I2AMError(record.reason)
    raise I2AMError(
        "No recording belongs to this latent. It must come straight from a sampler whose model "
        "went through Capture Attention: connect the sampler's own LATENT, and put Capture "
        "Attention before the sampler. If it was sampled before ComfyUI was restarted or its "
        f"recording was lost to newer ones ({len(RECORDINGS)} are kept), sample it again, for "
        "instance with another seed and back."
    )


def _upstream_plans(prompt: dict[str, Any], collect: str) -> tuple[Plan, ...]:
    """The plans of every Capture Attention above a Collect's latent, the nearest first.

    Runs recorded with different settings make one and the same latent; this tells them apart.
    Empty if there is none, or one whose settings come from other nodes.
    """
    plans: list[Plan] = []
    above, seen = [prompt.get(collect, {}).get("inputs", {}).get("samples")], set[str]()
    for link in above:  # grows while it is read: breadth first
        name = str(link[0]) if isinstance(link, list) and len(link) == 2 else ""
        if name in seen or name not in prompt:
            continue
        seen.add(name)
        inputs = prompt[name]["inputs"]
        if prompt[name]["class_type"] != CAPTURE_ID:
            above += inputs.values()
            continue
        # What lies above it on its wire is replaced by it.
        widgets = [inputs.get(widget) for widget in ("layers", "steps", "branch")]
        widgets += [inputs.get("within", _GIVEN), inputs.get("budget", "exact")]
        widgets += [inputs.get("points", ""), inputs.get("reference_points", "")]
        if not all(isinstance(widget, str) for widget in widgets):
            return ()
        plans.append(_plan(*widgets, correspondence=bool(inputs.get("correspondence", True))))
    return tuple(plans)


def _result_picture(image: Tensor | None, record: Recording) -> Tensor | None:
    if image is None:
        return None
    batch, frames = record.header.run.batch, record.header.generated.grid.frames
    if not fits_results(image.shape[0], record.header):
        sampled = str(batch) if frames == 1 else f"{batch} × {frames} latent frames"
        raise I2AMError(
            f"The image input holds {image.shape[0]} pictures, but {sampled} were sampled in this "
            "run. Connect the decoded pictures of this very latent."
        )
    return image[..., :3]


def _reference_pictures(given: dict[str, Tensor], record: Recording) -> tuple[Tensor | None, ...]:
    """The pictures of each reference the model had, (1 or batch, height, width, 3).

    One input for each, or one input that holds them all as a batch.
    """
    count, batch = len(record.header.references), record.header.run.batch
    inputs: list[Tensor | None] = [given.get(name) for name in _REFERENCES]
    inputs = [None if pictures is None else pictures[..., :3] for pictures in inputs]
    while inputs and inputs[-1] is None:
        inputs.pop()
    if len(inputs) == 1 and inputs[0] is not None and len(inputs[0]) == count > 1:
        inputs = list(inputs[0].split(1))
    if len(inputs) > count:
        raise I2AMError(
            f"{len(inputs)} reference pictures are connected, but the model was given {count}. "
            "Connect one picture for each reference, in the order the model was given them."
        )
    for number, pictures in enumerate(inputs, start=1):
        if pictures is not None and not fits_reference(len(pictures), record.header, number - 1):
            raise I2AMError(
                f"Reference {number} holds {len(pictures)} pictures, but the model was given "
                f"{count} references for {batch} results. Connect one picture for each reference."
            )
    return (*inputs, *[None] * (count - len(inputs)))
