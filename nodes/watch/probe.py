"""Probe a Picture: a picture that exists → how the model would use its references to make it."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSampler
from comfy_api.latest import io
from latent_preview import prepare_callback
from torch import Tensor

from ...i2am.display import recording_report, recording_summary
from ...i2am.errors import I2AMError
from ...i2am.recording import Plan, Recording, ReferenceFit, Refusal
from ..host.hook import arm
from ..host.noising import Picture, evaluate, noise_levels, picture_of
from ..sockets import AttributionSocket
from .capture import CaptureAttention, make_plan
from .pictures import GivenPictures, attribution_of, picture_inputs
from .support import SupportReport
from .upstream import Upstream

LEVELS = 4
MOST_LEVELS = 100
_PLANNED = ("layers", "correspondence", "within", "points", "reference_points", "definitions")


class ProbePicture(io.ComfyNode):
    """MODEL, CONDITIONING, LATENT of a picture → its attribution, without generating anything."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        planned = {one.id: one for one in CaptureAttention.define_schema().inputs}
        return io.Schema(
            node_id="I2AM_Probe",
            display_name="Probe a Picture",
            category="I2AM",
            description="Shows how the model would use its references to make a picture that "
            "already exists: one made last week, or elsewhere. Noise is added to the picture, and "
            "the model looks at it once at each noise level. Nothing is generated.",
            search_aliases=["attribution", "attention map", "finished picture", "probe", "I2AM"],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to ask. Capture Attention is not needed, and does not "
                    "record this.",
                ),
                io.Conditioning.Input(
                    "positive", tooltip="The prompt and the references, as for a sampler."
                ),
                io.Latent.Input(
                    "latent_image",
                    tooltip="The picture to probe, encoded by the VAE of the model. Each picture "
                    "of a batch is probed.",
                ),
                io.Int.Input(
                    "levels",
                    default=LEVELS,
                    optional=True,
                    min=1,
                    max=MOST_LEVELS,
                    tooltip="How many noise levels to look at, spread evenly over the schedule. "
                    "Each takes as long as one step of a sampler with cfg 1.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    optional=True,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="The noise that is added. The seed the picture was made with, if you "
                    "know it, comes closest to its own run; any other will do.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=KSampler.SCHEDULERS,
                    default="simple",
                    optional=True,
                    advanced=True,
                    tooltip="Where the noise levels lie, as in a sampler. Choose the one the "
                    "picture was made with, if you know it.",
                ),
                *(planned[name] for name in _PLANNED),
                *picture_inputs(),
            ],
            outputs=[
                AttributionSocket.Output(
                    display_name="attribution", tooltip="What was recorded, for the other nodes."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="What was recorded, at which noise levels, and how much of the model's "
                    "attention went to the text, the picture itself and each reference.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, points: str | None = "", reference_points: str | None = ""
    ) -> bool | str:
        return CaptureAttention.validate_inputs(points, reference_points)

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        positive: list[Any],
        latent_image: dict[str, Any],
        levels: int = LEVELS,
        seed: int = 0,
        scheduler: str = "simple",
        image: Tensor | None = None,
        references: dict[str, Tensor] | None = None,
        mask: Tensor | None = None,
        reference_fit: str = ReferenceFit.AUTO.value,
        vae: Any = None,
        **planned: Any,
    ) -> io.NodeOutput:
        node = str(cls.hidden.unique_id)
        given = GivenPictures(image, references, mask, reference_fit, vae)
        with SupportReport(node, type(model.model).__name__) as support:
            plan = make_plan(**planned)
            support.record = probe(model, positive, latent_image, plan, levels, seed, scheduler)
            record = _readable(support.record)
            upstream = Upstream(cls.hidden.prompt or {}, node, ("model", "positive"))
            attribution, notes = attribution_of(record, latent_image, given, upstream)
        text = "\n".join((recording_report(record), *notes))
        shown = {"i2am": [recording_summary(record)], "i2am_support": [support.text()]}
        return io.NodeOutput(attribution, text, ui=shown)


def probe(
    model: ModelPatcher,
    positive: list[Any],
    latent_image: dict[str, Any],
    plan: Plan,
    levels: int = LEVELS,
    seed: int = 0,
    scheduler: str = "simple",
) -> Recording | Refusal | None:
    """What was recorded at the noise levels of a picture, or why nothing was.

    Raises I2AMError for a model that is not read and for a latent that it cannot be given.
    """
    taken: list[Recording | Refusal] = []
    watched = arm(model, plan, take=taken.append)
    picture: Picture = picture_of(model, latent_image, seed)
    sigmas = noise_levels(model, scheduler, levels)
    evaluate(watched, positive, picture, sigmas, seed, prepare_callback(model, len(sigmas) - 1))
    return taken[0] if taken else None


def _readable(record: Recording | Refusal | None) -> Recording:
    """Raises I2AMError with the reason if there is no recording."""
    if isinstance(record, Recording):
        return record
    raise I2AMError(
        record.reason
        if record is not None
        else "Nothing was recorded: another node samples with this model in its own way. Take "
        "nodes that change how this model is sampled out one by one to find it."
    )
