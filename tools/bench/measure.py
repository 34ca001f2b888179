"""Time and memory of one case with each variant, measured alternately."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tools.bench.cases import DTYPES, MIB, Case, noise
from tools.bench.variants import Dense, Meter, Variant, dense_maps, of_references
from tools.comfyui.in_process import names_of

GROWTH = (256, 512, 1024, 2048, 4096, 8192, 16384)


@dataclass(frozen=True)
class Figure:
    """One line of the table. ratio: time with capture divided by time without, median of pairs.

    scratch_mib: peak working memory of one call; record_mib: size of the recording. call_us: on a
    card, microseconds of the processor that capture adds to each recorded call; else not a number.
    """

    case: str
    variant: str
    ratio: float
    ratio_min: float
    ratio_max: float
    scratch_mib: float
    record_mib: float
    device: str
    dtype: str
    call_us: float = math.nan


@dataclass(frozen=True)
class Run:
    """Seconds of one run by the clock, and of the processor; with capture, what was recorded."""

    seconds: float
    processor: float
    latent: Tensor
    mebibytes: float = 0.0
    calls: int = 0


def seconds(device: torch.device) -> float:
    """A clock reading after all queued work: processor time on one CPU thread, else wall-clock."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class Bench:
    """Runs one case with and without capture, alternately."""

    def __init__(self, pack: SimpleNamespace, case: Case, dtype: str, device: torch.device) -> None:
        self.pack, self.case, self.dtype, self.device = pack, case, dtype, device
        self.model = case.build(DTYPES[dtype], device)
        self.meter = Meter(device)

    def sample(self, model: Any) -> Run:
        """One run."""
        import comfy.sample

        start = torch.zeros(self.case.latent)
        conditioning = self.case.conditioning()
        started, processor = seconds(self.device), time.process_time()
        latent = comfy.sample.sample(
            model, comfy.sample.prepare_noise(start, 1), self.case.steps, 1.0, "euler", "simple",
            conditioning, conditioning, start, disable_pbar=True, seed=1,
        )  # fmt: skip
        processor = time.process_time() - processor
        return Run(seconds(self.device) - started, processor, latent)

    def run(self, variant: Variant) -> Run:
        """One run with capture."""
        if variant.plan is None:
            dense = Dense(self.case, self.meter)
            model = self.model.clone()
            model.model_options["transformer_options"]["optimized_attention_override"] = dense
            return replace(self.sample(model), mebibytes=dense.mebibytes)
        model = self.pack.arm(self.model, self.pack.Plan(**variant.plan))
        with self.changed(variant):
            run = self.sample(model)
        record = self.pack.RECORDINGS.get(self.pack.fingerprint(run.latent))
        if not isinstance(record, self.pack.Recording):
            raise SystemExit(f"Nothing was recorded: {record}")
        calls = record.header.evaluations * len(record.header.layers)
        return replace(run, mebibytes=record.bytes / MIB, calls=calls)

    @contextlib.contextmanager
    def changed(self, variant: Variant) -> Iterator[None]:
        """Capture with its memory measured while the meter is on, changed as the variant says."""
        names, recorder, sums = self.pack.recording, self.pack.Recorder, self.pack.SoftmaxSums
        attention, paper_only = self.pack.attention, variant.paper_only
        compute, add, start, observe, fused = (
            *(names.attention_marginals, recorder.add, recorder.softmax_sums, sums.add),
            attention.triton_marginals,
        )
        effects = names.attention_effects
        keys = slice(self.case.references[0].start, self.case.references[-1].stop)

        def computed(*args: Any, **given: Any) -> Any:
            with self.meter():
                return compute(*args, **given)

        def moved(*args: Any, **given: Any) -> Any:
            with self.meter():
                return effects(*args, **given)

        def observed_(of: Any, observed: Any, first: int = 0) -> None:
            if paper_only and observed.logits.shape[-1] == self.case.keys:
                observed = type(observed)(observed.logits[..., keys], observed.softmax[..., keys])
            with self.meter():
                observe(of, observed, first)

        def added(
            of: Any, layer: Any, q: Tensor, k: Tensor, layout: Any, v: Tensor, **given: Any
        ) -> None:
            call = q, k[:, :, keys], of_references(layout), v[:, :, keys]
            add(of, layer, *call, **given)

        def started(of: Any, layer: Any, layout: Any, region: Any) -> Any:
            return start(of, layer, of_references(layout), region)

        if self.meter.on or paper_only:
            names.attention_marginals, sums.add = computed, observed_
            names.attention_effects = moved
        if paper_only:
            recorder.add, recorder.softmax_sums = added, started
        if not variant.kernels:
            attention.triton_marginals = lambda *args, **given: None
        try:
            yield
        finally:
            names.attention_marginals, sums.add = compute, observe
            names.attention_effects = effects
            recorder.add, recorder.softmax_sums = add, start
            attention.triton_marginals = fused

    def scratch(self, variant: Variant) -> tuple[float, float]:
        """Peak working memory of one call, and size of the recording, in MiB."""
        self.meter.on, self.meter.peak = True, 0
        kept = self.run(variant).mebibytes
        self.meter.on = False
        return self.meter.peak / MIB, kept

    def figures(self, wanted: list[Variant], rounds: int) -> list[Figure]:
        """One figure per variant. Each round runs every variant once, next to a plain run."""
        memory = {variant.name: self.scratch(variant) for variant in wanted}  # and warms up
        self.sample(self.model)
        pairs: dict[str, list[tuple[Run, Run]]] = {variant.name: [] for variant in wanted}
        for turn in range(rounds):
            for variant in wanted:
                plain = self.sample(self.model) if turn % 2 else None
                recorded = self.run(variant)
                pairs[variant.name].append((plain or self.sample(self.model), recorded))
        return [self._figure(name, found, *memory[name]) for name, found in pairs.items()]

    def _figure(
        self, name: str, pairs: list[tuple[Run, Run]], scratch: float, kept: float
    ) -> Figure:
        """Of pairs of runs, without capture and with it."""
        ratios = [recorded.seconds / plain.seconds for plain, recorded in pairs]
        added = [
            1e6 * (recorded.processor - plain.processor) / recorded.calls
            for plain, recorded in pairs
            if recorded.calls and self.device.type == "cuda"
        ]
        return Figure(
            self.case.name,
            name,
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            scratch,
            kept,
            self.device.type,
            self.dtype,
            statistics.median(added) if added else math.nan,
        )


def growth(
    pack: SimpleNamespace, dtype: str, device: torch.device, limit: int, rounds: int
) -> list[Figure]:
    """ComfyUI's attention alone and recorded, 8 heads, from 256 tokens per side."""
    from comfy.ldm.modules import attention

    figures: list[Figure] = []
    heads, dim = 8, 128
    for tokens in (tokens for tokens in GROWTH if tokens <= limit):
        name = f"e {tokens}"
        side = int(tokens**0.5)
        while tokens % side:
            side -= 1
        grid = pack.Grid(side, tokens // side)
        spans = (
            pack.Span(pack.Role.GENERATED, 0, tokens, grid),
            pack.Span(pack.Role.REFERENCE, tokens, 2 * tokens, grid),
        )
        layout = pack.TokenLayout(spans, spans)
        q, k = (noise(s, 1, heads, 2 * tokens, dim).to(device, DTYPES[dtype]) for s in (1, 2))
        meter = Meter(device, on=True)
        call = functools.partial(attention.optimized_attention, q, k, k, heads, skip_reshape=True)
        methods: dict[str, Callable[[], Any]] = {
            "exact": functools.partial(recorded_call, pack, meter, call, q, k, layout),
            "dense": functools.partial(dense_call, meter, call, q, k, layout),
        }
        for variant, method in methods.items():
            meter.peak = 0
            needed = 4 * heads * tokens**2 * 3
            if variant == "dense" and device.type == "cpu" and needed > available_memory():
                print(f"  {name:10} dense needs {needed / 2**30:.0f} GiB at once: too much")
                inf = float("inf")
                figures.append(
                    Figure(name, variant, inf, inf, inf, needed / MIB, 0.0, device.type, dtype)
                )
                continue
            meter.on = True
            method()
            meter.on = False
            ratios = [timed(method, device) / timed(call, device) for _ in range(rounds)]
            figures.append(
                Figure(
                    name,
                    variant,
                    statistics.median(ratios),
                    min(ratios),
                    max(ratios),
                    meter.peak / MIB,
                    0.0,
                    device.type,
                    dtype,
                )
            )
            show(figures[-1])
    return figures


def recorded_call(
    pack: SimpleNamespace, meter: Meter, call: Callable[[], Any], q: Tensor, k: Tensor, layout: Any
) -> None:
    """One attention call as a recorded run makes it."""
    sums: Any = None
    log_sum: Tensor | None = None
    if pack.can_tap(q, k):
        sums = pack.SoftmaxSums(layout, True)

        def tell(observed: Any, first: int) -> None:
            with meter():
                sums.add(observed, first)

        with pack.SoftmaxTap(q, k, None, None, tell):
            call()
    elif pack.can_tap_log_sum(q, k):
        with pack.LogSumTap(q, k) as tap:
            call()
        log_sum = tap.log_sum
    else:
        call()
    with meter():
        pack.attention_marginals(q, k, layout, observed=sums, log_sum=log_sum)


def dense_call(meter: Meter, call: Callable[[], Any], q: Tensor, k: Tensor, layout: Any) -> None:
    """One attention call, then the dense method's maps of it."""
    call()
    with meter():
        dense_maps(q, k, layout.generated.slice, tuple(s.slice for s in layout.references))


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds that `work` takes once."""
    started = seconds(device)
    work()
    return seconds(device) - started


def available_memory() -> int:
    """Bytes of free memory; 4 GiB where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return 4 * 2**30


def show(figure: Figure) -> None:
    print(
        f"  {figure.case:8} {figure.variant:20} {figure.dtype:5} × {figure.ratio:6.3f}  "
        f"({figure.ratio_min:.3f} … {figure.ratio_max:.3f})  scratch {figure.scratch_mib:8.1f} MiB"
        f"  record {figure.record_mib:7.2f} MiB"
        + ("" if math.isnan(figure.call_us) else f"  {figure.call_us:6.0f} µs a call"),
        flush=True,
    )


def pack_names(package: str) -> SimpleNamespace:
    """Everything this tool uses of the pack. package: the name it was loaded under."""
    modules = (
        "nodes.host.hook",
        "nodes.sockets",
        "i2am.tokens",
        "i2am.attention",
        "i2am.recording",
    )
    names = names_of(package, *modules)
    names.recording = importlib.import_module(f"{package}.i2am.recording.call")
    names.attention = importlib.import_module(f"{package}.i2am.attention.compute")
    return names
