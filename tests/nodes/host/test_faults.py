"""Whatever goes wrong while sampling, the picture or the error is the same as without capture.

After each fault, sampling without Capture Attention gives exactly the latent it gave before.
"""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import graph
import psutil
import pytest
import tiny
import torch
from graph import REFERENCES, changed, collect, flux_graph, node, sampler
from proof import arm_model, filed
from torch import Tensor

START = tiny.latent(22, 1, 16, 8, 6)
POSITIVE = tiny.conditioning(20, 7, 16, REFERENCES[:1])
NEGATIVE = tiny.conditioning(21, 7, 16)
Sample = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("tiny_nodes")


@pytest.fixture(autouse=True)
def store(use_store: Any) -> Any:
    """A store for one test, which keeps one recording in memory and moves others to files."""
    return use_store(memory_bytes=1)


@pytest.fixture
def record_of(comfy: Any, store: Any) -> Callable[[Tensor], Any]:
    """What is filed under a latent."""
    return partial(filed, comfy)


@pytest.fixture
def arm(comfy: Any) -> Callable[[Any], Any]:
    """Arms a model as Capture Attention does."""
    return partial(arm_model, comfy)


@pytest.fixture
def model(tiny_nodes: None) -> Any:
    return graph.flux(0)


def sampled(model: Any, **options: Any) -> Tensor:
    return tiny.sample(model, POSITIVE, NEGATIVE, START, **options)


@pytest.fixture(autouse=True)
def unharmed(model: Any) -> Iterator[None]:
    """After the test, the model without Capture gives exactly the same latent as before."""
    before = sampled(model)
    yield
    assert torch.equal(sampled(model), before)


def failing(monkeypatch: pytest.MonkeyPatch, thing: Any, name: str, at: int, error: type) -> None:
    """Makes the `at`-th call of `thing.name`, counted from 1, raise this error."""
    working, calls = getattr(thing, name), []

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise error()
        return working(*args, **kwargs)

    monkeypatch.setattr(thing, name, sometimes)


@pytest.mark.fault(
    "Memory runs out while recording, on the card or beside it, early or late",
    "The render goes on with the same bits; what the recording held is free at once; Collect "
    "Attribution says that memory ran out and to record fewer layers or steps",
    "The recording of this run",
)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
@pytest.mark.parametrize(
    ("together", "at"), [(False, 1), (False, 6), (False, 12), (True, 1), (True, 3), (True, 4)]
)
def test_out_of_memory(
    comfy: Any,
    model: Any,
    arm: Any,
    record_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    together: bool,
    at: int,
) -> None:
    """Calls are computed one by one, or a step's calls together when the next step begins."""
    plain, hook, alive = sampled(model), comfy.pack("nodes.host.hook"), []
    recorders: list[weakref.ref[Any]] = []

    class Watched(hook.Recorder):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            recorders.append(weakref.ref(self))

    def look(*_: Any) -> None:
        gc.collect()
        alive.append(recorders[0]() is not None)

    with monkeypatch.context() as patched:
        patched.setattr(hook, "Recorder", Watched)
        log = comfy.pack("nodes.host.run")._log
        patched.setattr(log, "disabled", True)  # pytest keeps log records, with their frames
        if not together:
            patched.setattr(comfy.pack("i2am.attention.call_batch"), "SMALL_BYTES", 0)
        failing(patched, comfy.pack("i2am.recording.call"), "attention_marginals", at, error)
        latent = sampled(arm(model), steps=4, callback=look)
    assert torch.equal(latent, sampled(model, steps=4))
    # Whether the recorder is alive after each step, which has four calls.
    assert alive == [step < (at if together else (at - 1) // 4) for step in range(4)]
    refusal = record_of(latent)
    assert f"stopped with {error.__name__}" in refusal.reason
    assert "fewer layers or steps" in refusal.reason
    again = sampled(arm(model))
    assert torch.equal(again, plain)
    assert record_of(again).header.evaluations == 3


@pytest.mark.fault(
    "Another pack's patch raises, put on the model before Capture Attention or after",
    "Its error reaches the sampler as it is",
    "The render, as it would be without this pack",
)
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("kind", ["block", "override", "wrapper"])
def test_error_in_another_pack(model: Any, arm: Any, store: Any, side: str, kind: str) -> None:
    from comfy.patcher_extension import WrappersMP

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("another pack's own mistake")

    def patched(model: Any) -> Any:
        other = model.clone()
        options = other.model_options["transformer_options"]
        if kind == "block":
            other.set_model_patch_replace(fail, "dit", "double_block", 1)
        elif kind == "override":
            options["optimized_attention_override"] = fail
        else:
            other.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "another", fail)
        return other

    both = arm(patched(model)) if side == "before" else patched(arm(model))
    with pytest.raises(ZeroDivisionError, match="another pack's own mistake"):
        sampled(both)
    assert len(store) == 0


@pytest.mark.fault(
    "The user interrupts, in any evaluation of the model or just after the last step",
    "The run ends there; no incomplete recording is stored; the same prompt again is recorded "
    "in full",
    "The render, as it would be without this pack",
)
@pytest.mark.parametrize("stage", ["evaluation 1", "evaluation 2", "evaluation 3", "last step"])
def test_interrupt(
    run_graph: Any, model: Any, store: Any, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from comfy import model_management, utils

    stop = model_management.InterruptProcessingException
    with monkeypatch.context() as patched:
        if stage == "last step":
            failing(patched, utils.ProgressBar, "update_absolute", 3, stop)
        else:
            failing(patched, model.model.diffusion_model, "forward_orig", int(stage[-1]), stop)
        stopped = run_graph(flux_graph(), ["collect"])
    vars(model.model.diffusion_model).pop("forward_orig", None)
    assert stopped.errors == {"sampler": "interrupted"}
    assert len(store) == 0
    fine = run_graph(flux_graph(), ["collect"])
    assert fine.value("collect").recording.header.evaluations == 3


@pytest.mark.fault(
    "The user interrupts in a node below the sampler",
    "The prompt ends there; queued again it goes on from the cached latent with its recording",
    "Nothing",
)
def test_interrupt_below(run_graph: Any, comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy import model_management

    stop = model_management.InterruptProcessingException
    with monkeypatch.context() as patched:
        failing(patched, comfy.pack("nodes.watch.collect"), "recording_report", 1, stop)
        stopped = run_graph(flux_graph(), ["collect"])
    assert stopped.errors == {"collect": "interrupted"}
    fine = run_graph(flux_graph(), ["collect"])
    assert fine.ok, fine.errors
    assert "sampler" not in fine.executed


@pytest.mark.fault(
    "Another pack changes the options of the run under our feet: new ones, none, or emptied",
    "The render goes on with the same bits and nothing of ours stays behind",
    "At most the recording of this run, said by Collect Attribution",
)
@pytest.mark.parametrize("change", ["new", "none", "emptied"])
def test_options_replaced(model: Any, arm: Any, record_of: Any, change: str) -> None:
    from comfy.patcher_extension import WrappersMP

    def meddle(executor: Any, *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        options = guider.model_options["transformer_options"]
        if change == "new":
            guider.model_options = {**guider.model_options, "transformer_options": {}}
        elif change == "none":
            guider.model_options = {}
        else:
            options.clear()
        return executor(*args, **kwargs)

    other = model.clone()
    other.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "another", meddle)
    armed = arm(model)
    armed.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "another", meddle)
    latent = sampled(armed)
    assert torch.equal(latent, sampled(other))
    assert "Nothing was recorded" in record_of(latent).reason


@pytest.mark.fault(
    "The disk is full, or the temporary folder is gone, when an older recording is moved to it",
    "The render and the newest recording are as ever; no partial file is left; asked for the older "
    "one, Collect Attribution says that it was lost",
    "The older recording",
)
@pytest.mark.parametrize("fault", ["full", "gone"])
def test_full_disk(
    run_graph: Any, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    first = run_graph(flux_graph(), ["collect"])
    working = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        if fault == "full":
            working(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", half)
        second = run_graph(changed(flux_graph(), "sampler", seed=2), ["collect"])
    assert first.ok, first.errors
    assert second.ok, second.errors
    assert not list(tmp_path.iterdir())
    assert len(store) == 1
    mask = {"white": node("SolidMask", value=1.0, width=48, height=64)}
    back = run_graph(changed(flux_graph(**mask), "collect", mask=["white", 0]), ["collect"])
    assert "No recording belongs to this latent" in back.errors["collect"]
    assert "lost to newer ones" in back.errors["collect"]


@pytest.mark.fault(
    "A file of an older recording cannot be deleted or read",
    "The recording is used, newer ones are filed",
    "Nothing; ComfyUI empties its temporary folder when it starts",
)
def test_stubborn_files(
    run_graph: Any, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2, 3):
        assert run_graph(changed(flux_graph(), "sampler", seed=seed), ["collect"]).ok
    assert len(list(tmp_path.iterdir())) == 2
    mask = {"white": node("SolidMask", value=1.0, width=48, height=64)}
    old = changed(flux_graph(**mask), "collect", mask=["white", 0])

    def refusing(working: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
            if path.name in stubborn:
                raise PermissionError(errno.EACCES, "The file is in use")
            return working(path, *args, **kwargs)

        return refuse

    stubborn = {path.name for path in tmp_path.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refusing(Path.unlink))
        back = run_graph(old, ["collect"])
        patched.setattr(Path, "stat", refusing(Path.stat))
        newer = run_graph(changed(flux_graph(), "sampler", seed=4), ["collect"])
    assert back.value("collect").recording.header.run.seed == 1
    assert newer.value("collect").recording.header.run.seed == 4
    assert len(store) == 4


@pytest.mark.fault(
    "The model is partly offloaded: its weights are loaded layer by layer",
    "The same latent, recorded as ever",
    "Nothing",
)
def test_offloaded(model: Any, arm: Any, record_of: Any) -> None:
    plain = sampled(model)
    latent = sampled(arm(model))
    before = record_of(latent)
    patcher = arm(model)
    patcher.partially_unload(torch.device("cpu"), 2**40)
    modules = list(model.model.diffusion_model.modules())
    try:
        cast = [module for module in modules if hasattr(module, "comfy_cast_weights")]
        for module in cast:
            module.comfy_cast_weights = True
        assert len(cast) > 20
        latent = sampled(patcher)
        assert torch.equal(latent, plain)
        assert torch.equal(latent, sampled(model))
        after = record_of(latent)
        assert after is not before
        assert graph.same(after, before)
    finally:
        for module in modules:
            if hasattr(module, "comfy_cast_weights"):
                module.comfy_cast_weights = False


@pytest.mark.fault(
    "The same graph runs 200 times, nothing cached",
    "As many objects, tensors, threads and open files after 200 runs as after 20",
    "Nothing",
)
def test_two_hundred_times(comfy: Any, make_runner: Any, tmp_path: Path) -> None:
    run_graph = make_runner("NONE")
    prompt = changed(flux_graph(map=graph.attribution_map()), "sampler", steps=1)

    def state() -> tuple[int, ...]:
        gc.collect()
        objects = gc.get_objects()
        ours = sum(str(type(thing).__module__).startswith(comfy.pack_name) for thing in objects)
        tensors = [thing for thing in objects if issubclass(type(thing), Tensor)]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        process = psutil.Process()
        files = len(process.open_files())
        kept = len(list(tmp_path.iterdir()))
        return ours, len(tensors), size, threading.active_count(), files, kept

    counts = []
    for number in range(1, 201):
        run = run_graph(prompt, ["map"])
        assert run.ok, run.errors
        if number in (20, 200):
            del run
            counts.append(state())
    assert counts[0] == counts[1]


@pytest.mark.fault(
    "Old seeds come back from every kind of ComfyUI's cache: RAM pressure, classic, LRU, none",
    "Each latent leads to the recording of the run that made it",
    "Nothing",
)
@pytest.mark.parametrize("cache", ["RAM_PRESSURE", "CLASSIC", "LRU", "NONE"])
def test_caches(make_runner: Any, cache: str) -> None:
    run_graph = make_runner(cache)
    mask = {"white": node("SolidMask", value=1.0, width=48, height=64)}
    masked = changed(flux_graph(**mask), "collect", mask=["white", 0])
    for prompt in (flux_graph(), masked):
        for seed in (1, 2, 3, 1):
            run = run_graph(changed(prompt, "sampler", seed=seed), ["collect"])
            assert run.ok, run.errors
            assert run.ui["collect"]["i2am"][0]["seed"] == seed


@pytest.mark.fault(
    "Two samplers share one watched model, and one of them fails",
    "The other's latent leads to its own recording",
    "The failed sampler's render, as without us",
)
def test_one_of_two_samplers_fails(
    run_graph: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = flux_graph(sampler2=sampler(seed=2), collect2=collect("sampler2"))
    with monkeypatch.context() as patched:
        failing(patched, model.model.diffusion_model, "forward_orig", 4, ZeroDivisionError)
        run = run_graph(prompt, ["collect", "collect2"])
    vars(model.model.diffusion_model).pop("forward_orig", None)
    (failed,) = run.errors
    assert failed in ("sampler", "sampler2")
    again = run_graph(prompt, ["collect", "collect2"])
    assert [again.value(name).recording.header.run.seed for name in ("collect", "collect2")] == [
        1,
        2,
    ]
    assert {"sampler", "sampler2"} - set(again.executed) == {"sampler", "sampler2"} - {failed}
