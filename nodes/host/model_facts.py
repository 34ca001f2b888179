"""ComfyUI's models, passes and attention calls → the plain numbers that architectures read."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
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

STEERING_KEY = "i2am_steering"  # attached to a model: its `Steer`s, in order
IMAGE_TOKENS_KEY = "i2am_image_tokens"  # in a conditioning: [(start, height, width), …]
ENCODING_VALUES = 16  # kept of each token of a text, to know it again
# A conditioning's text, as models are given it: of one encoder, or of one after the other. The
# last axes are tokens and values; before them there may be an axis for layers.
_TEXTS = ("c_crossattn", "clip_text", "encoder_hidden_states_llama3")
OVERRIDE = "optimized_attention_override"
ATTENTION_ARGUMENTS = (
    *("q", "k", "v", "heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape"),
)
# The options that say where in the network a call is, and those that architectures read.
_BLOCK_OPTIONS = ("block", "block_type", "block_index")
_CALL_OPTIONS = (*_BLOCK_OPTIONS, "activations_shape")


def architecture_of(model: ModelPatcher, words: bool = False) -> Architecture:
    """How to read a model, found by the classes of the model and its network.

    words: as in `find`. Raises I2AMError if no architecture reads them.
    """
    base = model.model
    classes = (*type(base).__mro__, *type(base.diffusion_model).__mro__)
    return find((cls.__name__ for cls in classes), words)


def is_compiled(model: ModelPatcher) -> bool:
    """Whether any part of a model was compiled by torch.compile."""
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
    """One pass of the model for `cond`, one of the guider's conditionings.

    x, context, options, kwargs: as APPLY_MODEL is given them.
    """
    text = cond["model_conds"].get("c_crossattn")
    tokens = 0 if context is None else context.shape[1]
    references = kwargs.get("ref_latents") or ()
    network = guider.model_patcher.model.diffusion_model
    return Forward(
        latent=(x.shape[-2], x.shape[-1]),
        frames=x.shape[2] if x.ndim == 5 else 1,
        references=tuple((r.shape[-2], r.shape[-1]) for r in references),
        patch=_patch(network),
        context=text.cond.shape[1] if text is not None else tokens,
        image_tokens=tuple(ImageTokens(*mark) for mark in cond.get(IMAGE_TOKENS_KEY, ())),
        shapes={name: _shape(value) for name, value in (cond | kwargs).items()},
        layers=layers,
        adapters=adapters,
        patches=tuple(
            type(patch).__name__ for patch in options.get("patches", {}).get("post_input", ())
        ),
        numbers=_numbers(network),
    )


def text_encoding(cond: dict[str, Any]) -> Tensor | None:
    """Some values of each token of a conditioning's text, as the model is given it.

    Float16, (1 or batch, tokens, values); None without a text.
    """
    return encoding_of([cond["model_conds"][n].cond for n in _TEXTS if n in cond["model_conds"]])


def encoding_of(texts: list[Tensor]) -> Tensor | None:
    """Texts of encoders, one after the other → as in `text_encoding`."""
    if not texts:
        return None
    tokens = [text if text.ndim == 3 else text[:, -1] for text in texts]
    return torch.cat([_some_values(text).detach().cpu().half() for text in tokens], 1)


def _some_values(text: Tensor) -> Tensor:
    """Some of each token's values, spread evenly: encoders may stand beside each other in them."""
    count = min(ENCODING_VALUES, text.shape[-1])
    places = torch.linspace(0, text.shape[-1] - 1, count).round().long()
    return text[..., places.to(text.device)]


def next_call(given: dict[str, Any], calls: Counter[tuple[Any, ...]]) -> Call:
    """The next attention call of a pass. calls: those before it, by block; this one is added.

    given: the call's arguments by name.
    """
    # (batch, tokens, heads × dim) or, with `skip_reshape`, (batch, heads, tokens, dim)
    options, counts = given["transformer_options"], (given["q"].shape[-2], given["k"].shape[-2])
    site = (*(options.get(name) for name in _BLOCK_OPTIONS), *counts)
    call = call_of(options, *counts, nth=calls[site])
    calls[site] += 1
    return call


def call_of(options: dict[str, Any], queries: int, keys: int, **more: Any) -> Call:
    """An attention call with these transformer options. more: other fields of `Call`."""
    kept = {name: options[name] for name in _CALL_OPTIONS if name in options}
    return Call(kept, queries, keys, **more)


def split_heads(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """A call's q and k as (batch, heads, tokens, dim); k may have fewer heads."""
    q, k = given["q"], given["k"]
    if given.get("skip_reshape"):
        return q, k
    dim = q.shape[-1] // given["heads"]
    return q.unflatten(-1, (-1, dim)).transpose(1, 2), k.unflatten(-1, (-1, dim)).transpose(1, 2)


def split_values(given: dict[str, Any], heads: int) -> Tensor:
    """A call's v as (batch, heads, tokens, dim). heads: as many as its k has."""
    v = given["v"]
    return v if given.get("skip_reshape") else v.unflatten(-1, (heads, -1)).transpose(1, 2)


def _patch(network: Any) -> int:
    """The side of a token in latent pixels: the last number if a network also cuts up time."""
    patch = getattr(network, "patch_size", getattr(network, "patch", 1))
    return patch if isinstance(patch, int) else patch[-1]


def _numbers(network: Module) -> dict[str, int]:
    """The integer attributes of a network, and the number of blocks in each of its parts."""
    numbers = {name: value for name, value in vars(network).items() if isinstance(value, int)}
    parts = network.named_children()
    return numbers | {n: len(m) if isinstance(m, ModuleList) else 1 for n, m in parts}


def _shape(value: Any) -> tuple[Any, ...]:
    """The shape of a tensor, the shapes of a list of tensors, () for anything else."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return tuple(_shape(item) for item in value) if isinstance(value, (list, tuple)) else ()
