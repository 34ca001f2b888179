"""What the host tells of a model, its passes and its attention calls, in plain numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor
from torch.nn import Module, ModuleList

from ...i2am.tokens.architectures import (
    Adapter,
    Architecture,
    Call,
    Forward,
    ImageTokens,
    Layer,
    find,
)

STEERING_KEY = "i2am_steering"  # an attachment of the model: what steers its attention, in order
IMAGE_TOKENS_KEY = "i2am_image_tokens"  # in a conditioning: [(start, height, width), …]
OVERRIDE = "optimized_attention_override"
ATTENTION_ARGUMENTS = (
    *("q", "k", "v", "heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape"),
)
# Where in the network a call is, as the host's options name it; and what else they say of it.
_BLOCK = ("block", "block_type", "block_index")
_TOLD = (*_BLOCK, "activations_shape")


def architecture_of(model: ModelPatcher) -> Architecture:
    """How to read a model, by the classes of it and its network. Raises I2AMError if it cannot."""
    base = model.model
    classes = (*type(base).__mro__, *type(base.diffusion_model).__mro__)
    return find(cls.__name__ for cls in classes)


def compiled(model: ModelPatcher) -> bool:
    """Whether any part of a model runs as torch.compile has made it."""
    if model.get_wrappers(WrappersMP.APPLY_MODEL, "torch.compile"):  # as ComfyUI's own node does
        return True
    parts = (model.model.diffusion_model, *model.object_patches.values())
    modules = (module for part in parts if isinstance(part, Module) for module in part.modules())
    return any(
        hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in modules
    )


def forward_of(
    guider: Any,
    cond: dict[str, Any],
    x: Tensor,
    context: Tensor | None,
    options: dict[str, Any],
    kwargs: dict[str, Any],
    layers: tuple[Layer, ...],
    adapters: tuple[Adapter, ...] = (),
) -> Forward:
    """One pass of the model for one of the guider's conditionings, in plain numbers.

    x, context, options, kwargs: as APPLY_MODEL is given them.
    """
    own = cond["model_conds"].get("c_crossattn")
    tokens = 0 if context is None else context.shape[1]
    references = kwargs.get("ref_latents") or ()
    network = guider.model_patcher.model.diffusion_model
    return Forward(
        latent=(x.shape[-2], x.shape[-1]),
        frames=x.shape[2] if x.ndim == 5 else 1,
        references=tuple((r.shape[-2], r.shape[-1]) for r in references),
        patch=_patch(network),
        context=own.cond.shape[1] if own is not None else tokens,
        image_tokens=tuple(ImageTokens(*m) for m in cond.get(IMAGE_TOKENS_KEY, ())),
        shapes={name: _shape(value) for name, value in (cond | kwargs).items()},
        layers=layers,
        adapters=adapters,
        patches=tuple(
            type(patch).__name__ for patch in options.get("patches", {}).get("post_input", ())
        ),
        numbers=_numbers(network),
    )


def next_call(given: dict[str, Any], q: Tensor, k: Tensor, calls: Counter[tuple[Any, ...]]) -> Call:
    """An attention call of a pass in plain numbers, and counted among those before it."""
    options, counts = given["transformer_options"], (q.shape[2], k.shape[2])
    site = (*(options.get(name) for name in _BLOCK), *counts)
    call = call_of(options, *counts, nth=calls[site])
    calls[site] += 1
    return call


def call_of(options: dict[str, Any], queries: int, keys: int, **more: Any) -> Call:
    """An attention call in plain numbers; more: of `Call`'s."""
    return Call({n: options[n] for n in _TOLD if n in options}, queries, keys, **more)


def _patch(network: Any) -> int:
    """The side of a token; networks that also see time name it last."""
    patch = getattr(network, "patch_size", getattr(network, "patch", 1))
    return patch if isinstance(patch, int) else patch[-1]


def _numbers(network: Module) -> dict[str, int]:
    """The whole numbers a network keeps, and how many blocks each of its parts has."""
    numbers = {name: value for name, value in vars(network).items() if isinstance(value, int)}
    parts = network.named_children()
    return numbers | {n: len(m) if isinstance(m, ModuleList) else 1 for n, m in parts}


def _shape(value: Any) -> tuple[Any, ...]:
    """The shape of a tensor, those of a list of tensors, nothing of anything else."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return tuple(_shape(item) for item in value) if isinstance(value, (list, tuple)) else ()


def split_heads(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """q and k as (batch, heads, tokens, dim); k may have fewer heads."""
    q, k = given["q"], given["k"]
    if given.get("skip_reshape"):
        return q, k
    dim = q.shape[-1] // given["heads"]
    return q.unflatten(-1, (-1, dim)).transpose(1, 2), k.unflatten(-1, (-1, dim)).transpose(1, 2)
