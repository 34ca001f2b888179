"""The only file that touches a model: watches the attention of one sampling run, and lets go.

One wrapper is put on a clone of the model. When a sampler runs, it hangs the rest on the options
of that run alone, takes them off again whatever happens, and files what was recorded under the
latent that came out. The model's own attention is called first and its result returned untouched.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import comfyui_version
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...i2am import __version__
from ...i2am.attention import SCRATCH_BYTES, ObservedSoftmax, SoftmaxSums, SoftmaxTap, can_tap
from ...i2am.display import Live
from ...i2am.errors import I2AMError, LayoutMismatch, fault_of
from ...i2am.recording import Plan, Recorder, Refusal, Run, fingerprints
from ...i2am.tokens import Picture, Region, TokenLayout
from ...i2am.tokens.architectures import Adapter, Architecture, Call, Forward, Layer
from ...i2am.tokens.architectures.within import within
from ..sockets import RECORDINGS
from .ip_adapter import Heard, adapters_of, keys_and_weights, listened
from .live import live
from .model_facts import (
    ATTENTION_ARGUMENTS,
    OVERRIDE,
    STEERING_KEY,
    architecture_of,
    call_of,
    compiled,
    forward_of,
    next_call,
    split_heads,
)
from .regions import regions

KEY = "i2am"
_PASS = "i2am_pass"
_HOST_ATTENTION = "comfy.ldm.modules.attention"  # where ComfyUI's own attention functions are
# The other names of what video models are given to look at.
_GIVEN_TO_VIDEOS = {"clip_fea", "context_latents", "time_dim_concat", "ref_latent"}
_BRANCHES = {"conditional": "positive", "unconditional": "negative"}
_log = logging.getLogger(__name__)


def arm(model: ModelPatcher, plan: Plan, node: str = "") -> ModelPatcher:
    """A clone of the model whose sampling runs are recorded as planned.

    node: the one that shows the page what is recorded so far; nothing is shown without.

    Raises I2AMError if the model's attention cannot be read.
    """
    base = model.model
    try:
        architecture = architecture_of(model)
    except I2AMError:
        if not plan.within:
            raise
        architecture = None
    if plan.within or architecture is None:
        architecture = within(architecture)
    layers = architecture.layers(base.diffusion_model)

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        return _sample(executor, plan, node, architecture, layers, args, kwargs)

    armed = model.clone()
    # A second Capture Attention on the same model takes the place of the first.
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, outer_sample),
        (WrappersMP.PREPARE_SAMPLING, _asking_for_memory),
    ):
        armed.remove_wrappers_with_key(kind, KEY)
        armed.add_wrapper_with_key(kind, KEY, wrapper)
    return armed


class _Memory:
    """What a recording needs beside the model, told the host the way a control net tells it."""

    def get_models(self) -> list[Any]:
        return []

    def inference_memory_requirements(self, dtype: torch.dtype) -> int:
        return SCRATCH_BYTES


def _has_memory_of_its_own(model: ModelPatcher) -> bool:
    """Whether the model runs on one device with memory of its own, which the host parcels out."""
    several = model.get_additional_models_with_key("multigpu")
    return model.load_device.type != "cpu" and not several


def _asking_for_memory(
    executor: Any, model: ModelPatcher, noise_shape: Any, conds: Any, *args: Any, **kwargs: Any
) -> Any:
    """Have the host leave room for us when it loads the model, so that what just fits still fits.

    PREPARE_SAMPLING's arguments are model, noise_shape, conds, …; it gives the conds back.
    """
    if not _has_memory_of_its_own(model):
        return executor(model, noise_shape, conds, *args, **kwargs)
    asking = {**conds, KEY: [{"control": _Memory()}]}
    loaded, _, *rest = executor(model, noise_shape, asking, *args, **kwargs)
    return loaded, conds, *rest


def _sample(
    executor: Any,
    plan: Plan,
    node: str,
    architecture: Architecture,
    layers: tuple[Layer, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Tensor:
    """One sampling run: OUTER_SAMPLE's arguments are noise, latent, sampler, sigmas, mask, …"""
    denoised: list[Tensor] = []
    try:
        noise, _, _, sigmas, _, callback, _, seed = args
        guider = executor.class_obj
        run = Run(
            model=type(guider.model_patcher.model).__name__,
            batch=noise.shape[0],
            seed=seed,
            schedule=tuple(sigmas.tolist()),
            latent=(noise.shape[-2], noise.shape[-1]),
            versions={"i2am": __version__, "comfyui": comfyui_version.__version__},
            steering=tuple(map(str, guider.model_patcher.get_attachment(STEERING_KEY) or ())),
        )
        # The probe alone holds the recorder: what it gives up is free memory at once.
        probe = _Probe(
            Recorder(plan, run, architecture, layers), layers, guider, noise.shape[2:], node
        )
        frames = noise.shape[2] if noise.ndim == 5 else 1
        if noise.ndim not in (4, 5) or (frames > 1 and not architecture.video):
            probe.stop(
                f"Only still pictures of {architecture.name} models can be read so far; this "
                "latent is a video, has layers or is a mix."
            )
        if compiled(guider.model_patcher):
            probe.stop(
                "This model is compiled (torch.compile), and compiled code does not let anyone "
                "watch its attention. Take the node that compiles it out, or by-pass it, to record."
            )
        if callback is not None:
            args = (*args[:5], _keeping(denoised, callback), *args[6:])
    except Exception as error:
        _log.warning("I2AM: this run cannot be recorded, the picture is safe", exc_info=error)
        return executor(*args, **kwargs)
    started = time.perf_counter()
    with probe:
        output = executor(*args, **kwargs)
    probe.publish(output, denoised, time.perf_counter() - started)
    return output


def _keeping(denoised: list[Tensor], callback: Callable[..., Any]) -> Callable[..., Any]:
    """The sampler's callback, keeping the last denoised latent it was told of."""

    def keep(step: int, x0: Tensor, x: Tensor, total: int) -> Any:
        denoised[:] = [x0]
        return callback(step, x0, x, total)

    return keep


@dataclass(frozen=True)
class _Reading:
    """What is read of the calls of a pass: of each once, as every evaluation makes them again."""

    architecture: Architecture
    forward: Forward
    _found: dict[object, tuple[Layer, TokenLayout] | None] = field(
        default_factory=dict[object, "tuple[Layer, TokenLayout] | None"]
    )

    def of(self, call: Call) -> tuple[Layer, TokenLayout] | None:
        """As `Architecture.read`."""
        identity = call.identity
        if identity not in self._found:
            read = self.architecture.read(self.forward, call)
            if read is not None:  # of equal layouts one, which is quick to compare with itself
                layer, layout = read
                known = (found[1] for found in self._found.values() if found is not None)
                read = layer, next((one for one in known if one == layout), layout)
            self._found[identity] = read
        return self._found[identity]


@dataclass
class _Pass:
    """What is known of one pass of the model: which rows are recorded, as which conditioning."""

    rows: list[tuple[slice, _Reading, Region | None]]
    calls: Counter[tuple[Any, ...]] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Part:
    """One conditioning's part of an attention call: `rows` of its batch, as the recorder takes it.

    hearing: what is to be told of the call's softmax, if anything is.
    """

    rows: slice
    layer: Layer
    q: Tensor
    k: Tensor
    layout: TokenLayout
    mask: Tensor | None
    region: Region | None
    hearing: SoftmaxSums | None


class _Probe:
    """Hangs on one sampling run's options while it is entered, and feeds its recorder.

    Nothing here raises: what goes wrong ends the recording, not the picture, and is told by the
    node that asks for the recording.
    """

    def __init__(
        self,
        recorder: Recorder,
        layers: tuple[Layer, ...],
        guider: Any,
        whole: tuple[int, ...],
        node: str,
    ) -> None:
        self._layers = layers
        self._whole = whole  # the latent's sides, frames first
        self._plan = recorder.plan
        self._run = recorder.run
        self._architecture = recorder.architecture
        self._recorder: Recorder | None = recorder
        self._live = live(recorder, node) if node else None
        self._guider = guider
        self._options: dict[str, Any] = {}  # the run's own, on which this hangs
        self._reason = self._fault = ""
        self._previous: Callable[..., Tensor] | None = None
        self._wanted = False
        self._passes = self._calls = 0  # of the model, and of its attention in them
        self._branch: int | None = None  # which of the host's lists of conditionings is recorded
        self._regions: dict[Any, Region | None] = {}  # by conditioning, those that act now
        self._recorded: set[Any] = set()  # conditionings seen in this evaluation
        self._references: tuple[Picture, ...] = ()
        self._pictures: dict[Any, list[Tensor]] = {}  # by conditioning, what each was given
        self._patches: dict[str, Any] | None = None
        self._adapters: tuple[Adapter, ...] = ()
        self._readings: list[_Reading] = []

    def __enter__(self) -> None:
        if self._recorder is None:
            return  # given up before it began
        options = self._guider.model_options.setdefault("transformer_options", {})
        self._options = options  # another pack may give the guider others before we let go
        self._previous = options.get(OVERRIDE)
        options[OVERRIDE] = self._attention
        add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, self._predict_noise, options)
        add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, self._calc_cond_batch, options)
        add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self._apply_model, options)
        self._patches = options.get("patches_replace")
        try:
            self._listen(options)
        except Exception as error:
            self._stop_for(error)

    def _listen(self, options: dict[str, Any]) -> None:
        """Listen to adapters, whose attention no override sees."""
        patches = (self._patches or {}).get("attn2", {})
        blocks = {(layer.block, layer.index) for layer in self._layers}
        # A place the network does not have, as the pack's middle block, is never called.
        found = {p: adapters_of(patch) for p, patch in patches.items() if p[:2] in blocks}
        kinds = {adapters for adapters in found.values() if adapters}
        if len(kinds) > 1:
            raise I2AMError(
                "The IP-Adapters of this model differ from layer to layer, so they cannot be told "
                "apart. Apply each of them to the whole model."
            )
        if kinds:
            (self._adapters,) = kinds
            listening = {
                place: listened(patches[place], self._is_recorded, self._fold_adapters)
                for place, adapters in found.items()
                if adapters
            }
            options["patches_replace"] = {**(self._patches or {}), "attn2": patches | listening}

    def __exit__(self, *error: object) -> None:
        options = self._options
        if self._previous is None:
            options.pop(OVERRIDE, None)
        else:
            options[OVERRIDE] = self._previous
        if self._patches is not None:
            options["patches_replace"] = self._patches
        for kind in (
            *(WrappersMP.PREDICT_NOISE, WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL),
        ):
            options.get("wrappers", {}).get(kind, {}).pop(KEY, None)
        if any(error):
            self.stop("")

    def stop(self, reason: str, fault: str = "") -> None:
        """Give up recording, and say why when asked."""
        self._reason, self._fault, self._recorder, self._live = reason, fault, None, None

    def _stop_for(self, error: Exception) -> None:
        if isinstance(error, LayoutMismatch):
            self.stop(
                f"The tokens of this {self._run.model} model are not where "
                f"{self._architecture.name} models keep them: {error}. Please report it; a patch "
                "of another node that adds or removes tokens can be the cause."
            )
        elif isinstance(error, I2AMError):
            self.stop(str(error))
        else:
            _log.warning("I2AM: recording stopped, the picture is not affected", exc_info=error)
            self.stop(
                f"Recording stopped with {type(error).__name__}: {error}. The picture is not "
                "affected. If memory ran out, record fewer layers or steps.",
                fault_of(error),
            )

    def publish(self, output: Tensor, denoised: list[Tensor], seconds: float) -> None:
        """File the recording under the latents this run gave."""
        try:
            names = fingerprints(output)
            if denoised:  # the second output of custom samplers
                model = self._guider.model_patcher.model
                names += fingerprints(model.process_latent_out(denoised[0].cpu()))
            if self._passes and not self._calls and not self._adapters:
                self.stop(
                    "Nothing was recorded: the model ran, but none of its attention passed Capture "
                    "Attention, because something else took its place while sampling. Take other "
                    "nodes that change the attention of this model out one by one to find it."
                )
            if self._recorder is not None:
                try:
                    recording = self._recorder.finish(self._references, seconds)
                    RECORDINGS.put(names, recording)
                    self._show(Live.finish)
                    return
                except Exception as error:
                    self._stop_for(error)
            refusal = Refusal(
                self._plan, self._reason, self._run.model, self._architecture.name, self._fault
            )
            RECORDINGS.put(names, refusal)
        except Exception as error:
            _log.warning("I2AM: the recording was lost, the picture is not", exc_info=error)

    def _predict_noise(self, executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any):
        self._recorded = set()
        try:
            self._wanted = self._recorder is not None and self._recorder.begin_evaluation(
                float(timestep.flatten()[0])
            )
        except Exception as error:
            self._stop_for(error)
        self._show(Live.look)
        try:
            return executor(x, timestep, *args, **kwargs)
        finally:
            self._wanted = False

    def _show(self, what: Callable[[Live], None]) -> None:
        """Tell the page; if that fails it is told nothing more, and all else goes on."""
        if self._live is None or self._recorder is None:
            return
        try:
            what(self._live)
        except Exception as error:
            _log.warning("I2AM: the page is not told of this run any more", exc_info=error)
            self._live = None

    def _calc_cond_batch(
        self,
        executor: Any,
        model: Any,
        conds: list[list[dict[str, Any]] | None],
        x: Tensor,
        timestep: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if self._wanted:
            try:
                wanted = self._conditionings()
                names = [cond["uuid"] for cond in wanted]
                lists = ([cond["uuid"] for cond in given or ()] for given in conds)
                self._branch = next((n for n, found in enumerate(lists) if found == names), None)
                if names and self._branch is not None:
                    self._regions = regions(wanted, x, timestep)
            except Exception as error:
                self._stop_for(error)
        return executor(model, conds, x, timestep, *args, **kwargs)

    def _conditionings(self) -> list[dict[str, Any]]:
        """Those of the branch that is recorded."""
        return self._guider.conds.get(_BRANCHES[self._plan.branch]) or []

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
        if self._wanted and self._recorder is not None:
            try:
                rows = self._rows(x, c_crossattn, options, kwargs)
                if rows:
                    self._passes += 1
                    options = {**options, _PASS: _Pass(rows)}
            except Exception as error:
                self._stop_for(error)
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _rows(
        self, x: Tensor, context: Tensor | None, options: dict[str, Any], kwargs: dict[str, Any]
    ) -> list[tuple[slice, _Reading, Region | None]]:
        """The rows of a batch that belong to the branch wanted, each conditioning's once.

        Guidance that evaluates a conditioning again with tampered attention comes second, so the
        first time a conditioning is seen in an evaluation is the one that counts.
        """
        named = {cond["uuid"]: cond for cond in self._conditionings()}
        uuids = options["uuids"]
        size = x.shape[0] // len(uuids)
        rows: list[tuple[slice, _Reading, Region | None]] = []
        # With areas the host gives one branch copies of the other's conditionings, uuid and all.
        for index, identity in enumerate(zip(uuids, options["cond_or_uncond"], strict=True)):
            cond = named.get(identity[0])
            if cond is None or identity in self._recorded or identity[1] != self._branch:
                continue
            region = self._regions[identity[0]]
            whole = self._whole if region is None else (*self._whole[:-2], *region.sides)
            if x.shape[2:] != whole:
                raise I2AMError(
                    "Samplers that work in tiles or windows cannot be read so far: the model was "
                    f"given {_sides(x.shape[2:])} of a latent of {_sides(whole)}. Use the whole "
                    "picture."
                )
            self._recorded.add(identity)
            forward = forward_of(
                *(self._guider, cond, x, context, options, kwargs, self._layers, self._adapters)
            )
            self._same_pictures(cond, forward)
            self._references = self._architecture.references(forward) or self._references
            rows.append((slice(index * size, (index + 1) * size), self._reading(forward), region))
        return rows

    def _reading(self, forward: Forward) -> _Reading:
        """What was read of such passes before."""
        for known in self._readings:
            if known.forward == forward:
                return known
        self._readings.append(_Reading(self._architecture, forward))
        return self._readings[-1]

    def _same_pictures(self, cond: dict[str, Any], forward: Forward) -> None:
        """Conditionings that are combined must be given the same pictures, or maps would mix."""
        if cond["uuid"] in self._pictures:
            return
        pictures: list[Tensor] = list(cond.get("reference_latents") or ())
        for name in sorted(_GIVEN_TO_VIDEOS & cond["model_conds"].keys()):
            given = cond["model_conds"][name].cond
            pictures += given if isinstance(given, list) else [given]
        for tokens in forward.image_tokens:
            text: Tensor = cond["model_conds"]["c_crossattn"].cond
            pictures.append(text[:, tokens.start : tokens.start + tokens.height * tokens.width])
        first = next(filter(None, self._pictures.values()), pictures)
        self._pictures[cond["uuid"]] = pictures
        if pictures and (
            len(first) != len(pictures)
            or not all(a is b or torch.equal(a, b) for a, b in zip(first, pictures, strict=True))
        ):
            raise I2AMError(
                "The references changed while sampling: conditionings that are combined hold "
                "different reference pictures. Give all of them the same ones."
            )

    def _attention(self, func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        call = func if self._previous is None else partial(self._previous, func)
        current: _Pass | None = (kwargs.get("transformer_options") or {}).get(_PASS)
        if current is None or self._recorder is None:
            return call(*args, **kwargs)
        self._calls += 1
        given = dict(zip(ATTENTION_ARGUMENTS, args, strict=False)) | kwargs
        parts = self._parts(current, given, self._may_listen(func, given))
        if any(part.hearing for part in parts):
            mask, scale = given.get("mask"), given.get("scale")
            with SoftmaxTap(*split_heads(given), scale, mask, partial(self._hear, parts)):
                output = call(*args, **kwargs)
        else:
            output = call(*args, **kwargs)
        self._fold(parts, given)
        return output

    def _may_listen(self, func: Callable[..., Tensor], given: dict[str, Any]) -> bool:
        """Whether the host's own function computes this call, and listening to it is worth it.

        Another pack's may be compiled, and the compiler would take what listens into its code.
        """
        if self._previous is not None or getattr(func, "__module__", "") != _HOST_ATTENTION:
            return False
        try:
            return can_tap(*split_heads(given))
        except Exception as error:
            _log.debug("I2AM: an attention call of unheard-of shapes", exc_info=error)
            return False

    def _parts(self, current: _Pass, given: dict[str, Any], listen: bool) -> list[_Part]:
        """What is recorded of a call, of each conditioning; none if it cannot be read."""
        parts: list[_Part] = []
        try:
            mask = given.get("mask")
            q, k = split_heads(given)
            call = next_call(given, q, k, current.calls)
            for rows, reading, region in current.rows:
                read = reading.of(call)
                if read is None or not read[1].references or self._recorder is None:
                    continue
                layer, layout = read
                keys = layout.key_count  # a context repeated to a common length is read once
                some_mask = mask
                if mask is not None:
                    some_mask = mask[rows] if mask.ndim > 2 and mask.shape[0] > 1 else mask
                    some_mask = some_mask[..., :keys]
                hearing = None
                if listen and keys == k.shape[2]:
                    hearing = self._recorder.softmax_sums(layer, layout, region)
                one = q[rows], k[rows, :, :keys]
                parts.append(_Part(rows, layer, *one, layout, some_mask, region, hearing))
        except Exception as error:
            self._stop_for(error)
            return []
        return parts

    def _hear(self, parts: list[_Part], observed: ObservedSoftmax, first: int) -> None:
        """The attention function has taken the softmax of some rows, from `first` on."""
        try:
            for part in parts:
                if part.hearing is not None and self._recorder is not None:
                    part.hearing.add(observed.of(part.rows), first)
        except Exception as error:
            self._stop_for(error)

    def _fold(self, parts: list[_Part], given: dict[str, Any]) -> None:
        try:
            for part in parts:
                if self._recorder is not None:
                    self._recorder.add(
                        part.layer,
                        part.q,
                        part.k,
                        part.layout,
                        scale=given.get("scale"),
                        mask=part.mask,
                        region=part.region,
                        observed=part.hearing,
                    )
        except Exception as error:
            self._stop_for(error)

    def _is_recorded(self, options: dict[str, Any]) -> bool:
        return self._recorder is not None and _PASS in options

    def _fold_adapters(
        self, q: Tensor, k: Tensor, options: dict[str, Any], observed: dict[int, Heard]
    ) -> None:
        """Take in one call of cross-attention to the text, and of adapters beside it."""
        try:
            call = call_of(options, q.shape[1], k.shape[1], adapted=True)
            for rows, reading, region in options[_PASS].rows:
                read, forward = reading.of(call), reading.forward
                if read is None or self._recorder is None:
                    continue
                text = k[:, : forward.context]
                keys, weights = keys_and_weights(text, forward.adapters, observed, q.shape[1])
                given = {"q": q[rows], "k": keys[rows], "heads": options["n_heads"]}
                layer, layout = read
                heard_by = {"weights": weights[rows], "region": region}
                self._recorder.add(layer, *split_heads(given), layout, **heard_by)
        except Exception as error:
            self._stop_for(error)


def _sides(shape: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in shape)
