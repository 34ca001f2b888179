"""One attention call of the host → the parts of it that are recorded, tapped where possible."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor

from ...i2am.attention import (
    LogSumTap,
    ObservedSoftmax,
    SoftmaxSums,
    SoftmaxTap,
    can_tap,
    can_tap_log_sum,
)
from ...i2am.recording import Prompt, Recorder
from ...i2am.tokens import Region, TokenLayout
from ...i2am.tokens.architectures import Layer
from .ip_adapter import AdapterCall, keys_values_weights
from .model_facts import call_of, next_call, split_heads, split_values
from .passes import ModelPass

_HOST_ATTENTION = "comfy.ldm.modules.attention"  # where ComfyUI's own attention functions are
_FUSED = "attention_pytorch"  # the one of them that calls torch's scaled_dot_product_attention
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CallPart:
    """One conditioning's part of an attention call: `rows` of its batch, as the recorder takes it.

    sums: where a tap on the call's softmax adds up, if it is tapped. prompt, words_alone: as in
    `Recorder.add`.
    """

    rows: slice
    layer: Layer
    q: Tensor
    k: Tensor
    v: Tensor
    layout: TokenLayout
    mask: Tensor | None
    region: Region | None
    sums: SoftmaxSums | None
    prompt: Prompt | None
    words_alone: bool


class Tap(Enum):
    """What can be read of a call while the host computes it."""

    NOTHING = "nothing"
    SOFTMAX = "softmax"  # all of it, of functions that hold their logits
    LOG_SUM = "log-sum-exp"  # of each row, of torch's fused attention


def tap_for(func: Callable[..., Tensor], given: dict[str, Any]) -> Tap:
    """What to tap of a call that the host's own function computes, if that is worth it.

    Another pack's function may be compiled, and the compiler would take the tap into its code.
    """
    if getattr(func, "__module__", "") != _HOST_ATTENTION:
        return Tap.NOTHING
    try:
        q, k = split_heads(given)
        if can_tap(q, k):
            return Tap.SOFTMAX
        fused = getattr(func, "__name__", "") == _FUSED and can_tap_log_sum(q, k)
        return Tap.LOG_SUM if fused else Tap.NOTHING
    except Exception as error:
        _log.debug("I2AM: an attention call of unknown shapes", exc_info=error)
        return Tap.NOTHING


def parts_of(
    current: ModelPass, given: dict[str, Any], recorder: Recorder, tap: Tap
) -> list[CallPart]:
    """What is recorded of a call, for each conditioning. given: the call's arguments by name."""
    parts: list[CallPart] = []
    mask = given.get("mask")
    q, k = split_heads(given)
    v = split_values(given, k.shape[1])
    call = next_call(given, q, k, current.calls)
    for one in current.recorded:
        if not (one.has_references or recorder.plan.words):
            continue
        read = one.layouts.of(call)
        if read is None:
            continue
        layer, layout = read
        if not layout.references and not (recorder.plan.words and layout.has_prompt):
            continue
        keys = layout.key_count  # a context repeated to a common length is read once
        own_mask = mask
        if mask is not None:
            own_mask = mask[one.rows] if mask.ndim > 2 and mask.shape[0] > 1 else mask
            own_mask = own_mask[..., :keys]
        sums = None
        if tap is Tap.SOFTMAX and keys == k.shape[2]:
            sums = recorder.softmax_sums(layer, layout, one.region)
        own = q[one.rows], k[one.rows, :, :keys], v[one.rows, :, :keys]
        words_alone = one.has_references and not layout.references
        of_call = layout, own_mask, one.region, sums, one.prompt, words_alone
        parts.append(CallPart(one.rows, layer, *own, *of_call))
    return parts


def tapped(
    tap: Tap, given: dict[str, Any], parts: list[CallPart], failed: Callable[[Exception], None]
) -> AbstractContextManager[SoftmaxTap | LogSumTap | None]:
    """To be entered while the host computes the call. Errors in adding up go to `failed`."""
    q, k = split_heads(given)
    if tap is Tap.LOG_SUM:
        return LogSumTap(q, k, given.get("scale"), given.get("mask"))
    if not any(part.sums for part in parts):
        return nullcontext()

    def observe(observed: ObservedSoftmax, first: int) -> None:
        try:
            for part in parts:
                if part.sums is not None:
                    part.sums.add(observed.of(part.rows), first)
        except Exception as error:
            failed(error)

    return SoftmaxTap(q, k, given.get("scale"), given.get("mask"), observe)


def record(
    recorder: Recorder,
    parts: list[CallPart],
    given: dict[str, Any],
    tap: SoftmaxTap | LogSumTap | None,
) -> None:
    """Add the parts of a call to the recording, with what its tap has read."""
    keys = split_heads(given)[1].shape[2]
    log_sum = tap.log_sum if isinstance(tap, LogSumTap) else None
    for part in parts:
        own_sum = None
        if log_sum is not None and part.k.shape[2] == keys:
            own_sum = log_sum[part.rows]
        recorder.add(
            part.layer,
            part.q,
            part.k,
            part.layout,
            part.v,
            scale=given.get("scale"),
            mask=part.mask,
            region=part.region,
            observed=part.sums,
            log_sum=own_sum,
            prompt=part.prompt,
            words_alone=part.words_alone,
        )


def record_adapters(
    recorder: Recorder,
    current: ModelPass,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    options: dict[str, Any],
    observed: dict[int, AdapterCall],
) -> None:
    """Add a call of cross-attention to the text together with the adapters beside it."""
    call = call_of(options, q.shape[1], k.shape[1], adapted=True)
    for one in current.recorded:
        read, forward = one.layouts.of(call), one.layouts.forward
        if read is None:
            continue
        layer, layout = read
        text = k[:, : forward.context], v[:, : forward.context]
        k_all, v_all, weights = keys_values_weights(text, forward.adapters, observed, q.shape[1])
        given = {"q": q[one.rows], "k": k_all[one.rows], "v": v_all[one.rows]}
        heads = split_heads(given | {"heads": options["n_heads"]})
        values = split_values(given, heads[1].shape[1])
        recorder.add(
            *(layer, *heads, layout, values),
            weights=weights[one.rows],
            region=one.region,
            prompt=one.prompt,
        )
