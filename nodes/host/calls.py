"""One attention call of the host → the parts of it that are recorded, tapped where possible."""

from __future__ import annotations

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
from .passes import ModelPass, PassRows

_HOST_ATTENTION = "comfy.ldm.modules.attention"  # where ComfyUI's own attention functions are
_FUSED = "attention_pytorch"  # the one of them that calls torch's scaled_dot_product_attention


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


@dataclass(frozen=True)
class WatchedCall:
    """An attention call of which something is recorded.

    q, k: (batch, heads, tokens, dim). scale, mask: as the host is given them. tap: what is read of
    it while the host computes it.
    """

    q: Tensor
    k: Tensor
    scale: float | None
    mask: Tensor | None
    tap: Tap
    parts: tuple[CallPart, ...]

    def tapped(
        self, failed: Callable[[Exception], None]
    ) -> AbstractContextManager[SoftmaxTap | LogSumTap | None]:
        """To be entered while the host computes the call. Errors in adding up go to `failed`."""
        call = self.q, self.k, self.scale, self.mask
        if self.tap is Tap.LOG_SUM:
            return LogSumTap(*call)
        if not any(part.sums for part in self.parts):
            return nullcontext()

        def observe(observed: ObservedSoftmax, first: int) -> None:
            try:
                for part in self.parts:
                    if part.sums is not None:
                        part.sums.add(observed.of(part.rows), first)
            except Exception as error:
                failed(error)

        return SoftmaxTap(*call, observe)

    def record(self, recorder: Recorder, tap: SoftmaxTap | LogSumTap | None) -> None:
        """Add the parts of the call to the recording, with what its tap has read."""
        log_sum = tap.log_sum if isinstance(tap, LogSumTap) else None
        for part in self.parts:
            own_sum = None
            if log_sum is not None and part.k.shape[2] == self.k.shape[2]:
                own_sum = log_sum[part.rows]
            recorder.add(
                part.layer,
                part.q,
                part.k,
                part.layout,
                part.v,
                scale=self.scale,
                mask=part.mask,
                region=part.region,
                observed=part.sums,
                log_sum=own_sum,
                prompt=part.prompt,
                words_alone=part.words_alone,
            )


def watched_call(
    current: ModelPass,
    given: dict[str, Any],
    recorder: Recorder,
    func: Callable[..., Tensor] | None,
) -> WatchedCall | None:
    """A call of a pass, if anything of it is recorded.

    given: its arguments by name. func: the host's own function that computes it, if one does.
    """
    plan, call = recorder.plan, next_call(given, current.calls)
    read: list[tuple[PassRows, Layer, TokenLayout]] = []
    for one in current.recorded:
        found = one.layouts.of(call) if one.has_references or plan.words else None
        if found is not None:
            layer, layout = found
            if layout.references or (plan.words and layout.has_prompt):
                read.append((one, layer, layout))
    if not read:
        return None
    q, k = split_heads(given)
    v, mask = split_values(given, k.shape[1]), given.get("mask")
    tap = Tap.NOTHING if func is None else _tap_for(func, q, k)
    parts: list[CallPart] = []
    for one, layer, layout in read:
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
    return WatchedCall(q, k, given.get("scale"), mask, tap, tuple(parts))


def _tap_for(func: Callable[..., Tensor], q: Tensor, k: Tensor) -> Tap:
    """What to tap of a call that the host's own function computes, if that is worth it.

    Another pack's function may be compiled, and the compiler would take the tap into its code.
    """
    if getattr(func, "__module__", "") != _HOST_ATTENTION:
        return Tap.NOTHING
    if can_tap(q, k):
        return Tap.SOFTMAX
    fused = getattr(func, "__name__", "") == _FUSED and can_tap_log_sum(q, k)
    return Tap.LOG_SUM if fused else Tap.NOTHING


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
