"""The tap reads the sums of the host's fused attention, and gives the right recording.

The processor's operator stands for a card's (tests/attention/test_torch_backend.py has theirs).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tiny
import torch
from proof import arm_model, recording, without_triton
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

REFERENCES = (tiny.latent(10, 1, 16, 7, 14), tiny.latent(11, 1, 16, 6, 5))
POSITIVE = tiny.conditioning(20, 7, 16, REFERENCES)
START = tiny.latent(22, 2, 16, 12, 10)


@pytest.fixture(autouse=True)
def fused(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ComfyUI computes attention on a card."""
    import comfy.ldm.flux.math as flux_math
    import comfy.ldm.modules.attention as attention

    monkeypatch.setattr(flux_math, "optimized_attention", attention.attention_pytorch)


@pytest.fixture
def known(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """For each recorded call, whether its rows' sums were known."""
    add, calls = comfy.pack("i2am.recording").Recorder.add, list[bool]()

    def noted(*args: Any, **options: Any) -> None:
        calls.append(options["log_sum"] is not None)
        add(*args, **options)

    monkeypatch.setattr(comfy.pack("i2am.recording").Recorder, "add", noted)
    with without_triton(comfy):
        yield calls


def sampled(comfy: Any, **plan: Any) -> Tensor:
    model = tiny.flux()
    plain = tiny.sample(model, POSITIVE, POSITIVE, START)
    latent = tiny.sample(arm_model(comfy, model, **plan), POSITIVE, POSITIVE, START)
    assert torch.equal(latent, plain)
    assert not _get_current_dispatch_mode_stack()
    return latent


def computed(comfy: Any, **plan: Any) -> Any:
    """The recording of the same run without a tap."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(comfy.pack("nodes.host.calls"), "can_tap_log_sum", lambda q, k: False)
        return recording(comfy, sampled(comfy, **plan))


@pytest.mark.parametrize("plan", [{}, {"definitions": "all"}], ids=str)
@pytest.mark.parametrize("at_once", [1, 64])
def test_same_recording(
    comfy: Any,
    known: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    plan: dict[str, str],
    at_once: int,
) -> None:
    """The host cuts large batches into pieces."""
    import comfy.ldm.modules.attention as attention

    monkeypatch.setattr(attention, "SDP_BATCH_LIMIT", at_once)
    latent = sampled(comfy, **plan)
    assert known
    assert all(known)
    known.clear()
    wanted = computed(comfy, **plan)
    assert not any(known)
    for name, array in recording(comfy, latent).arrays.items():
        assert torch.allclose(array, wanted.arrays[name], rtol=1e-4, atol=1e-7), name


def test_thinned(comfy: Any, known: list[bool]) -> None:
    """A budget leaves rows out, and their sums with them."""
    wide = tiny.latent(22, 1, 16, 70, 66)
    plain = tiny.sample(tiny.flux(), POSITIVE, POSITIVE, wide)
    recordings: list[Any] = []
    for tap in (True, False):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                comfy.pack("nodes.host.calls"), "can_tap_log_sum", lambda q, k, tap=tap: tap
            )
            armed = arm_model(comfy, tiny.flux(), budget="fast")
            latent = tiny.sample(armed, POSITIVE, POSITIVE, wide)
        assert torch.equal(latent, plain)
        recordings.append(recording(comfy, latent))
    assert set(known) == {True, False}
    for name, array in recordings[0].arrays.items():
        assert torch.allclose(array, recordings[1].arrays[name], rtol=1e-4, atol=1e-7), name


@pytest.mark.fault(
    "Attention raises an error, or the user interrupts it, while its row sums are tapped",
    "The error reaches the sampler as it is; nothing of ours is left; sampled again it is recorded "
    "in full",
    "The render, as it would be without this pack",
)
@pytest.mark.parametrize("kind", ["memory", "interrupt"])
def test_attention_fails(
    comfy: Any, known: list[bool], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import comfy.ops as ops
    from comfy import model_management

    errors = {
        "memory": torch.OutOfMemoryError,
        "interrupt": model_management.InterruptProcessingException,
    }
    working, inside = ops.scaled_dot_product_attention, list[int]()

    def failing(*args: Any, **options: Any) -> Tensor:
        inside.append(len(_get_current_dispatch_mode_stack()))
        if len(inside) == 6:
            raise errors[kind]()
        return working(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(ops, "scaled_dot_product_attention", failing)
        with pytest.raises(errors[kind]):
            tiny.sample(arm_model(comfy, tiny.flux()), POSITIVE, POSITIVE, START)
    assert inside == [1] * 6
    assert not _get_current_dispatch_mode_stack()
    assert recording(comfy, sampled(comfy)).header.evaluations == 3
