"""Collect Attribution: LATENT → the recording of the run that made it, with its pictures."""

from __future__ import annotations

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
    fits_reference,
    fits_results,
)
from ...i2am.scores import fitting_mask
from ..sockets import AttributionSocket
from .capture import upstream_plans
from .found import find_run
from .support import SupportReport

_REFERENCES = [f"reference_{number}" for number in range(1, 9)]


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
        with SupportReport(node) as support:
            plans = upstream_plans(cls.hidden.prompt or {}, node)
            found = find_run(samples["samples"], plans)
            support.record = found.record
            record = found.readable()
            pictures = {name: found.own(each) for name, each in (references or {}).items()}
            given = _reference_pictures(pictures, record)
            result = _result_picture(found.own(image), record)
            if record.header.plan.within and result is not None:
                given = (result,)
            attribution = Attribution(record, result, given)
            if mask is not None:
                size = attribution.size(Direction.REFERENCE_TO_GENERATED, 0)
                batch = record.header.run.batch
                mask = fitting_mask(found.own(mask), batch, size, "mask over the result")
                attribution = replace(attribution, mask=mask)
            else:
                attribution = replace(
                    attribution, mask=_sampled_mask(samples, attribution), mask_sampled=True
                )
        text = recording_report(record) + found.text()
        if attribution.mask is not None:
            whose = "the inpainting mask it was sampled with" if mask is None else "connected here"
            text += f"\nMask over the result: {whose}"
        shown = {"i2am": [recording_summary(record)], "i2am_support": [support.text()]}
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
