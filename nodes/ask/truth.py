"""Does the Map Tell the Truth? Mute the part it points at or an equal part elsewhere; compare."""

from __future__ import annotations

import math

import torch
from comfy_api.latest import io
from torch import Tensor

from ...i2am.errors import I2AMError
from ...i2am.maps import attribution_map
from ...i2am.recording import Attribution, Direction
from ...i2am.scores import mean_change, random_elsewhere, top_fraction
from ..inputs import AUTO, REFERENCE, choose_definition
from ..sockets import AttributionSocket


class TopPart(io.ComfyNode):
    """ATTRIBUTION → the part of a reference that was used most, and an equal part elsewhere."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_TopPart",
            display_name="Top Part of the Reference",
            category="I2AM",
            description="The part of the reference that the map says was used most, and a part of "
            "the same shape and size at a random other place. Mute each with Reference Strength, "
            "and give the three results to Does the Map Tell the Truth?",
            search_aliases=["truth", "test", "ablation", "occlusion", "I2AM"],
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                REFERENCE,
                io.Float.Input(
                    "percent",
                    default=20.0,
                    optional=True,
                    min=1.0,
                    max=50.0,
                    step=1.0,
                    tooltip="How much of the reference each part takes, in percent.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    optional=True,
                    min=0,
                    max=2**32 - 1,
                    tooltip="Where the random part lies. Another seed gives another place.",
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="White on the part of the result you want to know about: the top part "
                    "is then what this region looked at. If left open, all of the result.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="top_part",
                    tooltip="White on what was used most, over the reference.",
                ),
                io.Mask.Output(
                    display_name="random_part",
                    tooltip="White on a part of the same shape elsewhere, over the reference.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        attribution: Attribution,
        reference: int = 1,
        percent: float = 20.0,
        seed: int = 0,
        region: Tensor | None = None,
    ) -> io.NodeOutput:
        direction = Direction.GENERATED_TO_REFERENCE
        maps = attribution_map(
            attribution.recording,
            choose_definition(attribution, AUTO),
            direction,
            reference=reference - 1,
            within=region,
        )
        top = top_fraction(maps.values.mean((0, 1)), percent / 100)
        size = attribution.size(direction, reference - 1)
        cells = torch.stack((top, random_elsewhere(top, seed)))
        # Each cell is one block of the mask, so that a token is either inside or outside.
        down = (torch.arange(size[0]) * maps.grid.covered[0] / size[0]).long()
        across = (torch.arange(size[1]) * maps.grid.covered[1] / size[1]).long()
        masks = cells.float()[:, down][:, :, across]
        return io.NodeOutput(masks[:1], masks[1:])


class TruthTest(io.ComfyNode):
    """Three results → how much more the part the map points at mattered than the other part."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_TruthTest",
            display_name="Does the Map Tell the Truth?",
            category="I2AM",
            description="Tests a map on your own picture: how much the result changes without the "
            "part of the reference that the map points at, compared with an equal part elsewhere.",
            search_aliases=["truth", "faithfulness", "ablation", "occlusion", "I2AM"],
            is_output_node=True,
            inputs=[
                io.Image.Input("plain", tooltip="The result as it is."),
                io.Image.Input(
                    "top_muted",
                    tooltip="The result sampled with the same seed and settings and "
                    "Reference Strength 0 on top_part.",
                ),
                io.Image.Input(
                    "random_muted",
                    tooltip="The result sampled with the same seed and settings "
                    "and Reference Strength 0 on random_part.",
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="White on the part of the result to compare. If left open, all of it.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="ratio",
                    tooltip="The change without the top part, divided by the change without the "
                    "random part. Well above 1: the map tells the truth. About 1: it tells "
                    "nothing.",
                ),
                io.String.Output(display_name="report", tooltip="The two changes and their ratio."),
            ],
        )

    @classmethod
    def execute(
        cls,
        plain: Tensor,
        top_muted: Tensor,
        random_muted: Tensor,
        region: Tensor | None = None,
    ) -> io.NodeOutput:
        for name, other in (("top_muted", top_muted), ("random_muted", random_muted)):
            if other.shape != plain.shape:
                raise I2AMError(
                    f"{name} is {tuple(other.shape)}, but plain is {tuple(plain.shape)}. Sample "
                    "all three with the same size, batch and seed."
                )
        top, random = (mean_change(plain, other, region) for other in (top_muted, random_muted))
        if top == random == 0:
            raise I2AMError(
                "Nothing changed in either result. Check that their samplers use the model that "
                "comes out of Reference Strength, with strength 0."
            )
        ratio = top / random if random > 0 else math.inf
        told = "tells the truth" if ratio >= 2 else "tells little" if ratio >= 1.2 else "misleads"
        text = (
            f"Without the part the map points at the result changes by {top:.2%}, without an equal "
            f"part elsewhere by {random:.2%} (mean absolute difference of full range): "
            f"{ratio:.2g} ×. Here the map {told}."
        )
        return io.NodeOutput(ratio, text, ui={"i2am_text": [text]})
