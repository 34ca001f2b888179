"""The tap reads the host's softmax wherever it is computed, and gives the right recording.

Other packs' attention functions are left alone. In every case, nothing of the pack remains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import tiny
import torch
from proof import arm_model, every_call_tapped, recording, refusal_reason
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack

REFERENCES = (tiny.latent(10, 1, 16, 7, 14), tiny.latent(11, 1, 16, 6, 5))
POSITIVE = tiny.conditioning(20, 7, 16, REFERENCES)
START = tiny.latent(22, 2, 16, 12, 10)


@pytest.fixture
def observed(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """For each recorded call, whether its whole softmax was observed."""
    add, complete = comfy.pack("i2am.recording").Recorder.add, list[bool]()

    def noted(*args: Any, **options: Any) -> None:
        complete.append(options["observed"] is not None and options["observed"].complete)
        add(*args, **options)

    monkeypatch.setattr(comfy.pack("i2am.recording").Recorder, "add", noted)
    with every_call_tapped(comfy):
        yield complete


def overridden(override: Callable[..., Tensor]) -> Any:
    """A tiny Flux with another pack's attention override."""
    model = tiny.flux().clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    return model


def sampled(comfy: Any, override: Callable[..., Tensor] | None = None) -> Tensor:
    """A latent sampled with a watched model, with or without another pack's override."""
    model = tiny.flux() if override is None else overridden(override)
    plain = tiny.sample(model, POSITIVE, POSITIVE, START)
    latent = tiny.sample(arm_model(comfy, model), POSITIVE, POSITIVE, START)
    assert torch.equal(latent, plain)
    assert not _get_current_function_mode_stack()
    return latent


def computed(comfy: Any, override: Callable[..., Tensor] | None = None) -> Any:
    """The recording of the same run without a tap."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(comfy.pack("i2am.attention.softmax_tap"), "SMALL_BYTES", 2**60)
        return recording(comfy, sampled(comfy, override))


def assert_same(comfy: Any, latent: Tensor, wanted: Any) -> None:
    """The recording of this latent has the wanted arrays."""
    for name, array in recording(comfy, latent).arrays.items():
        assert torch.allclose(array, wanted.arrays[name], rtol=1e-3, atol=1e-7), name


@pytest.mark.parametrize("backend", ["basic", "sub_quad", "split", "pytorch"])
def test_backends(
    comfy: Any, observed: list[bool], monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    import comfy.ldm.flux.math as flux_math
    import comfy.ldm.modules.attention as attention

    monkeypatch.setattr(
        flux_math, "optimized_attention", getattr(attention, f"attention_{backend}")
    )
    latent = sampled(comfy)
    assert observed
    assert set(observed) == {backend != "pytorch"}  # PyTorch never holds the logits as a tensor
    observed.clear()
    wanted = computed(comfy)
    assert not any(observed)
    assert_same(comfy, latent, wanted)


@pytest.mark.parametrize("size", [7, 64, 300])
def test_pieces_of_the_queries(
    comfy: Any, observed: list[bool], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The host computes long sequences in pieces: some queries, all keys."""
    import comfy.ldm.modules.attention as attention

    working = attention.efficient_dot_product_attention
    pieces: list[int] = []

    def cut(*args: Any, query_chunk_size: int, **options: Any) -> Tensor:
        pieces.append(-(-args[0].shape[1] // size))
        return working(*args, query_chunk_size=size, **options)

    monkeypatch.setattr(attention, "efficient_dot_product_attention", cut)
    latent = sampled(comfy)
    assert (max(pieces) > 1) == (size < 300)
    assert observed
    assert all(observed)
    assert_same(comfy, latent, computed(comfy))


def test_pieces_of_the_keys(
    comfy: Any, observed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When memory is short the host splits the keys too, so there is no softmax to observe."""
    import comfy.model_management as management

    wanted = recording(comfy, sampled(comfy))
    assert all(observed)
    observed.clear()
    free_memory = management.get_free_memory

    def little(device: Any = None, torch_free_too: bool = False) -> Any:
        return (1, 1) if torch_free_too else free_memory(device)

    monkeypatch.setattr(management, "get_free_memory", little)
    latent = sampled(comfy)
    assert observed
    assert not any(observed)
    assert_same(comfy, latent, wanted)


def attention_of_a_pack(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as another pack might write it."""
    return ((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)


def test_a_function_of_another_pack(
    comfy: Any, observed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of ComfyUI's own function, and registered like it, it is not tapped."""
    import comfy.ldm.flux.math as flux_math
    import comfy.ldm.modules.attention as attention

    def attention_own(q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> Tensor:
        assert not _get_current_function_mode_stack()
        return attention_of_a_pack(q, k, v)

    monkeypatch.setattr(flux_math, "optimized_attention", attention.wrap_attn(attention_own))
    latent = sampled(comfy)
    assert observed
    assert not any(observed)
    assert_same(comfy, latent, computed(comfy))


@pytest.mark.neighbour(
    "An override that runs a function compiled with torch.compile, whole or in parts",
    "The same maps; none of our code is compiled, and the pack compiles as much as without us",
)
@pytest.mark.parametrize("whole", [True, False])
def test_compiled_override(comfy: Any, observed: list[bool], whole: bool) -> None:
    compiled = torch.compile(attention_of_a_pack, backend="eager", fullgraph=whole)

    def override(func: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> Tensor:
        return compiled(q, k, v)

    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    tiny.sample(overridden(override), POSITIVE, POSITIVE, START)
    before = graphs["unique_graphs"]
    assert before > 0
    latent = sampled(comfy, override)
    assert graphs["unique_graphs"] == before
    assert observed
    assert_same(comfy, latent, computed(comfy, override))


@pytest.mark.neighbour(
    "An override that computes attention in another thread",
    "The same maps; that thread is not touched",
)
def test_override_in_another_thread(comfy: Any, observed: list[bool]) -> None:
    with ThreadPoolExecutor(1) as thread:

        def override(func: Any, *args: Any, **options: Any) -> Tensor:
            return thread.submit(torch.inference_mode()(func), *args, **options).result()

        latent = sampled(comfy, override)
        assert not thread.submit(_get_current_function_mode_stack).result()
        assert observed
        assert_same(comfy, latent, computed(comfy, override))


@pytest.mark.neighbour(
    "An override that also runs attention on altered tokens, as guidance does",
    "The maps are of the model's own attention",
)
def test_attention_of_other_queries_before_the_model_s_own(
    comfy: Any, observed: list[bool]
) -> None:
    def twice(func: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> Tensor:
        blurred = func(q * 0.5, k, v, *args, **options)
        return func(q, k, v, *args, **options) + 0.1 * blurred

    latent = sampled(comfy, twice)
    assert observed
    assert_same(comfy, latent, computed(comfy, twice))


@pytest.mark.fault(
    "Attention raises an error, or the user interrupts it, while its softmax is tapped: before "
    "the softmax or after",
    "The error reaches the sampler as it is; nothing of ours is left, no incomplete recording "
    "is stored; sampled again it is recorded in full",
    "The render, as it would be without this pack",
)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", ["error", "memory", "interrupt", "Ctrl+C"])
def test_attention_fails(
    comfy: Any, observed: list[bool], monkeypatch: pytest.MonkeyPatch, kind: str, after: bool
) -> None:
    import comfy.ldm.modules.attention as attention
    from comfy import model_management

    errors = {
        "error": ZeroDivisionError,
        "memory": torch.OutOfMemoryError,
        "interrupt": model_management.InterruptProcessingException,
        "Ctrl+C": KeyboardInterrupt,
    }
    model, calls, inside = tiny.flux(), [], []
    plain = tiny.sample(model, POSITIVE, POSITIVE, START)
    working = attention.efficient_dot_product_attention
    store = comfy.pack("nodes.sockets").RECORDINGS
    filed = len(store)

    def failing(*args: Any, **options: Any) -> Tensor:
        calls.append(1)
        inside.append(len(_get_current_function_mode_stack()))
        output = working(*args, **options) if after or len(calls) < 6 else None
        if len(calls) == 6:
            raise errors[kind]()
        assert output is not None
        return output

    with monkeypatch.context() as patched:
        patched.setattr(attention, "efficient_dot_product_attention", failing)
        with pytest.raises(errors[kind]):
            tiny.sample(arm_model(comfy, model), POSITIVE, POSITIVE, START)
    assert inside == [1] * 6
    assert not _get_current_function_mode_stack()
    assert len(store) == filed
    assert torch.equal(tiny.sample(model, POSITIVE, POSITIVE, START), plain)
    again = tiny.sample(arm_model(comfy, model), POSITIVE, POSITIVE, START)
    assert torch.equal(again, plain)
    assert recording(comfy, again).header.evaluations == 3


@pytest.mark.fault(
    "Recording fails, or memory runs out in it, while the softmax is tapped",
    "The latent is the same; Collect Attribution shows the error",
    "The recording of this run",
)
@pytest.mark.parametrize("where", ["tap", "add"])
@pytest.mark.parametrize("error", [RuntimeError, MemoryError, torch.OutOfMemoryError])
def test_a_failing_tap_ends_the_recording_alone(
    comfy: Any,
    observed: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    where: str,
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error("out of luck")

    owner, name = ("recording", "Recorder") if where == "add" else ("attention", "SoftmaxSums")
    monkeypatch.setattr(getattr(comfy.pack(f"i2am.{owner}"), name), "add", fail)
    latent = sampled(comfy)
    assert "out of luck" in refusal_reason(comfy, latent)
