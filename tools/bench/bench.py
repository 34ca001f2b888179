"""What does capture cost? Real models' shapes through ComfyUI's own sampler, with and without it.

Weights are random: time and memory do not depend on what a model has learnt. Each figure is the
median of pairs of runs, one with capture and one without, one right after the other. On one thread
of a CPU, seconds are the processor's own, which a busy machine does not disturb; otherwise they are
the clock's. The dense method beside it is what tools that keep whole attention matrices do: for
every call the logits of all heads at once, a softmax of them in each direction, and their means.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tools.comfyui.in_process import ROOT, import_comfyui, import_pack, names_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIB = 2**20
GROWTH = (256, 512, 1024, 2048, 4096, 8192, 16384)


@dataclass(frozen=True)
class Case:
    """One kind of work. build: (dtype, device) → model patcher; the rest is what it samples."""

    name: str
    title: str
    build: Callable[[torch.dtype, torch.device], Any]
    latent: tuple[int, ...]
    conditioning: Callable[[], list[Any]]
    generated: slice
    references: tuple[slice, ...]
    keys: int
    steps: int = 4


@dataclass(frozen=True)
class Figure:
    """One line of the table. ratio: time with capture over without, median of pairs.

    scratch_mib: the most memory one call takes beside its result; record_mib: what is kept.
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


# --- models ------------------------------------------------------------------------------------


def build(family: str, dtype: torch.dtype, device: torch.device, config: dict[str, Any]) -> Any:
    """A model of one of the classes of comfy.supported_models, of random weights."""
    import comfy.model_patcher
    import comfy.supported_models

    settings = getattr(comfy.supported_models, family)(config)
    settings.set_inference_dtype(dtype, None)
    model = settings.get_model({}, "", device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, value in model.diffusion_model.state_dict().items():
        if value.ndim == 1:
            value.fill_(float("norm" in name and "bias" not in name))
        else:
            value.normal_(0, 1.5 / value[0].numel() ** 0.5, generator=generator)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def flux(hidden: int, double: int, single: int) -> Callable[[torch.dtype, torch.device], Any]:
    """A Flux of these sizes."""
    config = {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "vec_in_dim": None,
        "context_in_dim": 64,
        "hidden_size": hidden,
        "mlp_ratio": 4.0,
        "num_heads": hidden // 128,
        "depth": double,
        "depth_single_blocks": single,
        "axes_dim": [16, 56, 56],
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": False,
        "txt_ids_dims": [],
    }
    return lambda dtype, device: build("Flux", dtype, device, config)


def sd15(dtype: torch.dtype, device: torch.device) -> Any:
    """The UNet of Stable Diffusion 1.5 at its real size."""
    config = {
        **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320},
        **{"num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "context_dim": 768},
        **{"transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1},
        **{"transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]},
        **{"num_heads": 8, "use_spatial_transformer": True, "legacy": False},
        **{"use_linear_in_transformer": False, "adm_in_channels": None},
        "use_temporal_attention": False,
    }
    return build("SD15", dtype, device, config)


def demo(dtype: torch.dtype, device: torch.device) -> Any:
    """The demo model that comes with the pack, trained."""
    import comfy.sd

    path = ROOT / "models" / "diffusion_models" / "i2am_demo_inpaint.safetensors"
    return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": dtype})


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def latents(seed: int, count: int, side: int, text: int, dim: int) -> Callable[[], list[Any]]:
    """A random text and so many reference latents."""
    return lambda: [
        [
            noise(seed, 1, text, dim),
            {
                "reference_latents": [
                    noise(seed + n, 1, 16, side, side) for n in range(1, count + 1)
                ]
            },
        ]
    ]


def flux_case(
    name: str, title: str, model: Any, side: int, text: int, references: int, steps: int
) -> Case:
    """A square result and so many references of its size, `side` tokens a side."""
    area = side**2
    ends = [text + area * n for n in range(1, references + 2)]
    return Case(
        name,
        title,
        model,
        (1, 16, 2 * side, 2 * side),
        latents(1, references, 2 * side, text, 64),
        slice(text, ends[0]),
        tuple(slice(end, end + area) for end in ends[:-1]),
        ends[-1],
        steps,
    )


def cases(device: torch.device) -> list[Case]:
    """Those of the CPU, and on a graphics card also Flux.1 at its real size."""
    small, whole = flux(1024, 4, 8), flux(3072, 19, 38)
    demo_case = flux_case("d", "the demo model, 128²", demo, 8, 1, 2, 20)
    found = [
        flux_case("a", "Flux type, hidden 1024, 512², one reference", small, 32, 256, 1, 2),
        flux_case("b", "the same with three references", small, 32, 256, 3, 2),
        Case(
            "c",
            "the UNet of SD 1.5, 512², 257 image tokens",
            sd15,
            (1, 4, 64, 64),
            lambda: [[noise(1, 1, 77 + 257, 768), {"i2am_image_tokens": [(78, 16, 16)]}]],
            slice(0, None),
            (slice(78, 334),),
            334,
            2,
        ),
        Case(**{**vars(demo_case), "conditioning": latents(1, 2, 16, 1, 16)}),
    ]
    if device.type == "cuda":
        found += [
            flux_case("flux1", "Flux.1, 1024², one reference", whole, 64, 512, 1, 4),
            flux_case("flux3", "Flux.1, 1024², three references", whole, 64, 512, 3, 4),
        ]
    return found


# --- what is compared --------------------------------------------------------------------------


def dense_maps(q: Tensor, k: Tensor, generated: slice, references: tuple[slice, ...]) -> Tensor:
    """The paper's two maps of one call from full matrices: the mean of each over heads.

    The released code and its kin keep the matrices as well, summed over the steps.
    """
    maps: list[Tensor] = []
    for span in references:
        logits = (q[:, :, generated] @ k[:, :, span].mT).float() * q.shape[-1] ** -0.5
        maps.append(logits.softmax(-2).mean(-1).mean(1))
        maps.append(logits.softmax(-1).mean(-2).mean(1))
    return torch.cat(maps, dim=-1)


class Dense:
    """An attention override that takes the dense method's maps of every call."""

    def __init__(self, case: Case, meter: Meter) -> None:
        self._case = case
        self._meter = meter
        self.maps: dict[Any, Tensor] = {}

    def __call__(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        output = func(*args, **kwargs)
        q, k = args[0], args[1]
        options = kwargs["transformer_options"]
        tokens = k.shape[2] if kwargs.get("skip_reshape") else k.shape[1]
        if tokens == self._case.keys:
            if not kwargs.get("skip_reshape"):
                q, k = (x.unflatten(-1, (args[3], -1)).transpose(1, 2) for x in (q, k))
            site = (options.get("block"), options.get("block_type"), options.get("block_index"))
            with self._meter():
                maps = dense_maps(q, k, self._case.generated, self._case.references)
                self.maps[site] = self.maps.get(site, 0) + maps
        return output

    @property
    def mebibytes(self) -> float:
        return sum(maps.numel() * maps.element_size() for maps in self.maps.values()) / MIB


@dataclass
class Meter:
    """Measures the most memory that what runs inside it held at once, if it is switched on."""

    device: torch.device
    on: bool = False
    peak: int = 0
    inside: bool = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        if not self.on or self.inside:
            yield
            return
        self.inside = True
        try:
            yield from self._measured()
        finally:
            self.inside = False

    def _measured(self) -> Iterator[None]:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            yield
            torch.cuda.synchronize()
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() - before)
        else:
            with profile(
                activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
            ) as record:
                yield
            assert record.profiler is not None
            events = record.profiler.kineto_results
            assert events is not None
            held = 0
            memory = (e for e in events.events() if e.name() == "[memory]")
            for event in sorted(memory, key=lambda e: e.start_ns()):
                held += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
                self.peak = max(self.peak, held)


@dataclass(frozen=True)
class Variant:
    """One way to watch a run. plan: of the capture; None for the dense method.

    paper_only: shown the references' keys alone. kernels: where there are any for the device.
    """

    name: str
    plan: dict[str, Any] | None
    paper_only: bool = False
    kernels: bool = True


def every(nth: int, steps: int) -> tuple[tuple[int, int], ...]:
    return tuple((step, step) for step in range(0, steps, nth))


def variants(case: Case, device: torch.device) -> list[Variant]:
    found = [
        Variant("exact", {}),
        Variant("no correspondence", {"correspondence": False}),
        Variant("paper", {"correspondence": False}, paper_only=True),
        Variant("balanced", {"budget": "balanced"}),
        Variant("fast", {"budget": "fast"}),
        Variant("dense", None),
    ]
    if device.type == "cuda":
        found.insert(1, Variant("without kernels", {}, kernels=False))
    if case.steps >= 4:
        found[2:2] = [
            Variant(f"every {name} step", {"steps": every(nth, case.steps)})
            for nth, name in ((2, "2nd"), (4, "4th"))
        ]
    return found


def of_references(layout: Any) -> Any:
    """A layout of the references' keys alone: what the paper's maps are made of."""
    first = layout.references[0].start
    spans = tuple(
        type(s)(s.role, s.start - first, s.stop - first, s.grid) for s in layout.references
    )
    return type(layout)(layout.queries, spans)


def seconds(device: torch.device) -> float:
    """Time so far, all work done: the processor's where that is the whole story."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class Bench:
    """Runs one case with and without capture, by turns."""

    def __init__(self, pack: SimpleNamespace, case: Case, dtype: str, device: torch.device) -> None:
        self.pack, self.case, self.dtype, self.device = pack, case, dtype, device
        self.model = case.build(DTYPES[dtype], device)
        self.meter = Meter(device)

    def sample(self, model: Any) -> tuple[float, Tensor]:
        """Seconds of one run, and its latent."""
        import comfy.sample

        start = torch.zeros(self.case.latent)
        conditioning = self.case.conditioning()
        started = seconds(self.device)
        latent = comfy.sample.sample(
            model, comfy.sample.prepare_noise(start, 1), self.case.steps, 1.0, "euler", "simple",
            conditioning, conditioning, start, disable_pbar=True, seed=1,
        )  # fmt: skip
        return seconds(self.device) - started, latent

    def run(self, variant: Variant) -> tuple[float, float]:
        """Seconds with capture, and MiB of what it kept."""
        if variant.plan is None:
            dense = Dense(self.case, self.meter)
            model = self.model.clone()
            model.model_options["transformer_options"]["optimized_attention_override"] = dense
            return self.sample(model)[0], dense.mebibytes
        model = self.pack.arm(self.model, self.pack.Plan(**variant.plan))
        with self.watching(variant):
            seconds, latent = self.sample(model)
        record = self.pack.RECORDINGS.get(self.pack.fingerprint(latent))
        if not isinstance(record, self.pack.Recording):
            raise SystemExit(f"Nothing was recorded: {record}")
        return seconds, record.bytes / MIB

    @contextlib.contextmanager
    def watching(self, variant: Variant) -> Iterator[None]:
        """Capture measured, if the meter is on, and changed as a variant asks."""
        names, recorder, hearing = self.pack.recording, self.pack.Recorder, self.pack.Hearing
        attention, paper_only = self.pack.attention, variant.paper_only
        compute, add, start, hear, fused = (
            *(names.attention_marginals, recorder.add, recorder.hearing, hearing.add),
            attention.fused_marginals,
        )
        keys = slice(self.case.references[0].start, self.case.references[-1].stop)

        def computed(*args: Any, **given: Any) -> Any:
            with self.meter():
                return compute(*args, **given)

        def heard_(of: Any, heard: Any, first: int = 0) -> None:
            if paper_only and heard.logits.shape[-1] == self.case.keys:
                heard = type(heard)(heard.logits[..., keys], heard.softmax[..., keys])
            with self.meter():
                hear(of, heard, first)

        def added(of: Any, layer: Any, q: Tensor, k: Tensor, layout: Any, **given: Any) -> None:
            add(of, layer, q, k[:, :, keys], of_references(layout), **given)

        def started(of: Any, layer: Any, layout: Any, region: Any) -> Any:
            return start(of, layer, of_references(layout), region)

        if self.meter.on or paper_only:
            names.attention_marginals, hearing.add = computed, heard_
        if paper_only:
            recorder.add, recorder.hearing = added, started
        if not variant.kernels:
            attention.fused_marginals = lambda *args, **given: None
        try:
            yield
        finally:
            names.attention_marginals, hearing.add = compute, hear
            recorder.add, recorder.hearing = add, start
            attention.fused_marginals = fused

    def scratch(self, variant: Variant) -> tuple[float, float]:
        """MiB of the most one call takes, and of what is kept."""
        self.meter.on, self.meter.peak = True, 0
        _, kept = self.run(variant)
        self.meter.on = False
        return self.meter.peak / MIB, kept

    def figures(self, wanted: list[Variant], rounds: int) -> list[Figure]:
        """Every variant's line. Each round takes each variant once, beside a plain run."""
        memory = {variant.name: self.scratch(variant) for variant in wanted}  # and warms up
        self.sample(self.model)
        ratios: dict[str, list[float]] = {variant.name: [] for variant in wanted}
        for turn in range(rounds):
            for variant in wanted:
                plain = watched = 0.0
                for what in ("plain", "watched") if turn % 2 else ("watched", "plain"):
                    if what == "plain":
                        plain = self.sample(self.model)[0]
                    else:
                        watched = self.run(variant)[0]
                ratios[variant.name].append(watched / plain)
        return [
            Figure(
                self.case.name,
                name,
                statistics.median(found),
                min(found),
                max(found),
                *memory[name],
                self.device.type,
                self.dtype,
            )
            for name, found in ratios.items()
        ]


# --- growth: attention alone -------------------------------------------------------------------


def growth(
    pack: SimpleNamespace, dtype: str, device: torch.device, limit: int, rounds: int
) -> list[Figure]:
    """From 256 tokens a side on, 8 heads: ComfyUI's attention alone, and watched."""
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
            "exact": functools.partial(watched, pack, meter, call, q, k, layout),
            "dense": functools.partial(dense_beside, meter, call, q, k, layout),
        }
        for variant, method in methods.items():
            meter.peak = 0
            needed = 4 * heads * tokens**2 * 3
            if variant == "dense" and device.type == "cpu" and needed > available_memory():
                print(f"  {name:10} dense needs {needed / 2**30:.0f} GiB at once: it dies here")
                dies = float("inf")
                figures.append(
                    Figure(name, variant, dies, dies, dies, needed / MIB, 0.0, device.type, dtype)
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


def watched(
    pack: SimpleNamespace, meter: Meter, call: Callable[[], Any], q: Tensor, k: Tensor, layout: Any
) -> None:
    """An attention call as a recording run makes it."""
    hearing: Any = None
    if pack.is_worth_it(q, k):
        hearing = pack.Hearing(layout, True)

        def tell(heard: Any, first: int) -> None:
            with meter():
                hearing.add(heard, first)

        with pack.Listening(q, k, None, None, tell):
            call()
    else:
        call()
    with meter():
        pack.attention_marginals(q, k, layout, heard=hearing)


def dense_beside(meter: Meter, call: Callable[[], Any], q: Tensor, k: Tensor, layout: Any) -> None:
    """An attention call, and the dense method's maps of it."""
    call()
    with meter():
        dense_maps(q, k, layout.generated.slice, tuple(s.slice for s in layout.references))


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one go."""
    started = seconds(device)
    work()
    return seconds(device) - started


def available_memory() -> int:
    """Bytes of memory that are free for use; half of all there is where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return 4 * 2**30


# --- the table ---------------------------------------------------------------------------------


def show(figure: Figure) -> None:
    print(
        f"  {figure.case:8} {figure.variant:18} {figure.dtype:5} × {figure.ratio:6.3f}  "
        f"({figure.ratio_min:.3f} … {figure.ratio_max:.3f})  scratch {figure.scratch_mib:8.1f} MiB"
        f"  record {figure.record_mib:7.2f} MiB",
        flush=True,
    )


def surroundings(device: torch.device) -> str:
    """What the figures were taken on."""
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        load = ", ".join(f"{x:.1f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "?"
        where = f"{platform.machine()} CPU, {torch.get_num_threads()} threads, load {load}"
    return f"{where}, torch {torch.__version__}"


def pack_names(package: str) -> SimpleNamespace:
    """Everything this tool uses of the pack, which is loaded under this name."""
    modules = (
        "nodes.host.hook",
        "nodes.sockets",
        "i2am.tokens",
        "i2am.attention",
        "i2am.recording",
    )
    names = names_of(package, *modules)
    names.recording = importlib.import_module(f"{package}.i2am.recording.recorder")
    names.attention = importlib.import_module(f"{package}.i2am.attention.compute")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--cases", default="", help="some of them, such as a,c,e")
    parser.add_argument("--variants", default="", help="some of them, such as exact,dense")
    parser.add_argument("--dtypes", default="fp32,bf16", help="which precisions")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--steps", type=int, default=0, help="of each run; default: the case's own")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs for each figure")
    parser.add_argument("--tokens", type=int, default=GROWTH[-1], help="how far case e goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    import_comfyui(cpu=options.device == "cpu")
    pack = pack_names(import_pack().__name__)
    device = torch.device(options.device)
    figures: list[Figure] = []
    print(surroundings(device))
    with torch.inference_mode():
        for dtype in options.dtypes.split(","):
            for case in cases(device):
                if options.cases and case.name not in options.cases.split(","):
                    continue
                case = replace(case, steps=options.steps or case.steps)
                print(f"{case.name}: {case.title}, {dtype}, {case.steps} steps", flush=True)
                wanted = variants(case, device)
                if options.variants:
                    wanted = [v for v in wanted if v.name in options.variants.split(",")]
                rounds = options.rounds * (5 if case.name == "d" else 1)
                for figure in Bench(pack, case, dtype, device).figures(wanted, rounds):
                    show(figure)
                    figures.append(figure)
            if not options.cases or "e" in options.cases.split(","):
                print(f"e: growth, attention alone, tokens a side, {dtype}", flush=True)
                figures += growth(pack, dtype, device, options.tokens, options.rounds)
    print(surroundings(device))
    if options.json:
        options.json.write_text(json.dumps([asdict(f) for f in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
