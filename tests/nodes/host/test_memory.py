"""The host is asked to leave room for recording on a graphics card."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from proof import arm_model, recording

START = tiny.latent(22, 1, 16, 8, 8)
REFERENCES = (tiny.latent(10, 1, 16, 6, 6),)
POSITIVE = tiny.conditioning(20, 7, 16, REFERENCES)
NEGATIVE = tiny.conditioning(21, 7, 16)


@pytest.fixture
def requests(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The memory each run asks for: (ideally, at least), in bytes."""
    import comfy.model_management as management

    requests: list[tuple[float, float]] = []
    load = management.load_models_gpu

    def noted(models: Any, memory_required: Any = 0, **more: Any) -> None:
        requests.append((memory_required, more["minimum_memory_required"]))
        load(models, memory_required=memory_required, **more)

    monkeypatch.setattr(management, "load_models_gpu", noted)
    return requests


def test_on_a_card(
    comfy: Any, requests: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scratch memory budget is added; the latent is the same, and it is recorded."""
    hook = comfy.pack("nodes.host.hook")
    monkeypatch.setattr(hook, "_has_memory_of_its_own", lambda model: True)
    plain = tiny.sample(tiny.flux(), POSITIVE, NEGATIVE, START, cfg=2.0)
    armed = arm_model(comfy, tiny.flux())
    watched = tiny.sample(armed, POSITIVE, NEGATIVE, START, cfg=2.0)
    assert torch.equal(watched, plain)
    more = [watching - not_watching for not_watching, watching in zip(*requests, strict=True)]
    assert more == [256 * 2**20] * 2
    recording(comfy, watched)


def test_on_the_cpu_nothing_is_asked(comfy: Any, requests: list[tuple[float, float]]) -> None:
    for model in (tiny.flux(), arm_model(comfy, tiny.flux())):
        tiny.sample(model, POSITIVE, NEGATIVE, START)
    assert requests[0] == requests[1]
