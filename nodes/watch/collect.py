"""Collect Attribution: LATENT → the recording of the run that made it, with its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate

from ...i2am.display import recording_report, recording_summary
from ...i2am.errors import I2AMError
from ...i2am.recording import (
    Attribution,
    Direction,
    Recording,
    ReferenceFit,
    fits_results,
)
from ...i2am.scores import fitting_mask
from ..sockets import AttributionSocket
from .capture import upstream_plans
from .found import find_run
from .reference_pictures import REFERENCES, References, fit_references, reference_pictures
from .support import SupportReport
from .upstream import Takers, Upstream


class CollectAttribution(io.ComfyNode):
    """LATENT → the recording of the run that made it, with the pictures to draw on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        references = io.Autogrow.TemplateNames(
            io.Image.Input(
                "reference",
                tooltip="A reference picture, in the order the model was given them. Maps over "
                "the reference are drawn on it.",
            ),
            names=REFERENCES,
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
                    tooltip="The finished picture. Maps over the result are drawn on it.",
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
                    tooltip="Where in the result the reference was meant to go; the scores use "
                    "it. If left open, the inpainting mask of the latent is used.",
                ),
                io.Combo.Input(
                    "reference_fit",
                    options=[fit.value for fit in ReferenceFit],
                    default=ReferenceFit.AUTO.value,
                    optional=True,
                    advanced=True,
                    tooltip="Which part of a connected reference the model saw, if its proportions "
                    "are not the model's. Auto takes the centre crop that vision encoders (CLIP "
                    "vision, Redux, IP-Adapter) make, and refuses where it cannot know. Whole "
                    "picture: all of it, stretched.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Decodes what is not connected: the result, and each reference that "
                    "the model was given as a latent, which is exactly what the model saw.",
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
        reference_fit: str = ReferenceFit.AUTO.value,
        vae: Any = None,
    ) -> io.NodeOutput:
        node = str(cls.hidden.unique_id)
        with SupportReport(node) as support:
            prompt = cls.hidden.prompt or {}
            plans, upstream = upstream_plans(prompt, node), Upstream(prompt, node)
            found = find_run(samples["samples"], plans)
            support.record = found.record
            record = found.readable(upstream.giver())
            decode = _decoder(vae)
            if image is None and decode is not None:
                image = decode(samples["samples"])
            result = _result_picture(found.own(image), record)
            pictures = {name: found.own(each) for name, each in (references or {}).items()}
            given = _references(pictures, record, ReferenceFit(reference_fit), upstream, decode)
            if record.header.plan.within and result is not None:
                given = References((result,), (None,))
            attribution = Attribution(record, result, given.pictures, wholes=given.wholes)
            if mask is not None:
                size = attribution.size(Direction.REFERENCE_TO_GENERATED, 0)
                batch = record.header.run.batch
                mask = fitting_mask(found.own(mask), batch, size, "mask over the result")
                attribution = replace(attribution, mask=mask)
            else:
                attribution = replace(
                    attribution, mask=_sampled_mask(samples, attribution), mask_sampled=True
                )
        text = "\n".join((recording_report(record) + found.text(), *given.notes))
        if attribution.mask is not None:
            whose = "the inpainting mask it was sampled with" if mask is None else "connected here"
            text += f"\nMask over the result: {whose}"
        shown = {"i2am": [recording_summary(record)], "i2am_support": [support.text()]}
        return io.NodeOutput(attribution, samples, text, ui=shown)


def _sampled_mask(samples: dict[str, Any], attribution: Attribution) -> Tensor | None:
    """The inpainting mask a latent was sampled with, over the result: (1 or batch, height, width).

    None if there is none, or if it is all black or all white. None for a video too: each of its
    frames may have a mask of its own.
    """
    header = attribution.recording.header
    mask = samples.get("noise_mask")
    if mask is None or header.generated.grid.frames > 1:
        return None
    mask = mask.reshape(-1, 1, *mask.shape[-2:]).float().cpu()
    if len(mask) not in (1, header.run.batch):  # repeated as the sampler does
        mask = mask.repeat(-(-header.run.batch // len(mask)), 1, 1, 1)[: header.run.batch]
    size = attribution.size(Direction.REFERENCE_TO_GENERATED, 0)
    if tuple(mask.shape[-2:]) != size:
        mask = interpolate(mask, size, mode="bilinear")
    inside = mask >= 0.5
    return mask[:, 0] if bool(inside.any()) and not bool(inside.all()) else None


def _result_picture(image: Tensor | None, record: Recording) -> Tensor | None:
    if image is None:
        return None
    batch, frames = record.header.run.batch, record.header.generated.grid.frames
    if not fits_results(image.shape[0], record.header):
        sampled = str(batch) if frames == 1 else f"{batch} × {frames} latent frames"
        raise I2AMError(
            f"The image input holds {image.shape[0]} pictures, but {sampled} were sampled in this "
            "run. Connect the decoded pictures of this very latent. For one picture of a batch, "
            "take it out of the latent too, with Latent From Batch, and decode that."
        )
    return image[..., :3]


def _references(
    given: dict[str, Tensor],
    record: Recording,
    fit: ReferenceFit,
    upstream: Upstream,
    decode: Callable[[Tensor], Tensor] | None,
) -> References:
    """The given pictures → fitted to what the model saw of each reference."""
    together = len(given) == 1 < len(record.header.references)  # one input holds all of them

    def takers(number: int) -> Takers:
        return upstream.takers(f"references.{REFERENCES[0 if together else number]}")

    pictures = reference_pictures(given, record)
    return fit_references(pictures, record, fit, takers, decode)


def _decoder(vae: Any) -> Callable[[Tensor], Tensor] | None:
    """A VAE → a function from a latent to its pictures, (pictures, height, width, 3).

    It does what VAE Decode does.
    """
    if vae is None:
        return None

    def decode(latent: Tensor) -> Tensor:
        try:
            pictures: Tensor = vae.decode(latent.float())
        except RuntimeError as error:
            raise I2AMError(
                f"The vae cannot decode this latent of {tuple(latent.shape)}: {error}. Connect the "
                "VAE that belongs to the model."
            ) from error
        return pictures.reshape(-1, *pictures.shape[-3:])[..., :3].float().cpu()

    return decode
