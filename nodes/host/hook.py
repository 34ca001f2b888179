"""Capture Attention's hold on a model: arm a clone, and record the runs that are sampled with it.

One wrapper is put on the clone. When a sampler runs, a probe hangs on the options of that run alone
and lets go of them whatever happens; what was recorded is filed under the latent that came out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfyui_version
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...i2am import __version__
from ...i2am.attention import SCRATCH_BYTES
from ...i2am.errors import I2AMError
from ...i2am.recording import Plan, Recorder, Recording, Refusal, Run
from ...i2am.tokens.architectures import Architecture, Layer
from ...i2am.tokens.architectures.within import within
from .model_facts import STEERING_KEY, architecture_of, is_compiled
from .probe import KEY, Probe
from .run import RecordedRun

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Watch:
    """What `arm` is asked for, and how the model is read."""

    plan: Plan
    node: str
    take: Callable[[Recording | Refusal], None] | None
    architecture: Architecture
    layers: tuple[Layer, ...]


def arm(
    model: ModelPatcher,
    plan: Plan,
    node: str = "",
    take: Callable[[Recording | Refusal], None] | None = None,
) -> ModelPatcher:
    """A clone of the model whose sampling runs are recorded as planned.

    node: the one that shows the page what is recorded so far; nothing is shown without. take: is
    given the record of each run, or why there is none. Such a run probes a picture that exists, and
    its record is not filed.

    Raises I2AMError if the model's attention cannot be read.
    """
    base = model.model
    try:
        architecture = architecture_of(model, plan.words)
    except I2AMError:
        if not plan.within:
            raise
        architecture = None
    if plan.within or architecture is None:
        architecture = within(architecture)
    layers = architecture.layers(base.diffusion_model)
    plan.resolved([layer.name for layer in layers], 1)  # a layer that is not there fails here

    watch = _Watch(plan, node, take, architecture, layers)

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        return _sample(executor, watch, args, kwargs)

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


def _sample(executor: Any, watch: _Watch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
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
            probed=watch.take is not None,
        )
        architecture, layers = watch.architecture, watch.layers
        plan = watch.plan.resolved([n.name for n in layers], len(run.schedule) - 1)
        recorded = RecordedRun(
            Recorder(plan, run, architecture, layers), watch.node, watch.plan, watch.take
        )
        frames = noise.shape[2] if noise.ndim == 5 else 1
        if noise.ndim not in (4, 5) or (frames > 1 and not architecture.video):
            recorded.stop(
                f"Only still pictures of {architecture.name} models can be read so far; this "
                "latent is a video, has layers or is a mix."
            )
        if is_compiled(guider.model_patcher):
            recorded.stop(
                "This model is compiled (torch.compile), and compiled code does not let anyone "
                "watch its attention. Take the node that compiles it out, or by-pass it, to record."
            )
        probe = Probe(recorded, layers, guider, noise.shape[2:])
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
