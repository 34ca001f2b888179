"""Recordings made in the tests themselves, from random queries and keys through a real Recorder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from i2am.architectures.base import Architecture, Forward, Layer
from i2am.attribution import Attribution
from i2am.geometry import Grid, Picture, Role, Span, TokenLayout
from i2am.recorder import Plan, Recorder, Recording, Run

GENERATED = Grid(4, 3)
REFERENCES = (Grid(2, 3), Grid(3, 2, (2.5, 2.0)))


def _none(*_: object) -> None:
    return None


def _no_layers(_: nn.Module) -> tuple[Layer, ...]:
    return ()


def _no_references(_: Forward) -> tuple[Picture, ...]:
    return ()


JOINT = Architecture("Test", frozenset(), True, "reference", _no_layers, _no_references, _none)


def rand(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def layout(
    generated: Grid = GENERATED, references: tuple[Grid, ...] = REFERENCES, text: int = 2
) -> TokenLayout:
    """[text | result | reference 1 | reference 2 …] on both sides."""
    spans = [Span(Role.TEXT, 0, text)] if text else []
    for role, grid in ((Role.GENERATED, generated), *((Role.REFERENCE, g) for g in references)):
        start = spans[-1].stop if spans else 0
        spans.append(Span(role, start, start + grid.area, grid))
    return TokenLayout(tuple(spans), tuple(spans))


def recording(
    *,
    batch: int = 2,
    heads: tuple[int, ...] = (2, 2, 2),
    steps: int = 4,
    missing: tuple[tuple[int, int], ...] = (),
    correspondence: bool = True,
    references: tuple[Grid, ...] = REFERENCES,
    generated: Grid = GENERATED,
    seed: int = 0,
) -> Recording:
    """A run of so many steps and layers (one head count for each); `missing` (step, layer)s."""
    schedule = tuple(1 - step / steps for step in range(steps + 1))
    run = Run("Test", batch, 7, schedule, (8, 6), {"i2am": "0", "comfyui": "0"})
    layers = tuple(Layer("double", index) for index in range(len(heads)))
    recorder = Recorder(Plan(correspondence=correspondence), run, JOINT, layers)
    spans = layout(generated, references)
    for step in range(steps):
        recorder.begin_evaluation(schedule[step])
        for number, layer in enumerate(layers):
            if (step, number) in missing:
                continue
            one = seed + 1000 * step + 10 * number
            shape = (batch, heads[number], spans.key_count, 8)
            recorder.add(layer, rand(one, *shape), rand(one + 1, *shape), spans)
    return recorder.finish(tuple(Picture(grid, (4, 6), "reference") for grid in references), 1.5)


def attribution(**options: object) -> Attribution:
    """A recording with all its pictures and a mask."""
    made = recording(**options)  # type: ignore[arg-type]
    batch = made.header.run.batch
    pictures = [torch.rand(1, 16, 24, 3) for _ in made.header.references]
    mask = torch.zeros(1, 64, 48)
    mask[:, 16:40, 8:32] = 1
    return Attribution(made, torch.rand(batch, 64, 48, 3), tuple(pictures), mask)
