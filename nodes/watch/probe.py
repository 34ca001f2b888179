"""Probe a Picture: a picture that exists → how the model would use its references to make it."""

from __future__ import annotations

from dataclasses import dataclass
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
from ..host.noising import evaluate, noise_levels, picture_of
from ..sockets import AttributionSocket
from .capture import CaptureAttention, make_plan
from .pictures import GivenPictures, attribution_of, picture_inputs
from .support import SupportReport
from .upstream import Upstream

LEVELS = 4
MOST_LEVELS = 100
_PLANNED = (
    *("layers", "correspondence", "within", "points", "reference_points", "definitions", "words"),
)


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
                io.Float.Output(
                    display_name="fit",
                    is_output_list=True,
                    tooltip="How much of each picture the model, given these references, restores "
                    "from its noise: 1 is all of it. Compare it between references or prompts: "
                    "with those that made the picture it is highest.",
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
        cls,
        points: str | None = "",
        reference_points: str | None = "",
        references: dict[str, Any] | None = None,  # ComfyUI always gives inputs that can grow
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
            probed = probe(model, positive, latent_image, plan, levels, seed, scheduler)
            support.record = probed.record
            record = probed.readable()
            upstream = Upstream(cls.hidden.prompt or {}, node, ("model", "positive"))
            attribution, notes = attribution_of(record, latent_image, given, upstream)
        text = "\n".join((recording_report(record), *notes, *probed.fit_lines()))
        shown = {"i2am": [recording_summary(record)], "i2am_support": [support.text()]}
        return io.NodeOutput(attribution, probed.fits.mean(0).tolist(), text, ui=shown)


@dataclass(frozen=True)
class Probed:
    """What was recorded at the noise levels of a picture, or why nothing was.

    fits: how much of each picture the model's guess gets right at each level, (levels, batch).
    """

    record: Recording | Refusal | None
    fits: Tensor

    def readable(self) -> Recording:
        """The recording. Raises I2AMError with the reason if there is none."""
        if isinstance(self.record, Recording):
            return self.record
        if isinstance(self.record, Refusal):
            raise I2AMError(self.record.reason)
        raise I2AMError(
            "Nothing was recorded: another node took over how this model is sampled. Take such "
            "nodes out one by one to find it."
        )

    def fit_lines(self) -> list[str]:
        """A line of the report for each picture."""
        several = self.fits.shape[1] > 1
        return [
            f"Fit{f' of picture {number}' if several else ''}: {float(fits.mean()):.3f} "
            f"(noisiest level first: {', '.join(f'{fit:.3f}' for fit in fits.tolist())})"
            for number, fits in enumerate(self.fits.T, start=1)
        ]


def probe(
    model: ModelPatcher,
    positive: list[Any],
    latent_image: dict[str, Any],
    plan: Plan,
    levels: int = LEVELS,
    seed: int = 0,
    scheduler: str = "simple",
) -> Probed:
    """Evaluate a model on the pictures of a LATENT at some noise levels, recorded as planned.

    Raises I2AMError for a model that is not read and for a latent that it cannot be given.
    """
    taken: list[Recording | Refusal] = []
    watched = arm(model, plan, take=taken.append)
    picture = picture_of(model, latent_image, seed)
    sigmas = noise_levels(model, scheduler, levels)
    callback = prepare_callback(model, len(sigmas) - 1)
    fits = evaluate(watched, positive, picture, sigmas, seed, callback)
    return Probed(taken[0] if taken else None, fits)
