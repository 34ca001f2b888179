"""Trace IP-Adapter Tokens: from the tokens of a resampler back to the patches it attended to."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from einops import rearrange
from torch import Tensor

from ...i2am.errors import I2AMError
from ...i2am.maps import attention_rollout, trace_reference
from ...i2am.recording import Attribution, Recording
from ...i2am.tokens import ADAPTER_TOKENS, Grid, Picture
from ..host.ip_adapter import adapters_of
from ..inputs import REFERENCE
from ..sockets import AttributionSocket

_SAME = 0.01  # of the tokens' size: runs of one projector differ at most by half precision
_TRACED = "IP-Adapter image, by rollout through its resampler"


class TraceAdapterTokens(io.ComfyNode):
    """ATTRIBUTION with IP-Adapter tokens that have no places → one with maps over the reference."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_TraceAdapter",
            display_name="Trace IP-Adapter Tokens",
            category="I2AM",
            description="IP-Adapter Plus gives the model sixteen tokens, each of which describes "
            "the whole picture. This node traces them back to the places of the picture they were "
            "made of, so that there are maps over the reference, too.",
            search_aliases=["ip-adapter", "plus", "resampler", "rollout", "reference", "I2AM"],
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                io.Model.Input(
                    "model",
                    tooltip="The model with the IP-Adapter applied, as Capture Attention was "
                    "given it. Only its adapter is read.",
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    tooltip="What CLIP vision saw of the reference. It is checked: the adapter "
                    "must make its own tokens of it.",
                ),
                REFERENCE,
            ],
            outputs=[
                AttributionSocket.Output(
                    display_name="attribution",
                    tooltip="The same recording, with maps over this reference.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        attribution: Attribution,
        model: ModelPatcher,
        clip_vision_output: Any,
        reference: int = 1,
    ) -> io.NodeOutput:
        recording = attribution.recording
        projector, tokens = _projector_and_tokens(model, recording, reference)
        made, owed = _project(projector, clip_vision_output["penultimate_hidden_states"])
        places = owed[..., 1:]  # without the first, CLS, which is of the whole picture
        side = math.isqrt(places.shape[2])
        if side * side != places.shape[2]:
            raise I2AMError(
                f"This CLIP vision output has {places.shape[2] + 1} tokens, which are no square of "
                "patches after one for the whole picture. Use the model the IP-Adapter is for."
            )
        picture = Picture(Grid(side, side), (0, 0), _TRACED)
        chosen = places[_same(made, tokens)]
        if len(chosen) > 1:  # one for each batch item; the adapter repeats the last one
            batch = recording.header.run.batch
            chosen = chosen[[min(item, len(chosen) - 1) for item in range(batch)]]
        found = trace_reference(recording, reference - 1, chosen, picture)
        return io.NodeOutput(replace(attribution, recording=found))


def _same(made: Tensor, tokens: Tensor) -> list[int]:
    """For each item of `tokens`, the item of `made` that is the same; raises I2AMError if none is.

    Both are (pictures, tokens, width).
    """
    tokens = tokens.detach().to(made)
    away = (made[None] - tokens[:, None]).abs().amax((2, 3)) / tokens.abs().amax()
    nearest = away.min(1)
    worst = float(nearest.values.max())
    if worst > _SAME:
        raise I2AMError(
            "From this CLIP vision output the IP-Adapter makes other tokens than those it was used "
            f"with: they differ by {worst:.0%} of their size. Encode the same picture with the "
            "same CLIP vision model and the same crop. Pictures that were combined before the "
            "adapter cannot be traced."
        )
    return nearest.indices.tolist()


def _projector_and_tokens(
    model: ModelPatcher, recording: Recording, reference: int
) -> tuple[Any, Tensor]:
    """The resampler that made a reference's tokens, and the tokens: (1 or batch, tokens, width)."""
    pictures = recording.header.references
    if reference > len(pictures):
        raise I2AMError(
            f"Reference {reference} does not exist: the model was given {len(pictures)}. "
            f"Choose 1 to {len(pictures)}."
        )
    if pictures[reference - 1].kind != ADAPTER_TOKENS:
        raise I2AMError(
            f"Reference {reference} has no tokens to trace: it is given by "
            f"{pictures[reference - 1].kind}. Choose one given by an IP-Adapter."
        )
    patches = model.model_options.get("transformer_options", {}).get("patches_replace", {})
    patch = next(filter(adapters_of, patches.get("attn2", {}).values()), None)
    adapters = () if patch is None else adapters_of(patch)
    number = reference - 1 - (len(pictures) - sum(adapter.images for adapter in adapters))
    for adapter, settings in zip(adapters, getattr(patch, "kwargs", ()), strict=True):
        if 0 <= number < adapter.images:
            projector = getattr(settings.get("ipadapter"), "image_proj_model", None)
            if not _is_resampler(projector):
                raise I2AMError(
                    f"The IP-Adapter of reference {reference} has no resampler, so its "
                    f"{adapter.tokens} tokens cannot be traced to places. IP-Adapter Plus has one."
                )
            tokens: Tensor = settings["cond"]
            mine = len(tokens) if settings.get("unfold_batch") else 1
            return projector, tokens[number : number + mine]
        number -= adapter.images
    raise I2AMError(
        f"This model has no IP-Adapter that could have given reference {reference}. Connect the "
        "model that Capture Attention was given."
    )


def _looks(projector: Any) -> list[Any]:
    """The attention modules of a resampler's layers, first to last."""
    return [pair[0] for pair in getattr(projector, "layers", ())]


def _is_resampler(projector: Any) -> bool:
    parts = ("norm1", "norm2", "to_q", "to_kv", "heads")
    looks = _looks(projector)
    return bool(looks) and all(hasattr(look, part) for look in looks for part in parts)


@torch.inference_mode()
def _project(projector: Any, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Run a resampler again → its tokens (pictures, tokens, width), and what each owes.

    The second is (pictures, tokens, CLIP tokens), as from `attention_rollout`.
    """
    layers: list[Tensor] = []

    def listen(look: Any, given: tuple[Tensor, Tensor], _: Tensor) -> None:
        patches, tokens = look.norm1(given[0]), look.norm2(given[1])
        q = look.to_q(tokens)
        k = look.to_kv(torch.cat((patches, tokens), -2)).chunk(2, -1)[0]
        q, k = (rearrange(x, "b n (h d) -> b h n d", h=look.heads).float() for x in (q, k))
        layers.append((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).cpu())

    weight = next(projector.parameters())
    with ExitStack() as listening:
        for look in _looks(projector):
            listening.callback(look.register_forward_hook(listen).remove)
        made: Tensor = projector(seen.to(weight))
    return made.float(), attention_rollout(layers)
