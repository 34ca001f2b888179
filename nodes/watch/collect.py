"""Collect Attribution: LATENT → the recording of the run that made it, with its pictures."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...i2am.display import recording_report, recording_summary
from ...i2am.recording import ReferenceFit
from ..sockets import AttributionSocket
from .capture import upstream_plans
from .found import find_run
from .pictures import GivenPictures, attribution_of, picture_inputs
from .support import SupportReport
from .upstream import Upstream


class CollectAttribution(io.ComfyNode):
    """LATENT → the recording of the run that made it, with the pictures to draw on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
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
                *picture_inputs(),
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
            own = {name: found.own(each) for name, each in (references or {}).items()}
            given = GivenPictures(found.own(image), own, found.own(mask), reference_fit, vae)
            attribution, notes = attribution_of(record, samples, given, upstream)
        text = "\n".join((recording_report(record) + found.text(), *notes))
        shown = {"i2am": [recording_summary(record)], "i2am_support": [support.text()]}
        return io.NodeOutput(attribution, samples, text, ui=shown)
