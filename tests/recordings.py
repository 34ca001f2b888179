"""Recordings made in the tests themselves, from random queries and keys through a real Recorder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from i2am.recording import Attribution, Header, Plan, Prompt, Recorder, Recording, Run, map_grid
from i2am.tokens import Grid, Picture, Role, Span, TokenLayout, parse_point_queries
from i2am.tokens.architectures.base import Architecture, Forward, Layer

GENERATED = Grid(4, 3)
REFERENCES = (Grid(2, 3), Grid(3, 2, (2.5, 2.0)))
SQUARE = Grid(64, 64)


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
    spans = [Span(Role.TEXT, 0, text, prompt=0)] if text else []
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
    generated: Grid | tuple[Grid, ...] = GENERATED,
    seed: int = 0,
    places: str = "",
    reference_places: str = "",
    budget: str = "exact",
    definitions: str = "all",
    words: int = 0,
) -> Recording:
    """A run of so many steps and layers (one head count for each); `missing` (step, layer)s.

    generated: of all layers, or of each. places, reference_places: to ask about, as they are
    written. words: how many tokens of a prompt are recorded too.
    """
    schedule = tuple(1 - step / steps for step in range(steps + 1))
    run = Run("Test", batch, 7, schedule, (8, 6), {"i2am": "0", "comfyui": "0"})
    layers = tuple(Layer("double", index) for index in range(len(heads)))
    asked = parse_point_queries(places, "points")
    asked += parse_point_queries(reference_places, "reference_points", numbered=True)
    plan = Plan(
        correspondence=correspondence,
        budget=budget,
        places=asked,
        definitions=definitions,
        words=words > 0,
    )
    prompt = Prompt(0, words) if words else None
    recorder = Recorder(plan, run, JOINT, layers)
    grids = generated if isinstance(generated, tuple) else (generated,) * len(layers)
    for step in range(steps):
        recorder.begin_evaluation(schedule[step])
        for number, layer in enumerate(layers):
            if (step, number) in missing:
                continue
            spans = layout(grids[number], references, words or 2)
            one = seed + 1000 * step + 10 * number
            shape = (batch, heads[number], spans.key_count, 8)
            q, k, v = (rand(one + number, *shape) for number in range(3))
            recorder.add(layer, q, k, spans, v, prompt=prompt)
    given = tuple(Picture(grid, (4, 6), "reference") for grid in references)
    return recorder.finish(given, 1.5, [rand(seed, 1, words, 8).half()] if words else [])


def attribution(**options: object) -> Attribution:
    """A recording with all its pictures and a mask."""
    made = recording(**options)  # type: ignore[arg-type]
    batch = made.header.run.batch
    pictures = [torch.rand(1, 16, 24, 3) for _ in made.header.references]
    mask = torch.zeros(1, 64, 48)
    mask[:, 16:40, 8:32] = 1
    return Attribution(made, torch.rand(batch, 64, 48, 3), tuple(pictures), mask)


def made_up(
    *,
    batch: int = 1,
    steps: int = 28,
    blocks: tuple[tuple[str, int], ...] = (("double", 19), ("single", 38)),
    heads: int = 24,
    generated: Grid = SQUARE,
    references: tuple[Grid, ...] = (SQUARE,),
) -> Recording:
    """A recording as large as a real model's (Flux at 1024×1024), of random maps."""
    layers = tuple(Layer(block, index) for block, count in blocks for index in range(count))
    count, sides = len(layers), [map_grid(grid) for grid in (generated, *references)]
    header = Header(
        run=Run("Flux", batch, 7, tuple(1 - s / steps for s in range(steps + 1)), (128, 128)),
        plan=Plan(),
        architecture="Flux",
        joint=True,
        steps=tuple(range(steps)),
        sigmas=tuple(1 - s / steps for s in range(steps)),
        layers=layers,
        layer_grids=(generated,) * count,
        heads=(heads,) * count,
        counts=((1,) * count,) * steps,
        generated=Picture(sides[0], (128, 128), "result"),
        references=tuple(Picture(side, (128, 128), "reference latent") for side in sides[1:]),
        evaluations=steps,
        expected_evaluations=steps,
        expected_layers=count,
    )
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    arrays = {"share.step_layer": rand(batch, steps, count, 2 + len(references))}
    arrays["share.map"] = rand(batch, 2 + len(references), *sides[0].shape)
    for r, side in enumerate(sides[1:]):
        for direction, grid in (("r2g", sides[0]), ("g2r", side)):
            for definition in ("paper", "model"):
                name = f"{definition}.{direction}.{r}"
                arrays[f"{name}.step_layer"] = rand(batch, steps, count, *grid.shape)
                arrays[f"{name}.layer_head"] = rand(batch, count, heads, *grid.shape)
        few = [grid.shrunk_to(32).sides for grid in (sides[0], side)]
        for name in (f"correspondence.{r}", f"correspondence.model.{r}"):
            arrays[name] = rand(batch, *few[0], *few[1])
    return Recording(header, arrays)
