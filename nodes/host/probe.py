"""The probe: hangs on one sampling run's options while it is entered, and lets go of them again.

The model's own attention is called first and its result returned untouched. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...i2am.errors import I2AMError
from ...i2am.recording import Recorder
from ...i2am.tokens.architectures import Layer
from .calls import record_adapters, watched_call
from .ip_adapter import AdapterCall, adapters_of, tapped_patch
from .model_facts import ATTENTION_ARGUMENTS, OVERRIDE
from .passes import ModelPass, PassReader
from .run import RecordedRun

KEY = "i2am"
_PASS = "i2am_pass"
_WRAPPED = (WrappersMP.PREDICT_NOISE, WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL)


class Probe:
    """Watches one run and feeds its recorder; a context manager around the sampling."""

    def __init__(
        self,
        run: RecordedRun,
        layers: tuple[Layer, ...],
        guider: Any,
        sides: tuple[int, ...],
    ) -> None:
        self._run = run
        self._layers = layers
        self._guider = guider
        self._reader = PassReader(guider, run.plan.branch, run.architecture, layers, sides)
        self._options: dict[str, Any] = {}  # the run's own, on which this hangs
        self._previous: Callable[..., Tensor] | None = None  # another pack's override
        self._patches: dict[str, Any] | None = None
        self._wanted = False  # whether the current evaluation is recorded
        self._passes = self._calls = 0  # of the model, and of its attention in them

    def __enter__(self) -> None:
        if self._run.recorder is None:
            return  # given up before it began
        options = self._guider.model_options.setdefault("transformer_options", {})
        self._options = options  # another pack may give the guider others before we let go
        self._previous = options.get(OVERRIDE)
        options[OVERRIDE] = self._attention
        for kind, wrapper in zip(
            _WRAPPED, (self._predict_noise, self._calc_cond_batch, self._apply_model), strict=True
        ):
            add_wrapper_with_key(kind, KEY, wrapper, options)
        self._patches = options.get("patches_replace")
        try:
            self._tap_adapters(options)
        except Exception as error:
            self._run.stop_for(error)

    def __exit__(self, *error: object) -> None:
        options = self._options
        if self._previous is None:
            options.pop(OVERRIDE, None)
        else:
            options[OVERRIDE] = self._previous
        if self._patches is not None:
            options["patches_replace"] = self._patches
        for kind in _WRAPPED:
            options.get("wrappers", {}).get(kind, {}).pop(KEY, None)
        if any(error):
            self._run.stop("")

    def publish(self, output: Tensor, denoised: list[Tensor], seconds: float) -> None:
        """File what was recorded under the run's output, and its denoised output if it has one."""
        if self._passes and not self._calls and not self._reader.adapters:
            self._run.stop(
                "Nothing was recorded: the model ran, but none of its attention could be watched, "
                "because something else took its place. Take other nodes that change the attention "
                "of this model out one by one to find it."
            )

        def latents() -> list[Tensor]:
            model = self._guider.model_patcher.model
            return [output, *(model.process_latent_out(x0.cpu()) for x0 in denoised)]

        reader = self._reader
        given = reader.references, reader.reference_latents, reader.encodings
        self._run.publish(latents, *given, seconds)

    def _tap_adapters(self, options: dict[str, Any]) -> None:
        """Watch IP-Adapters, whose attention no override sees."""
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
            (self._reader.adapters,) = kinds
            tapped = {
                place: tapped_patch(patches[place], self._is_recorded, self._record_adapters)
                for place, adapters in found.items()
                if adapters
            }
            options["patches_replace"] = {**(self._patches or {}), "attn2": patches | tapped}

    def _predict_noise(self, executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any):
        self._reader.begin_evaluation()
        self._wanted = self._run.begin_evaluation(timestep)
        try:
            return executor(x, timestep, *args, **kwargs)
        finally:
            self._wanted = False

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
            self._safely(lambda _: self._reader.find_branch(conds, x, timestep))
        return executor(model, conds, x, timestep, *args, **kwargs)

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
        if self._wanted:
            read = self._safely(lambda _: self._reader.read(x, c_crossattn, options, kwargs))
            if read is not None:
                self._passes += 1
                options = {**options, _PASS: read}
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _attention(self, func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        call = func if self._previous is None else partial(self._previous, func)
        current: ModelPass | None = (kwargs.get("transformer_options") or {}).get(_PASS)
        if current is None or not self._records():
            return call(*args, **kwargs)
        self._calls += 1
        given = dict(zip(ATTENTION_ARGUMENTS, args, strict=False)) | kwargs
        own = func if self._previous is None else None
        watched = self._safely(lambda recorder: watched_call(current, given, recorder, own))
        if watched is None:
            return call(*args, **kwargs)
        with watched.tapped(self._run.stop_for) as tap:
            output = call(*args, **kwargs)
        self._safely(lambda recorder: watched.record(recorder, tap))
        return output

    def _is_recorded(self, options: dict[str, Any]) -> bool:
        return _PASS in options and self._records()

    def _records(self) -> bool:
        """Whether there is still a recorder, and it wants the calls of this evaluation."""
        return self._run.recorder is not None and self._run.recorder.wants_calls

    def _record_adapters(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        options: dict[str, Any],
        observed: dict[int, AdapterCall],
    ) -> None:
        call = options[_PASS], q, k, v, options, observed
        self._safely(lambda recorder: record_adapters(recorder, *call))

    def _safely(self, work: Callable[[Recorder], Any]) -> Any:
        """Do a piece of recording, if there is still a recorder; an error ends the recording."""
        if self._run.recorder is None:
            return None
        try:
            return work(self._run.recorder)
        except Exception as error:
            self._run.stop_for(error)
            return None
