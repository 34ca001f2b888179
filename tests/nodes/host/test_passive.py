"""Watching changes nothing: the picture, the model and other nodes' patches stay the same.

This holds after success, an error, an interrupt and a failure of the pack.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import graph
import pytest
import tiny
import torch
from graph import REFERENCES, changed, flux_graph, same_arrays
from oracle import Spy
from proof import arm_model, filed
from torch import Tensor

START = tiny.latent(22, 1, 16, 8, 6)
POSITIVE = tiny.conditioning(20, 7, 16, REFERENCES[:1])
NEGATIVE = tiny.conditioning(21, 7, 16)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


pytestmark = pytest.mark.usefixtures("tiny_nodes")


@pytest.fixture
def model(tiny_nodes: None) -> Any:
    """The tiny Flux of the test graphs."""
    return graph.flux(0)


@pytest.fixture
def arm(comfy: Any) -> Callable[..., Any]:
    """Arms a model as Capture Attention does: arm(model, layers=((0, 0),))."""
    return partial(arm_model, comfy)


@pytest.fixture
def store(use_store: Any) -> Any:
    """A small store: a few recordings of one step in memory, more in files."""
    return use_store(30_000, 200_000)


@pytest.fixture
def record_of(comfy: Any, store: Any) -> Callable[[Tensor], Any]:
    """What is filed under a latent."""
    return partial(filed, comfy)


def ours(value: Any, pack: str, path: str = "", seen: set[int] | None = None) -> Iterator[str]:
    """Paths to the pack's objects in nested containers, objects and closures."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, (str, bytes, int, float, Tensor, torch.nn.Module)):
        return
    seen.add(id(value))
    module = getattr(value, "__module__", None) or type(value).__module__
    if str(module).startswith(pack) or type(value).__module__.startswith(pack):
        yield path
        return
    inside: dict[Any, Any] = {}
    if isinstance(value, dict):
        inside = value
    elif isinstance(value, (list, tuple, set)):
        inside = dict(enumerate(value))
    elif isinstance(value, MethodType):
        inside = {"self": value.__self__}
    elif isinstance(value, FunctionType):
        cells = value.__closure__ or ()
        inside = dict(enumerate(cell.cell_contents for cell in cells))
    for name, item in inside.items():
        yield from ours(item, pack, f"{path}/{name}", seen)


def attributes(model: Any) -> list[tuple[str, ...]]:
    """The attributes of a model and all its modules, including hooks."""
    return [
        (*sorted(vars(part)), *(f"{k} {len(v)}" for k, v in vars(part).items() if k in _HOOKS))
        for part in (model.model, *model.model.modules())
    ]


def run_options(model: Any, options: list[dict[str, Any]], **faults: Any) -> Tensor:
    """One run like SamplerCustomAdvanced's; appends the options of that run to `options`."""
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(POSITIVE, NEGATIVE)
    guider.set_cfg(1.0)

    def callback(step: int, *_: Any) -> None:
        options.append(guider.model_options)
        if step == 1:
            for fault in faults.values():
                fault()

    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 3)
    noise = tiny.latent(1, *START.shape)
    sampler = comfy.samplers.sampler_object("euler")
    try:
        with torch.inference_mode():
            return guider.sample(noise, START, sampler, sigmas, callback=callback, seed=1)
    finally:
        options.append(guider.model_options)


class TestPicture:
    @pytest.mark.parametrize(
        "options",
        [
            {"sampler": "euler_ancestral", "cfg": 3.0},
            {"sampler": "dpmpp_2m", "scheduler": "normal"},
            {"sampler": "dpm_2", "denoise": 0.5},
            {"sampler": "uni_pc", "cfg": 2.0},
            {"sampler": "lcm"},
            {"sampler": "heun", "noise_mask": torch.ones(1, 1, 8, 6)},
        ],
        ids=lambda options: options["sampler"],
    )
    def test_flux(self, model: Any, arm: Any, record_of: Any, options: dict[str, Any]) -> None:
        """With many samplers and settings, the latent is bit for bit the same, and is recorded."""
        start = START.repeat(2, 1, 1, 1)
        plain = tiny.sample(model, POSITIVE, NEGATIVE, start, **options)
        latent = tiny.sample(arm(model), POSITIVE, NEGATIVE, start, **options)
        assert torch.equal(latent, plain)
        assert record_of(latent).header.run.batch == 2

    def test_half_precision(self, arm: Any, record_of: Any) -> None:
        """The same in bfloat16."""
        model = graph.flux(0)
        model.set_model_compute_dtype(torch.bfloat16)
        plain = tiny.sample(model, POSITIVE, NEGATIVE, START)
        latent = tiny.sample(arm(model), POSITIVE, NEGATIVE, START)
        assert torch.equal(latent, plain)
        assert record_of(latent).header.steps == (0, 1, 2)


class TestOtherOverrides:
    @pytest.mark.neighbour(
        "Another pack's attention override, before us or after us",
        "It is called as often as without us; the same maps on either side",
    )
    def test_before_and_after(self, model: Any, arm: Any, record_of: Any) -> None:
        """Another pack's override is called as often as without Capture, on either side of it."""
        alone, before, after = Spy(), Spy(), Spy()
        plain = tiny.sample(alone.on(model), POSITIVE, NEGATIVE, START)
        recordings = []
        for armed in (arm(before.on(model)), after.on(arm(model))):
            latent = tiny.sample(armed, POSITIVE, NEGATIVE, START)
            assert torch.equal(latent, plain)
            recordings.append(record_of(latent))
        assert len(alone.calls) == len(before.calls) == len(after.calls) > 0
        assert same_arrays(recordings[0].arrays, recordings[1].arrays)

    @pytest.mark.neighbour(
        "An override that replaces attention and never calls the host's, before us or after us",
        "It decides the picture; the maps are of the queries and keys it was given",
    )
    @pytest.mark.parametrize("side", ["before", "after"])
    def test_one_that_replaces_attention(
        self, model: Any, arm: Any, record_of: Any, side: str
    ) -> None:
        """An override that never calls the host's function sets the picture, as without Capture."""

        def even(func: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            mean = v.mean(2, keepdim=True).expand_as(q)
            return mean.transpose(1, 2).flatten(2).contiguous()

        def put_on(model: Any) -> Any:
            other = model.clone()
            other.model_options["transformer_options"]["optimized_attention_override"] = even
            return other

        plain = tiny.sample(put_on(model), POSITIVE, NEGATIVE, START)
        both = arm(put_on(model)) if side == "before" else put_on(arm(model))
        latent = tiny.sample(both, POSITIVE, NEGATIVE, START)
        assert torch.equal(latent, plain)
        assert not torch.equal(plain, tiny.sample(model, POSITIVE, NEGATIVE, START))
        assert len(record_of(latent).header.layers) == 4


class TestNothingLeft:
    @pytest.fixture
    def check(self, comfy: Any, model: Any, arm: Any) -> Iterator[Callable[..., Tensor | None]]:
        """Samples, perhaps with a fault, and checks that nothing of the pack is left.

        After the test, the model without Capture gives the same latent as before.
        """
        spy = Spy()
        plain = run_options(model, [])  # loading a model leaves ComfyUI's own attributes on it

        def check(expected: type[BaseException] | None = None, **faults: Any) -> Tensor | None:
            original = spy.on(model)
            armed = arm(original)
            before = attributes(model)
            options: list[dict[str, Any]] = []
            latent = None
            if expected is None:
                latent = run_options(armed, options, **faults)
            else:
                with pytest.raises(expected):
                    run_options(armed, options, **faults)
            assert attributes(model) == before
            pack = comfy.pack_name
            for patcher in (model, original):
                held = [patcher.model_options, patcher.wrappers, patcher.callbacks]
                held += [patcher.attachments, patcher.object_patches, patcher.hook_patches]
                assert not list(ours(held, pack))
            assert not list(ours([armed.model_options, armed.callbacks], pack))
            armed_with = {"/outer_sample/i2am/0", "/prepare_sampling/i2am/0"}
            assert set(ours(armed.wrappers, pack)) == armed_with
            assert options[0] is not armed.model_options  # the options of this run only
            for used in options:
                assert set(ours(used, pack)) <= {
                    f"/transformer_options/wrappers{name}" for name in armed_with
                }
                assert used["transformer_options"]["optimized_attention_override"] is spy
            return latent

        yield check
        assert torch.equal(run_options(model, []), plain)

    def test_success(self, check: Any, record_of: Any) -> None:
        """After a run without a fault."""
        assert record_of(check()).header.steps == (0, 1, 2)

    def test_an_override_is_there_while_it_runs(self, comfy: Any, model: Any, arm: Any) -> None:
        """The search does find the pack's objects during the run."""
        armed, options, found = arm(model), [], []
        run_options(armed, options, search=lambda: found.extend(ours(options[-1], comfy.pack_name)))
        assert "/transformer_options/optimized_attention_override" in found
        assert "optimized_attention_override" not in options[-1]["transformer_options"]
        assert "optimized_attention_override" not in options[0]["transformer_options"]

    @pytest.mark.fault(
        "The model raises in the middle of a run",
        "Its error reaches the sampler as it is; nothing of ours is left, no incomplete recording "
        "is stored",
        "The render, as it would be without this pack",
    )
    def test_error_in_the_model(
        self, check: Any, model: Any, store: Any, record_of: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the model raised an error in its second evaluation."""
        network, calls = model.model.diffusion_model, []
        working = network.forward_orig

        def failing(*args: Any, **kwargs: Any) -> Tensor:
            calls.append(1)
            if len(calls) > 1:
                raise ZeroDivisionError("the model fails")
            return working(*args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(network, "forward_orig", failing)
            check(ZeroDivisionError)
        assert len(store) == 0
        network.__dict__.pop("forward_orig", None)
        assert record_of(check()).header.steps == (0, 1, 2)

    def test_interrupt(self, check: Any, store: Any, record_of: Any) -> None:
        """After the user pressed stop."""
        from comfy import model_management

        def interrupt() -> None:
            model_management.interrupt_current_processing()
            model_management.throw_exception_if_processing_interrupted()

        check(model_management.InterruptProcessingException, interrupt=interrupt)
        assert len(store) == 0
        assert record_of(check()).header.steps == (0, 1, 2)

    @pytest.mark.fault(
        "Any error while recording",
        "The latent is the same; Collect Attribution shows the error",
        "The recording of this run",
    )
    def test_fault_of_ours(
        self,
        comfy: Any,
        check: Any,
        model: Any,
        record_of: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """After recording failed: the picture is the same, and the reason is kept."""
        plain = run_options(model, [])

        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("out of memory")

        with monkeypatch.context() as patched:
            patched.setattr(comfy.pack("i2am.recording.call"), "attention_marginals", fail)
            latent = check()
        assert torch.equal(latent, plain)
        refusal = record_of(latent)
        assert isinstance(refusal, comfy.pack("i2am.recording").Refusal)
        assert "RuntimeError: out of memory" in refusal.reason
        assert "fewer layers or steps" in refusal.reason
        assert record_of(check()).header.steps == (0, 1, 2)

    @pytest.mark.fault(
        "The recording cannot even begin",
        "The latent is the same",
        "The recording of this run",
    )
    def test_fault_before_the_run(
        self, comfy: Any, check: Any, model: Any, monkeypatch: pytest.MonkeyPatch, store: Any
    ) -> None:
        """After recording could not even start."""
        plain = run_options(model, [])

        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("not today")

        with monkeypatch.context() as patched:
            patched.setattr(comfy.pack("nodes.host.hook"), "Run", fail)
            assert torch.equal(check(), plain)

    @pytest.mark.fault(
        "The finished recording cannot be filed",
        "The latent is the same",
        "The recording of this run",
    )
    def test_fault_while_filing(
        self, comfy: Any, check: Any, model: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the finished recording could not be filed."""
        plain = run_options(model, [])

        def fail(*args: Any, **kwargs: Any) -> None:
            raise OSError("no space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(comfy.pack("nodes.host.run"), "fingerprints", fail)
            assert torch.equal(check(), plain)


class TestInTheGraph:
    def test_collect_tells_what_went_wrong(
        self, comfy: Any, run_graph: Any, store: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The sampler succeeds and Collect shows the error; the next run is recorded."""

        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("out of memory")

        with monkeypatch.context() as patched:
            patched.setattr(comfy.pack("i2am.recording.call"), "attention_marginals", fail)
            run = run_graph(flux_graph(), ["collect"])
        assert set(run.errors) == {"collect"}
        assert "out of memory" in run.errors["collect"]
        assert "The picture is not affected" in run.errors["collect"]
        fine = run_graph(changed(flux_graph(), "sampler", seed=2), ["collect"])
        assert fine.ok, fine.errors
        assert "3 of 3 model evaluations" in fine.value("collect", 2)

    def test_interrupt(self, run_graph: Any, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """After a stop in the sampler, the same prompt, queued again, is recorded in full."""
        from comfy import model_management

        network = graph.flux(0).model.diffusion_model
        working = network.forward_orig

        def stopping(*args: Any, **kwargs: Any) -> Tensor:
            model_management.interrupt_current_processing()
            model_management.throw_exception_if_processing_interrupted()
            return working(*args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(network, "forward_orig", stopping)
            stopped = run_graph(flux_graph(), ["collect"])
        network.__dict__.pop("forward_orig", None)
        assert stopped.errors == {"sampler": "interrupted"}
        assert len(store) == 0
        fine = run_graph(flux_graph(), ["collect"])
        assert fine.value("collect").recording.header.evaluations == 3


@pytest.mark.fault(
    "60 runs with different seeds and a small store",
    "Store and files stay within their limits, no recorder stays alive",
    "The oldest recordings, beyond the limits",
)
def test_no_growth(
    comfy: Any, model: Any, arm: Any, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 60 runs the store is within its limits and no recorder is alive."""
    hook = comfy.pack("nodes.host.hook")
    recorders: list[weakref.ref[Any]] = []

    class Counted(hook.Recorder):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            recorders.append(weakref.ref(self))

    monkeypatch.setattr(hook, "Recorder", Counted)
    armed = arm(model)
    sizes = []
    for seed in range(60):
        tiny.sample(armed, POSITIVE, NEGATIVE, START, steps=1, seed=seed)
        sizes.append(len(store))
    gc.collect()
    assert len(recorders) == 60
    assert [found() for found in recorders] == [None] * 60
    assert sizes[-1] == sizes[50] < 50
    files = list(tmp_path.iterdir())
    assert sum(file.stat().st_size for file in files) <= 200_000
    store.clear()
    assert not list(tmp_path.iterdir())
    assert len(store) == 0
