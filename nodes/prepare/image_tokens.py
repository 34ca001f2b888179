"""Image Tokens to Conditioning: the patches of a picture as tokens for cross-attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...i2am.errors import I2AMError
from ..host.model_facts import IMAGE_TOKENS_KEY

_HIDDEN = {"penultimate": "penultimate_hidden_states", "last": "last_hidden_state"}


class ImageTokensToConditioning(io.ComfyNode):
    """CLIP_VISION_OUTPUT → CONDITIONING with image tokens that Capture Attention recognises."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_ImageTokens",
            display_name="Image Tokens to Conditioning",
            category="I2AM",
            description="Turns what a CLIP vision model saw into conditioning tokens, one for "
            "each patch of the picture, and marks them for Capture Attention. For models that "
            "read image tokens through cross-attention, such as Paint-by-Example.",
            search_aliases=["clip vision", "reference", "paint by example", "patch tokens", "I2AM"],
            inputs=[
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    tooltip="From CLIP Vision Encode. Each picture of a batch becomes a reference "
                    "of its own.",
                ),
                io.Combo.Input(
                    "hidden_state",
                    options=list(_HIDDEN),
                    default="penultimate",
                    optional=True,
                    tooltip="The layer of the vision model to take the tokens from. Choose the "
                    "one your model was trained with.",
                ),
                io.Combo.Input(
                    "cls_token",
                    options=["keep", "drop", "alone"],
                    default="keep",
                    optional=True,
                    tooltip="The token that sums up the whole picture (CLS). Keep puts it before "
                    "the patches, where it counts as text. Drop leaves it out. Alone keeps "
                    "nothing else, as the first Paint-by-Example does; there is then no map over "
                    "the reference.",
                ),
                io.Conditioning.Input(
                    "conditioning",
                    optional=True,
                    tooltip="The image tokens are appended to this. If left open, the model gets "
                    "the image tokens alone.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="The conditioning with the image tokens at its end, marked for "
                    "Capture Attention.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        clip_vision_output: Any,
        hidden_state: str = "penultimate",
        cls_token: str = "keep",
        conditioning: list[Any] | None = None,
    ) -> io.NodeOutput:
        seen: Tensor = clip_vision_output[_HIDDEN[hidden_state]]  # (pictures, tokens, width)
        before, height, width = _grid(seen.shape[1], _picture_size(clip_vision_output))
        if cls_token != "keep":
            if before == 0 and cls_token == "alone":
                raise I2AMError(
                    "This vision model has no CLS token to give alone. Choose keep or drop."
                )
            seen = seen[:, before:] if cls_token == "drop" else seen[:, :1]
            before, height, width = (0, height, width) if cls_token == "drop" else (0, 1, 1)
        places = [(picture * seen.shape[1] + before, height, width) for picture in range(len(seen))]
        tokens = seen.flatten(0, 1)[None]  # one picture after the other
        if conditioning is None:
            return io.NodeOutput([[tokens, {IMAGE_TOKENS_KEY: places}]])
        advice = (
            "Use a CLIP vision model of the conditioning's width, or leave the conditioning input "
            "open if the model reads image tokens alone."
        )
        return io.NodeOutput([appended(text, tokens, places, advice) for text in conditioning])


def appended(
    conditioning: list[Any], tokens: Tensor, places: list[tuple[int, int, int]], advice: str
) -> list[Any]:
    """One [text, options] of a conditioning, with image tokens (B, tokens, width) behind the text.

    places: start, rows and columns of each picture among the tokens. advice: what to do if their
    width is another one, which raises an I2AMError.
    """
    text, options = conditioning
    if text.shape[2] != tokens.shape[2]:
        raise I2AMError(
            f"The image tokens have a width of {tokens.shape[2]}, the conditioning's tokens one "
            f"of {text.shape[2]}, so one model cannot read both. {advice}"
        )
    marks = [(text.shape[1] + start, height, width) for start, height, width in places]
    marks = [*options.get(IMAGE_TOKENS_KEY, ()), *marks]
    batch = max(len(text), len(tokens))
    parts = [part.expand(batch, -1, -1) for part in (text, tokens.to(text))]
    return [torch.cat(parts, dim=1), options | {IMAGE_TOKENS_KEY: marks}]


def _picture_size(clip_vision_output: Any) -> tuple[int, int] | None:
    """(height, width) of the vision model's input; None in older ComfyUI, which does not say."""
    sizes = getattr(clip_vision_output, "image_sizes", None)
    return tuple(sizes[0][-2:]) if sizes else None


def _grid(tokens: int, size: tuple[int, int] | None) -> tuple[int, int, int]:
    """How many tokens come before the patches, and the patches' rows and columns.

    Patches are squares cut from a picture of that size. If the size is unknown, the picture is
    taken to be square, as it is for every vision model with a fixed size.
    """
    for before in (0, 1):
        side = math.isqrt(tokens - before)
        height, width = size or (side, side)
        for patch in range(1, min(height, width) + 1):
            if (height // patch) * (width // patch) == tokens - before:
                return before, height // patch, width // patch
    raise I2AMError(
        f"This vision model gave {tokens} tokens, which are no grid of patches, with or without a "
        "CLS token. Use another CLIP vision model."
    )
