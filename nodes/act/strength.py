"""Reference Strength: how much a model attends to a reference, turned up or down."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...i2am.attention import Steer
from ...i2am.errors import I2AMError
from ...i2am.tokens import parse_ranges
from ..host.steering import steered
from ..inputs import REFERENCE

MAX_STRENGTH = 100.0


class ReferenceStrength(io.ComfyNode):
    """MODEL → MODEL whose attention to a reference is turned up or down."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Steer",
            display_name="Reference Strength",
            category="I2AM",
            description="Turns a reference up or down while the picture is made: all of it or a "
            "part, for the whole result or a part. Put it before the sampler, beside Capture "
            "Attention. For several references, use several in a row.",
            search_aliases=["weight", "mute", "influence", "attention", "reference", "I2AM"],
            inputs=[
                io.Model.Input("model", tooltip="The model that goes into the sampler."),
                REFERENCE,
                io.Float.Input(
                    "strength",
                    default=1.0,
                    optional=True,
                    min=0.0,
                    max=MAX_STRENGTH,
                    step=0.05,
                    tooltip="How strongly the model weighs each place of the reference. 1 changes "
                    "nothing, 2 doubles it, 0 mutes it.",
                ),
                io.String.Input(
                    "steps",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="In which sampling steps, for example 0-9, last or 50%-100%. Each "
                    "sampler counts its own steps from 0. Leave empty for all.",
                ),
                io.Mask.Input(
                    "result_mask",
                    optional=True,
                    tooltip="White where in the result to turn the reference up or down. If left "
                    "open, everywhere.",
                ),
                io.Mask.Input(
                    "reference_mask",
                    optional=True,
                    tooltip="White on the part of the reference to turn up or down. It lies over "
                    "what the model saw: crop it as the picture is cropped for the model. If left "
                    "open, all of it.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The same model, steered. Connect it to the sampler.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        reference: int = 1,
        strength: float = 1.0,
        steps: str = "",
        result_mask: Tensor | None = None,
        reference_mask: Tensor | None = None,
    ) -> io.NodeOutput:
        for name, mask in (("result_mask", result_mask), ("reference_mask", reference_mask)):
            if mask is not None and not bool((mask.flatten(1).amax(1) > 0).all()):
                raise I2AMError(
                    f"{name} is empty, so there is nothing to turn up or down. Paint it white "
                    "where you mean, or disconnect it to mean everything."
                )
        ranges = parse_ranges(steps, "steps")
        steer = Steer(reference - 1, strength, result_mask, reference_mask, ranges)
        clone = steered(model, steer)
        # At 1, the model itself: the result is then the same bit for bit.
        return io.NodeOutput(model if strength == 1 else clone)
