"""Taps the attention of IP-Adapters, which no attention override sees.

The pack ComfyUI_IPAdapter_plus, and others built on its class, replace cross-attention by an object
that attends to the text and then calls its adapters: functions that call `optimized_attention`
without options. For one run, each such object is exchanged for a function. It runs a copy of the
object whose adapters see a tapped `optimized_attention`. The object, its module and its adapters
are never touched, so nothing has to be put back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ...i2am.errors import LayoutMismatch
from ...i2am.tokens.architectures import Adapter

_ATTENTION = "optimized_attention"
Patch = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]


@dataclass(frozen=True)
class AdapterCall:
    """What one adapter did in one call of cross-attention.

    attention: keys, values and output of each attention it ran, as `optimized_attention` has them.
    output: what the adapter returned, its weight and mask applied.
    """

    attention: list[tuple[Tensor, Tensor, Tensor]]
    output: Any

    def keys_and_values(self, adapter: Adapter, batch: int) -> tuple[Tensor, Tensor]:
        """Both (batch, pictures × tokens, width): all of its pictures in one sequence."""
        if len(self.attention) != 1:
            raise LayoutMismatch(f"an IP-Adapter attended {len(self.attention)} times in one call")
        keys, values, _ = self.attention[0]
        if keys.shape[:2] != (batch * adapter.images, adapter.tokens):
            raise LayoutMismatch(
                f"an IP-Adapter of {adapter.images}×{adapter.tokens} tokens attended to "
                f"{tuple(keys.shape[:2])} for a batch of {batch}"
            )
        one_sequence = "(b pictures) tokens width -> b (pictures tokens) width"
        return rearrange(keys, one_sequence, b=batch), rearrange(values, one_sequence, b=batch)

    @property
    def weight(self) -> Tensor:
        """The factor between its attention and its output at each query: (batch, queries)."""
        attended = self.attention[0][2].float()
        product = (attended * self.output.float()).sum(-1) / attended.square().sum(-1)
        return product.abs().nan_to_num(0.0)


def adapters_of(patch: Any) -> tuple[Adapter, ...]:
    """The adapters of a patch of cross-attention, in order; none if the patch is something else."""
    callbacks, settings = getattr(patch, "callback", None), getattr(patch, "kwargs", None)
    if not isinstance(callbacks, list) or not isinstance(settings, list):
        return ()
    adapters: list[Adapter] = []
    for callback, setting in zip(callbacks, settings, strict=True):
        tokens = setting.get("cond") if isinstance(setting, dict) else None
        attends = isinstance(callback, FunctionType) and _ATTENTION in callback.__globals__
        if not attends or not isinstance(tokens, Tensor) or tokens.ndim != 3:
            return ()
        # Unfolded, each item of the batch has a picture of its own.
        images = 1 if setting.get("unfold_batch") else tokens.shape[0]
        adapters.append(Adapter(images, tokens.shape[1]))
    return tuple(adapters)


def tapped_patch(
    patch: Any,
    is_wanted: Callable[[dict[str, Any]], bool],
    record: Callable[[Tensor, Tensor, Tensor, dict[str, Any], dict[int, AdapterCall]], None],
) -> Patch:
    """What to put in the place of a patch with adapters; its output is the same to the last bit.

    is_wanted: whether to tap a call with these options. record: is given the queries, the text's
    keys and values as the patch is, the options, and what each adapter that ran did. It may not
    raise.
    """
    _tapped_copy(patch, {})  # a patch that cannot be copied must fail here, not while sampling

    def run(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        if not is_wanted(options):
            return patch(q, k, v, options)
        observed: dict[int, AdapterCall] = {}
        output = _tapped_copy(patch, observed)(q, k, v, options)
        record(q, k, v, options, observed)
        return output

    return run


def _tapped_copy(patch: Any, observed: dict[int, AdapterCall]) -> Patch:
    """A copy of a patch that notes in `observed` what each of its adapters does."""
    tapped = copy.copy(patch)
    tapped.callback = [
        _tapped_adapter(adapter, number, observed) for number, adapter in enumerate(patch.callback)
    ]
    return tapped


def _tapped_adapter(
    adapter: FunctionType, number: int, observed: dict[int, AdapterCall]
) -> Callable[..., Any]:
    """The same function, but the name `optimized_attention` in it means a tapped attention."""
    attention = adapter.__globals__[_ATTENTION]
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def tapped_attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output = attention(q, k, v, *args, **kwargs)
        calls.append((k, v, output))
        return output

    tapped = FunctionType(
        adapter.__code__,
        adapter.__globals__ | {_ATTENTION: tapped_attention},
        adapter.__name__,
        adapter.__defaults__,
        adapter.__closure__,
    )
    tapped.__kwdefaults__ = adapter.__kwdefaults__

    def run(*args: Any, **kwargs: Any) -> Any:
        output = tapped(*args, **kwargs)
        if calls:
            observed[number] = AdapterCall(calls, output)
        return output

    return run


def keys_values_weights(
    text: tuple[Tensor, Tensor],
    adapters: tuple[Adapter, ...],
    observed: dict[int, AdapterCall],
    queries: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values (batch, all tokens, width), weights (batch, softmaxes, queries), the text's
    first.

    text: its keys and values, (batch, tokens, width). An adapter that is off in this call has
    weight zero.
    """
    (first, _), (batch, _, width) = text, text[0].shape
    keys, values = [text[0]], [text[1]]
    weights = [first.new_ones(batch, queries, dtype=torch.float32)]
    for number, adapter in enumerate(adapters):
        call = observed.get(number)
        if call is None:
            own = (first.new_zeros(batch, adapter.images * adapter.tokens, width),) * 2
            weights.append(torch.zeros_like(weights[0]))
        else:
            own = call.keys_and_values(adapter, batch)
            weights.append(call.weight)
        keys.append(own[0].to(first.dtype))
        values.append(own[1].to(first.dtype))
    return torch.cat(keys, 1), torch.cat(values, 1), torch.stack(weights, 1)
