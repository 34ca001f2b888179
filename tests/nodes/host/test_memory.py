"""The host is told what recording needs on a graphics card, so that it leaves room for it."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

START = tiny.latent(22, 1, 16, 8, 8)
REFERENCES = (tiny.latent(10, 1, 16, 6, 6),)
POSITIVE = tiny.conditioning(20, 7, 16, REFERENCES)
NEGATIVE = tiny.conditioning(21, 7, 16)


@pytest.fixture
def asked(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """What each run asks for: (at best, at least), in bytes."""
    import comfy.model_management as management

    found: list[tuple[float, float]] = []
    load = management.load_models_gpu

    def noted(models: Any, memory_required: Any = 0, **more: Any) -> None:
        found.append((memory_required, more["minimum_memory_required"]))
        load(models, memory_required=memory_required, **more)

    monkeypatch.setattr(management, "load_models_gpu", noted)
    return found


def test_on_a_card(
    comfy: Any, asked: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget of scratch memory more, and the picture and the recording as they were."""
    hook, recorder = comfy.pack("nodes.host.hook"), comfy.pack("i2am.recording")
    monkeypatch.setattr(hook, "_has_memory_of_its_own", lambda model: True)
    plain = tiny.sample(tiny.flux(), POSITIVE, NEGATIVE, START, cfg=2.0)
    armed = hook.arm(tiny.flux(), recorder.Plan())
    watched = tiny.sample(armed, POSITIVE, NEGATIVE, START, cfg=2.0)
    assert torch.equal(watched, plain)
    more = [one - other for one, other in zip(asked[1], asked[0], strict=True)]
    assert more == [256 * 2**20] * 2
    store = comfy.pack("i2am.recording")
    record = comfy.pack("nodes.sockets").RECORDINGS.get(store.fingerprint(watched))
    assert isinstance(record, recorder.Recording)


def test_on_the_cpu_nothing_is_asked(comfy: Any, asked: list[tuple[float, float]]) -> None:
    hook, recorder = comfy.pack("nodes.host.hook"), comfy.pack("i2am.recording")
    for model in (tiny.flux(), hook.arm(tiny.flux(), recorder.Plan())):
        tiny.sample(model, POSITIVE, NEGATIVE, START)
    assert asked[0] == asked[1]
