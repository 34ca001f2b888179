"""Blank Prompt: a conditioning for the demo model, which has no text encoder."""

from __future__ import annotations

import torch
from comfy_api.latest import io


class BlankPrompt(io.ComfyNode):
    """One zero token: what the demo model was trained with in place of a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_BlankPrompt",
            display_name="Blank Prompt (I2AM demo)",
            category="I2AM",
            description="An empty prompt for the I2AM demo model, which reads pictures only and "
            "has no text encoder. Other models need a real prompt.",
            search_aliases=["empty conditioning", "I2AM"],
            inputs=[],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="A conditioning of one blank token, for the I2AM demo model.",
                )
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        # Older releases ask every Flux conditioning for a pooled text, which this model ignores.
        return io.NodeOutput([[torch.zeros(1, 1, 16), {"pooled_output": torch.zeros(1, 1)}]])
