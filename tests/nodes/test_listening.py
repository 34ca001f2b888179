"""Real attention functions are listened to where they hold their logits, and never misheard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tiny
import torch
from proof import listening_to_all, recording
from torch import Tensor

REFERENCES = (tiny.latent(10, 1, 16, 7, 14), tiny.latent(11, 1, 16, 6, 5))
POSITIVE = tiny.conditioning(20, 7, 16, REFERENCES)
START = tiny.latent(22, 2, 16, 12, 10)


@pytest.fixture
def heard(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Of each call that was recorded, whether it was heard."""
    add, found = comfy.pack("i2am.recorder").Recorder.add, list[bool]()

    def noted(*args: Any, **options: Any) -> None:
        found.append(options["heard"] is not None)
        add(*args, **options)

    monkeypatch.setattr(comfy.pack("i2am.recorder").Recorder, "add", noted)
    with listening_to_all(comfy):
        yield found


def sampled(comfy: Any, override: Any) -> Tensor:
    """A latent of a model with another pack's attention override, watched."""
    other = tiny.flux().clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = override
    plain = tiny.sample(other, POSITIVE, POSITIVE, START)
    plan = comfy.pack("i2am.recorder").Plan()
    found = tiny.sample(comfy.pack("nodes.hook").arm(other, plan), POSITIVE, POSITIVE, START)
    assert torch.equal(found, plain)
    return found


def assert_same(comfy: Any, found: Tensor, wanted: Any) -> None:
    for name, array in recording(comfy, found).arrays.items():
        assert torch.allclose(array, wanted.arrays[name], rtol=1e-3, atol=1e-7), name


@pytest.mark.parametrize("backend", ["basic", "sub_quad", "split", "pytorch"])
def test_backends(comfy: Any, heard: list[bool], backend: str) -> None:
    import comfy.ldm.modules.attention as attention

    chosen = getattr(attention, f"attention_{backend}")
    found = sampled(comfy, lambda func, *args, **options: chosen(*args, **options))
    assert heard
    assert set(heard) == {backend != "pytorch"}  # which holds no logits at once
    heard.clear()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(comfy.pack("i2am.listening"), "SMALL_BYTES", 2**60)
        computed = sampled(comfy, lambda func, *args, **options: chosen(*args, **options))
    assert not any(heard)
    assert_same(comfy, found, recording(comfy, computed))


def test_pieces_of_the_queries(
    comfy: Any, heard: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is short the host goes through the queries piece by piece."""
    import comfy.model_management as management

    wanted = recording(comfy, sampled(comfy, lambda func, *args, **options: func(*args, **options)))
    assert all(heard)
    heard.clear()
    whole = management.get_free_memory

    def little(device: Any = None, torch_free_too: bool = False) -> Any:
        return (1, 1) if torch_free_too else whole(device)

    monkeypatch.setattr(management, "get_free_memory", little)
    found = sampled(comfy, lambda func, *args, **options: func(*args, **options))
    assert heard
    assert not any(heard)  # in so little memory it cuts the keys, too
    assert_same(comfy, found, wanted)


def test_attention_of_other_queries_before_the_model_s_own(comfy: Any, heard: list[bool]) -> None:
    """A pack that runs the function on tampered tokens as well, as guidance does, is not taken for
    the model's own attention; what it passes on is."""

    def twice(func: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> Tensor:
        blurred = func(q * 0.5, k, v, *args, **options)
        return func(q, k, v, *args, **options) + 0.1 * blurred

    found = sampled(comfy, twice)
    assert all(heard)
    heard.clear()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(comfy.pack("i2am.listening"), "SMALL_BYTES", 2**60)
        computed = sampled(comfy, twice)
    assert_same(comfy, found, recording(comfy, computed))


def test_what_fails_while_listening_ends_the_recording_alone(
    comfy: Any, heard: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(comfy.pack("i2am.recorder").Recorder, "add", fail)
    latent = sampled(comfy, lambda func, *args, **options: func(*args, **options))
    store = comfy.pack("i2am.store")
    record = comfy.pack("nodes.sockets").RECORDINGS.get(store.fingerprint(latent))
    assert isinstance(record, store.Refusal)
    assert "out of luck" in record.reason
