"""Reference Strength's hold on a model: steers the attention of its sampling runs.

One wrapper is put on a clone of the model. When a sampler runs, it changes the options of that run
alone, which the host makes for the run and throws away. Steering sits inside the probe of Capture
Attention, in either order of the nodes, and before other nodes' attention. So the recorded
attention is the steered one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor
from torch.nn.functional import pad

from ...i2am.attention import Bias, Steer, attention_bias, biased_query_key
from ...i2am.errors import I2AMError, LayoutMismatch
from ...i2am.recording import step_of_sigma
from ...i2am.tokens import TokenLayout, in_ranges, resolve_ranges
from ...i2am.tokens.architectures import Architecture, Forward, Layer
from .model_facts import (
    ATTENTION_ARGUMENTS,
    OVERRIDE,
    STEERING_KEY,
    architecture_of,
    forward_of,
    is_compiled,
    next_call,
    split_heads,
)

_PASS = "i2am_steered_pass"
_POSITIVE = "positive"
_Attention = Callable[..., Tensor]


def steered(model: ModelPatcher, steer: Steer) -> ModelPatcher:
    """A clone of the model with this steer added to those it already has.

    Raises I2AMError if the model's attention cannot be read.
    """
    try:
        architecture = architecture_of(model)
    except I2AMError as error:
        raise I2AMError(
            f"Reference Strength needs to read the model's attention. {error}"
        ) from None
    layers = architecture.layers(model.model.diffusion_model)
    steers: tuple[Steer, ...] = (*(model.get_attachment(STEERING_KEY) or ()), steer)

    def sampler_sample(
        executor: Any, guider: Any, sigmas: Tensor, extra_args: dict[str, Any], *args: Any
    ) -> Tensor:
        if is_compiled(guider.model_patcher):
            raise I2AMError(
                "Reference Strength cannot steer a compiled model (torch.compile): compiled code "
                "would keep the steering for ever, or never get it. Remove or bypass the node that "
                "compiles the model."
            )
        sides = tuple(args[1].shape[2:])  # the other arguments are callback, noise, latent, …
        steering = _Steering(steers, architecture, layers, guider, tuple(sigmas.tolist()), sides)
        steering.install(extra_args["model_options"]["transformer_options"])
        return executor(guider, sigmas, extra_args, *args)

    clone = model.clone()
    clone.set_attachments(STEERING_KEY, steers)
    clone.remove_wrappers_with_key(WrappersMP.SAMPLER_SAMPLE, STEERING_KEY)
    clone.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, STEERING_KEY, sampler_sample)
    return clone


@dataclass
class _Pass:
    """One pass of the model: its rows, the steers of its step, the calls and steers so far."""

    rows: list[tuple[slice, Forward]]
    steers: list[Steer]
    calls: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    applied: set[Steer] = field(default_factory=set)


class _Steering:
    """Steers one sampling run. Raises I2AMError in the first pass that cannot be steered.

    A picture that was not steered as asked would mislead, and the first pass costs little.
    sides: of the whole latent, frames first.
    """

    def __init__(
        self,
        steers: tuple[Steer, ...],
        architecture: Architecture,
        layers: tuple[Layer, ...],
        guider: Any,
        schedule: tuple[float, ...],
        sides: tuple[int, ...],
    ) -> None:
        count = len(schedule) - 1
        self._steers = tuple(replace(s, steps=resolve_ranges(s.steps, count)) for s in steers)
        self._architecture = architecture
        self._layers = layers
        self._guider = guider
        self._schedule = schedule
        self._sides = sides
        self._previous: _Attention | None = None  # another pack's override
        self._found: dict[tuple[Any, ...], Bias | None] = {}  # the biases, by what they depend on

    def install(self, options: dict[str, Any]) -> None:
        """Put the attention override in front of the one in a run's options, and a wrapper."""
        self._previous = options.get(OVERRIDE)
        options[OVERRIDE] = self._attention
        add_wrapper_with_key(WrappersMP.APPLY_MODEL, STEERING_KEY, self._apply_model, options)

    def _apply_model(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        options = transformer_options or {}
        steers = list(self._steers)
        if any(steer.steps for steer in steers):  # a card would have to be asked, and waited for
            step = step_of_sigma(self._schedule, float(t.flatten()[0]))
            steers = [steer for steer in steers if in_ranges(steer.steps, step)]
        if not steers:
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        rows, has_positive = self._rows(x, c_crossattn, options, kwargs, steers)
        current = _Pass(rows, steers)
        options = {**options, _PASS: current}
        output = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        missed = [steer for steer in steers if steer not in current.applied]
        if has_positive and missed:
            raise I2AMError(
                f"Reference Strength ({missed[0]}) found no attention to that reference. An "
                "IP-Adapter's pictures cannot be steered: use its own weight. Other nodes that "
                "replace attention can also be the cause."
            )
        return output

    def _rows(
        self,
        x: Tensor,
        context: Tensor | None,
        options: dict[str, Any],
        kwargs: dict[str, Any],
        steers: list[Steer],
    ) -> tuple[list[tuple[slice, Forward]], bool]:
        """The rows of each conditioning in a pass, and whether one of them is positive."""
        named = {cond["uuid"]: cond for conds in self._guider.conds.values() for cond in conds}
        positive = {cond["uuid"] for cond in self._guider.conds.get(_POSITIVE) or ()}
        uuids = options["uuids"]
        size = x.shape[0] // len(uuids)
        if x.shape[2:] != self._sides and any(s.result_mask is not None for s in steers):
            raise I2AMError(
                "result_mask needs the whole picture at once, but the model is given a part of it: "
                "a conditioning is limited to an area, or the sampler works in tiles or windows. "
                "Remove the mask, or use the whole picture."
            )
        rows: list[tuple[slice, Forward]] = []
        for index, identity in enumerate(uuids):
            if identity not in named:
                continue
            forward = forward_of(
                *(self._guider, named[identity], x, context, options, kwargs, self._layers)
            )
            given = len(self._architecture.references(forward))
            last = max(steer.reference for steer in steers) + 1
            if identity in positive and given < last:
                raise I2AMError(
                    f"Reference Strength is set for reference {last}, but the model was given "
                    f"{given} ({self._architecture.reference_kind}) that can be steered. Choose "
                    "another, or give the positive conditioning its references. An IP-Adapter's "
                    "pictures cannot be steered: use its own weight."
                )
            rows.append((slice(index * size, (index + 1) * size), forward))
        return rows, not positive.isdisjoint(uuids)

    def _attention(self, func: _Attention, *args: Any, **kwargs: Any) -> Tensor:
        current: _Pass | None = (kwargs.get("transformer_options") or {}).get(_PASS)
        given = dict(zip(ATTENTION_ARGUMENTS, args, strict=False)) | kwargs
        biases = self._biases(current, given) if current is not None else []
        if not biases:
            return self._override(func)(*args, **kwargs)
        if "sage" in func.__name__:
            func = attention_pytorch  # eight bits blur a bias, and its heads end at 128 features
        return _biased(self._override(func), given, biases)

    def _override(self, func: _Attention) -> _Attention:
        """The attention that would have run without steering."""
        return func if self._previous is None else partial(self._previous, func)

    def _biases(self, current: _Pass, given: dict[str, Any]) -> list[tuple[slice, Bias]]:
        """What to add to this call's logits, and for which rows of the batch."""
        call = next_call(given, current.calls)
        biases: list[tuple[slice, Bias]] = []
        for rows, forward in current.rows:
            try:
                read = self._architecture.read(forward, call)
            except LayoutMismatch as error:
                raise I2AMError(
                    "Reference Strength cannot find the references among the tokens of this "
                    f"{self._architecture.name} model: {error}. A patch of another node that adds "
                    "or removes tokens can be the cause."
                ) from None
            if read is None:
                continue
            _, layout = read
            batch, device = rows.stop - rows.start, given["q"].device
            for steer in current.steers:
                bias = self._bias(steer, layout, call.keys, batch, device)
                if bias is not None:
                    biases.append((rows, bias))
                    current.applied.add(steer)
        return biases

    def _bias(
        self, steer: Steer, layout: TokenLayout, keys: int, batch: int, device: torch.device
    ) -> Bias | None:
        """As `attention_bias`, on a device: a copy for each call would make the processor wait."""
        known = steer, layout, keys, batch, device
        if known not in self._found:
            bias = attention_bias(steer, layout, keys, batch)
            self._found[known] = None if bias is None else bias.on(device)
        return self._found[known]


def _biased(
    attention: _Attention, given: dict[str, Any], biases: list[tuple[slice, Bias]]
) -> Tensor:
    """A call's output with biases on its logits, which q and k carry as additional features.

    given: the call's arguments by name.
    """
    q, k = split_heads(given)
    _, v = split_heads(given | {"k": given["v"]})
    dim = v.shape[-1]
    q, k = biased_query_key(q, k, biases, given.get("scale"))
    rest = {n: a for n, a in given.items() if n not in ("q", "k", "v", "heads", "scale")}
    # Attention functions expect values with as many features as keys.
    output = attention(
        *(q, k, pad(v, (0, q.shape[-1] - dim)), given["heads"]), **(rest | {"skip_reshape": True})
    )
    if given.get("skip_output_reshape"):
        return output[..., :dim]
    return output.unflatten(-1, (given["heads"], -1))[..., :dim].flatten(-2)
