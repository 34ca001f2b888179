"""Mark Redux Tokens: mark the tokens that Apply Style Model added to a conditioning."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import normalize

from ...i2am.errors import I2AMError
from ..host.model_facts import IMAGE_TOKENS_KEY

_SAME_DIRECTION = 0.999  # cosine; half precision uses less than a tenth of the margin


class MarkReduxTokens(io.ComfyNode):
    """CONDITIONING from Apply Style Model → the same, with Redux tokens that Capture recognises."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_MarkRedux",
            display_name="Mark Redux Tokens",
            category="I2AM",
            description="Tells Capture Attention which tokens of a conditioning are the picture "
            "that Apply Style Model added. It finds them by their values, so text is never taken "
            "for a picture. The conditioning itself stays as it is.",
            search_aliases=["redux", "style model", "image tokens", "reference", "I2AM"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="From Apply Style Model, or any node after it."
                ),
                io.StyleModel.Input(
                    "style_model", tooltip="The style model that Apply Style Model was given."
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    tooltip="The CLIP vision output that Apply Style Model was given. Each "
                    "picture of a batch is a reference of its own. Maps over the reference lie "
                    "on what CLIP saw of the picture.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="The same tokens, with those of the picture marked for Capture "
                    "Attention.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, conditioning: list[Any], style_model: Any, clip_vision_output: Any
    ) -> io.NodeOutput:
        pictures: Tensor = style_model.get_cond(clip_vision_output)  # (pictures, tokens, width)
        side = math.isqrt(pictures.shape[1])
        if side * side != pictures.shape[1]:
            raise I2AMError(
                f"This style model makes {pictures.shape[1]} tokens of a picture, which are no "
                "square of patches, so there is no map over it. Use a Redux model."
            )
        return io.NodeOutput(
            [[text, _marked(text, options, pictures, side)] for text, options in conditioning]
        )


def _marked(text: Tensor, options: dict[str, Any], pictures: Tensor, side: int) -> dict[str, Any]:
    marks: list[tuple[int, int, int]] = list(options.get(IMAGE_TOKENS_KEY, ()))
    start = _find(text, pictures.flatten(0, 1), {mark[0] for mark in marks})
    if start is None:
        raise I2AMError(
            "This conditioning does not hold the tokens this style model makes of this picture. "
            "Connect the conditioning that comes out of Apply Style Model, and the very style "
            "model and CLIP vision output that went into it. A strength of 0 leaves nothing to "
            "find."
        )
    count = pictures.shape[1]
    marks += [(start + number * count, side, side) for number in range(len(pictures))]
    return options | {IMAGE_TOKENS_KEY: sorted(marks)}


def _find(text: Tensor, tokens: Tensor, taken: set[int]) -> int | None:
    """The last place where these tokens stand and are not marked yet; None if there is none.

    Directions are compared, since a strength changes the tokens' length.
    """
    if text.shape[2] != tokens.shape[1]:
        return None
    there = normalize(text[0].float(), dim=-1)
    wanted = normalize(tokens.to(text.device).float(), dim=-1)
    starts = (there[: max(0, len(there) - len(wanted) + 1)] @ wanted[0] > _SAME_DIRECTION).nonzero()
    for start in reversed(starts.flatten().tolist()):
        alike = (there[start : start + len(wanted)] * wanted).sum(-1)
        if start not in taken and bool((alike > _SAME_DIRECTION).all()):
            return start
    return None
