"""The step of an evaluation whose noise level is still on its way from a card."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from recordings import JOINT, layout, rand
from torch import Tensor

from i2am.recording import HostCopy, Plan, Recorder, Run
from i2am.tokens import Picture
from i2am.tokens.architectures import Layer

SCHEDULE = (1.0, 0.75, 0.5, 0.25, 0.125, 0.0)
LAYERS = (Layer("double", 0), Layer("double", 1))
# Evaluated once a step, twice in two of them, and once more after the last.
LEVELS = (1.0, 0.75, 0.625, 0.5, 0.5, 0.25, 0.125, 0.125)


class Late(HostCopy):
    """A noise level that a card has not come to yet; notes when it is asked for."""

    def __init__(self, sigma: float, asked: list[float]) -> None:
        super().__init__([torch.tensor([sigma])])
        self._asked = asked

    @property
    def on_the_way(self) -> bool:
        return True

    def arrived(self) -> list[Tensor]:
        (level,) = super().arrived()
        self._asked.append(float(level))
        return [level]


def recorder(**plan: object) -> Recorder:
    run = Run("Test", 1, 7, SCHEDULE, (8, 6), {})
    return Recorder(Plan(**plan), run, JOINT, LAYERS)  # type: ignore[arg-type]


def add(to: Recorder, number: int) -> None:
    spans = layout()
    for layer in LAYERS:
        q, k = (rand(10 * number + n, 1, 2, spans.key_count, 8) for n in (0, 1))
        to.add(layer, q, k, spans)


def finish(done: Recorder) -> Iterator[tuple[str, object]]:
    """What a file would hold, by name."""
    grids = [span.grid for span in layout().references]
    made = done.finish(tuple(Picture(grid, (4, 6), "reference") for grid in grids if grid))
    yield from made.arrays.items()
    yield "header", made.header


@pytest.mark.parametrize("plan", [{}, {"budget": "balanced"}, {"steps": ((1, 1), (3, 4))}], ids=str)
@pytest.mark.parametrize("without_calls", [(), (2, 7), (0, 1, 3)])
def test_the_same_recording(plan: dict[str, object], without_calls: tuple[int, ...]) -> None:
    """Whether steps are wanted, new, or evaluated twice, and calls recorded or not."""
    known, late = recorder(**plan), recorder(**plan)
    for number, sigma in enumerate(LEVELS):
        wanted = known.begin_evaluation(sigma)
        assert late.begin_evaluation(Late(sigma, []))
        assert late.wants_calls
        if number not in without_calls:
            add(late, number)
            assert late.wants_calls == wanted
            add(known, number)
    for (name, one), (_, other) in zip(finish(known), finish(late), strict=True):
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            assert torch.equal(one, other), name
        else:
            assert one == other


def test_asked_for_at_the_first_call() -> None:
    asked: list[float] = []
    late = recorder()
    late.begin_evaluation(Late(1.0, asked))
    assert not asked, "the card has nothing to do yet"
    add(late, 0)
    assert asked == [1.0]
    late.begin_evaluation(Late(0.75, asked))
    assert asked == [1.0]
    late.begin_evaluation(Late(0.5, asked))  # nothing was recorded of the one before
    assert asked == [1.0, 0.75]


def test_on_the_processor_it_is_known_at_once() -> None:
    picky = recorder(steps=((1, 1),))
    assert not picky.begin_evaluation(HostCopy([torch.tensor([1.0])]))
    assert not picky.wants_calls
    assert picky.begin_evaluation(HostCopy([torch.tensor([0.75])]))
