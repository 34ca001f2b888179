"""Copies to the CPU that nothing waits for, with a card that is made up."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from i2am.recording.host_copy import HostCopy


class OnCard(torch.Tensor):
    """A tensor that says it is on a card."""

    @property
    def is_cuda(self) -> bool:
        return True


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the card, in order."""
    asked: list[str] = []

    class Event:
        def record(self, stream: Any) -> None:
            asked.append(f"record on {stream}")

        def synchronize(self) -> None:
            asked.append("wait")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    return asked


def test_on_the_cpu(waits: list[str]) -> None:
    tensors = [torch.arange(3.0), torch.ones(2, 2)]
    assert all(map(torch.equal, HostCopy(tensors).arrived(), tensors))
    assert not waits


@pytest.mark.parametrize("pinned", [True, False])
def test_from_a_card(monkeypatch: pytest.MonkeyPatch, waits: list[str], pinned: bool) -> None:
    """One event for all copies, waited for when they are read; memory that cannot be pinned is
    waited for at once."""
    empty, asked = torch.empty, list[bool]()

    def made(*args: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        asked.append(pin_memory)
        if not pinned:
            raise RuntimeError("no pinned memory")
        return empty(*args, **options)

    monkeypatch.setattr(torch, "empty", made)
    tensors = [torch.arange(3.0).as_subclass(OnCard), torch.ones(2, 2).as_subclass(OnCard)]
    copies = HostCopy(tensors)
    assert waits == ["record on the stream of cpu"]
    found = copies.arrived()
    assert waits[1:] == ["wait"]
    assert asked == [True, True]
    assert all(map(torch.equal, found, tensors))


def test_nothing(waits: list[str]) -> None:
    assert HostCopy([]).arrived() == []
    assert not waits
