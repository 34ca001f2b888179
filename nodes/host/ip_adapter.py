"""IP-Adapter's patches: listening to attention that no override is told of.

The pack ComfyUI_IPAdapter_plus, and others built on its class, replace cross-attention by an object
that attends to the text and then calls its adapters, functions that call `optimized_attention`
without options. For one run, each such object is exchanged for a function that runs a copy of it
whose adapters are given a listening attention. The object, its module and its adapters are never
touched, so nothing has to be put back.
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
class Heard:
    """What one adapter did in one call.

    calls: the keys it attended to and what that gave, as the attention was given them. added: what
    became of it in the end, weight and mask included.
    """

    calls: list[tuple[Tensor, Tensor]]
    added: Any

    def keys(self, adapter: Adapter, batch: int) -> Tensor:
        """(batch, pictures × tokens, width), as the attention folds them into one sequence."""
        if len(self.calls) != 1:
            raise LayoutMismatch(f"an IP-Adapter attended {len(self.calls)} times in one call")
        keys = self.calls[0][0]
        if keys.shape[:2] != (batch * adapter.images, adapter.tokens):
            raise LayoutMismatch(
                f"an IP-Adapter of {adapter.images}×{adapter.tokens} tokens attended to "
                f"{tuple(keys.shape[:2])} for a batch of {batch}"
            )
        return rearrange(keys, "(b pictures) tokens width -> b (pictures tokens) width", b=batch)

    @property
    def weight(self) -> Tensor:
        """What its attention was multiplied with at each place: (batch, queries)."""
        found = self.calls[0][1].float()
        product = (found * self.added.float()).sum(-1) / found.square().sum(-1)
        return product.abs().nan_to_num(0.0)


def adapters_of(patch: Any) -> tuple[Adapter, ...]:
    """The adapters of a patch of cross-attention, in order; none of any other patch."""
    callbacks, settings = getattr(patch, "callback", None), getattr(patch, "kwargs", None)
    if not isinstance(callbacks, list) or not isinstance(settings, list):
        return ()
    found: list[Adapter] = []
    for callback, setting in zip(callbacks, settings, strict=True):
        tokens = setting.get("cond") if isinstance(setting, dict) else None
        known = isinstance(callback, FunctionType) and _ATTENTION in callback.__globals__
        if not known or not isinstance(tokens, Tensor) or tokens.ndim != 3:
            return ()
        # Unfolded, each item of the batch has a picture of its own.
        images = 1 if setting.get("unfold_batch") else tokens.shape[0]
        found.append(Adapter(images, tokens.shape[1]))
    return tuple(found)


def listened(
    patch: Any,
    wanted: Callable[[dict[str, Any]], bool],
    tell: Callable[[Tensor, Tensor, dict[str, Any], dict[int, Heard]], None],
) -> Patch:
    """What to put in the place of a patch that has adapters; it gives the same to the last bit.

    wanted: whether to listen to a call with these options. tell: given the queries and the text's
    keys as the patch was given them, the options, and what each adapter that ran did; may not
    raise.
    """
    _listening_copy(patch, {})  # what cannot be copied must fail here, not while sampling

    def run(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        if not wanted(options):
            return patch(q, k, v, options)
        observed: dict[int, Heard] = {}
        output = _listening_copy(patch, observed)(q, k, v, options)
        tell(q, k, options, observed)
        return output

    return run


def _listening_copy(patch: Any, observed: dict[int, Heard]) -> Patch:
    listening = copy.copy(patch)
    listening.callback = [
        _listening(callback, number, observed) for number, callback in enumerate(patch.callback)
    ]
    return listening


def _listening(
    adapter: FunctionType, number: int, observed: dict[int, Heard]
) -> Callable[..., Any]:
    """The same function, in whose eyes attention is one that is listened to."""
    attention = adapter.__globals__[_ATTENTION]
    calls: list[tuple[Tensor, Tensor]] = []

    def listening_attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found = attention(q, k, v, *args, **kwargs)
        calls.append((k, found))
        return found

    same = FunctionType(
        adapter.__code__,
        adapter.__globals__ | {_ATTENTION: listening_attention},
        adapter.__name__,
        adapter.__defaults__,
        adapter.__closure__,
    )
    same.__kwdefaults__ = adapter.__kwdefaults__

    def run(*args: Any, **kwargs: Any) -> Any:
        added = same(*args, **kwargs)
        if calls:
            observed[number] = Heard(calls, added)
        return added

    return run


def keys_and_weights(
    text: Tensor, adapters: tuple[Adapter, ...], observed: dict[int, Heard], queries: int
) -> tuple[Tensor, Tensor]:
    """All keys side by side, the text's first, and the weight of each softmax at each place.

    text: (batch, tokens, width). An adapter that is off in this call weighs nothing.
    """
    batch, _, width = text.shape
    keys, weights = [text], [text.new_ones(batch, queries, dtype=torch.float32)]
    for number, adapter in enumerate(adapters):
        one = observed.get(number)
        if one is None:
            keys.append(text.new_zeros(batch, adapter.images * adapter.tokens, width))
            weights.append(torch.zeros_like(weights[0]))
        else:
            keys.append(one.keys(adapter, batch).to(text.dtype))
            weights.append(one.weight)
    return torch.cat(keys, 1), torch.stack(weights, 1)
