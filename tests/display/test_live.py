"""Live messages during sampling, against the recording of the steps finished by then."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from recordings import JOINT, layout, rand
from torch import Tensor

from i2am.display import Live
from i2am.display.live import INTERVAL, SIDE
from i2am.maps import attribution_map, display_values, mean_shares
from i2am.recording import Definition, Direction, Plan, Prompt, Recorder, Recording, Run
from i2am.tokens import Grid, Picture, spread
from i2am.tokens.architectures.base import Layer

GENERATED, REFERENCES = Grid(4, 3), (Grid(2, 3), Grid(3, 2))
EVERYTHING = Plan()
LAYERS = tuple(Layer("double", index) for index in range(3))


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def recorder(steps: int, plan: Plan = EVERYTHING) -> Recorder:
    schedule = tuple(1 - step / steps for step in range(steps + 1))
    return Recorder(plan, Run("Test", 2, 7, schedule, (8, 6)), JOINT, LAYERS)


def sample(
    recorder: Recorder,
    steps: int,
    look: Callable[[], None],
    generated: Grid = GENERATED,
    alone: bool = False,
) -> None:
    """Samples the steps; calls `look` as each begins. alone: cross-attention to the references."""
    spans = layout(generated, REFERENCES, text=0 if alone else 2)
    if alone:
        start = spans.keys[0].stop
        keys = [replace(k, start=k.start - start, stop=k.stop - start) for k in spans.keys[1:]]
        spans = replace(spans, queries=spans.queries[:1], keys=tuple(keys))
    for step in range(steps):
        recorder.begin_evaluation(recorder.run.schedule[step])
        look()
        for number, layer in enumerate(LAYERS):
            one = 1000 * step + 10 * number
            q = rand(one, 2, 2, spans.queries[-1].stop, 8)
            recorder.add(layer, q, rand(one + 1, 2, 2, spans.key_count, 8), spans)


def finished(recorder: Recorder) -> Recording:
    return recorder.finish(tuple(Picture(grid, (4, 6), "reference") for grid in REFERENCES))


def values(facts: dict[str, Any], reference: int) -> Tensor:
    """The values of a map."""
    told = facts["maps"][reference]
    stored = torch.frombuffer(bytearray(base64.b64decode(told["values"])), dtype=torch.uint8)
    spread_out = stored.reshape(facts["grid"]).float() / 255
    return told["low"] + spread_out * (told["high"] - told["low"])


def expected(made: Recording, definition: Definition, reference: int) -> Tensor:
    """What Attribution Map shows of the first picture."""
    direction = Direction.REFERENCE_TO_GENERATED
    maps = attribution_map(made, definition, direction, reference=reference)
    return display_values(maps)[0, 0]


def close(facts: dict[str, Any], made: Recording, definition: Definition) -> None:
    """Each sent map equals the recording's, to the precision of a byte."""
    for reference, told in enumerate(facts["maps"]):
        error = (values(facts, reference) - expected(made, definition, reference)).abs().max()
        assert float(error) <= (told["high"] - told["low"]) * 0.51 / 255


def test_what_is_told_is_the_recording_of_the_finished_steps() -> None:
    told: list[dict[str, Any]] = []
    running = recorder(6)
    live = Live(running, told.append, clock=iter(range(100)).__next__)
    sample(running, 6, live.look)
    assert [facts["step"] for facts in told] == [1, 2, 3, 4, 5]
    for facts in told:
        shorter = recorder(6)
        sample(shorter, facts["step"], lambda: None)
        made = finished(shorter)
        assert (facts["steps"], facts["done"]) == (6, False)
        assert (facts["definition"], facts["unit"]) == ("model", "%")
        assert (facts["grid"], facts["covered"]) == ([4, 3], [4, 3])
        close(facts, made, Definition.MODEL)
        first = replace(made.header, run=replace(made.header.run, batch=1))
        of_first = Recording(first, {name: array[:1] for name, array in made.arrays.items()})
        share = mean_shares(of_first)
        assert facts["share"]["text"] == pytest.approx(share["text"], rel=1e-4)
        assert facts["share"]["self"] == pytest.approx(share["self"], rel=1e-4)
        assert facts["share"]["references"] == pytest.approx(share["references"], rel=1e-4)


def test_the_last_word_is_the_whole_recording() -> None:
    """Sent regardless of the clock, even if nothing was sent before."""
    told: list[dict[str, Any]] = []
    running = recorder(4)
    live = Live(running, told.append, clock=lambda: 0.0)
    sample(running, 4, lambda: None)
    made = finished(running)
    live.finish()
    (facts,) = told
    assert (facts["step"], facts["steps"], facts["done"]) == (4, 4, True)
    close(facts, made, Definition.MODEL)


def test_nothing_is_told_of_nothing() -> None:
    told: list[dict[str, Any]] = []
    live = Live(recorder(4), told.append)
    live.look()
    live.finish()
    assert told == []


def test_words_alone_tell_nothing() -> None:
    """Without a reference there is no map to show while it samples."""
    made = recorder(2, Plan(words=True))
    told: list[Any] = []
    live = Live(made, told.append)
    spans = layout(GENERATED, ())
    for step in range(2):
        made.begin_evaluation(made.run.schedule[step])
        live.look()
        for number, layer in enumerate(LAYERS):
            q, k = (rand(step + number + n, 2, 2, spans.key_count, 8) for n in (0, 9))
            made.add(layer, q, k, spans, prompt=Prompt(0, 2))
    live.look()
    live.finish()
    assert told == []


def test_at_most_three_a_second() -> None:
    """By the given clock; nothing is computed in between."""
    told: list[float] = []
    clock = Clock()
    running = recorder(100)
    live = Live(running, lambda _: told.append(clock.now), clock)

    def look() -> None:
        clock.now += INTERVAL / 8
        live.look()

    sample(running, 100, look)
    gaps = [after - before for before, after in pairwise(told)]
    assert min(gaps) >= INTERVAL - 1e-9
    assert 100 / 8 - 1 <= len(told) <= 100 / 8 + 1


def test_steps_that_were_not_told_one_by_one_are_in_the_next() -> None:
    told: list[dict[str, Any]] = []
    clock = Clock()
    running = recorder(5)
    live = Live(running, told.append, clock)
    looks = iter([0.0, 10.0, 0.1, 0.1, 10.0])

    def look() -> None:
        clock.now += next(looks)
        live.look()

    sample(running, 5, look)
    assert [facts["step"] for facts in told] == [1, 4]
    shorter = recorder(5)
    sample(shorter, 4, lambda: None)
    close(told[1], finished(shorter), Definition.MODEL)


def test_steps_outside_the_plan_tell_nothing_new() -> None:
    told: list[dict[str, Any]] = []
    running = recorder(5, plan=Plan(steps=((0, 1),)))
    live = Live(running, told.append, clock=iter(range(100)).__next__)
    spans = layout(GENERATED, REFERENCES)
    for step in range(5):
        wanted = running.begin_evaluation(running.run.schedule[step])
        live.look()
        if wanted:
            shape = (2, 2, spans.key_count, 8)
            running.add(LAYERS[0], rand(step, *shape), rand(step + 50, *shape), spans)
    finished(running)
    live.finish()
    assert [(facts["step"], facts["done"]) for facts in told] == [(1, False), (2, True)]


def test_several_evaluations_of_a_step_are_told_when_it_is_over() -> None:
    told: list[dict[str, Any]] = []
    running = recorder(3)
    live = Live(running, told.append, clock=iter(range(100)).__next__)
    spans = layout(GENERATED, REFERENCES)
    shape = (2, 2, spans.key_count, 8)
    for evaluation, step in enumerate((0, 0, 1, 1, 2)):
        running.begin_evaluation(running.run.schedule[step])
        live.look()
        running.add(LAYERS[0], rand(evaluation, *shape), rand(evaluation + 50, *shape), spans)
    assert [facts["step"] for facts in told] == [1, 2]


def test_cross_attention_is_told_in_the_papers_definition() -> None:
    told: list[dict[str, Any]] = []
    running = recorder(3)
    live = Live(running, told.append, clock=iter(range(100)).__next__)
    sample(running, 3, live.look, alone=True)
    made = finished(running)
    live.finish()
    assert {(facts["definition"], facts["unit"]) for facts in told} == {("paper", "×")}
    close(told[-1], made, Definition.PAPER)


def test_large_maps_are_told_coarser() -> None:
    """At most 32 cells a side, with the share of each place unchanged."""
    told: list[dict[str, Any]] = []
    large = Grid(48, 40)
    running = recorder(2)
    live = Live(running, told.append, clock=iter(range(100)).__next__)
    sample(running, 2, live.look, large)
    made = finished(running)
    live.finish()
    facts = told[-1]
    assert facts["grid"] == [32, 27]
    few = large.shrunk_to(SIDE)
    maps = attribution_map(made, Definition.MODEL, Direction.REFERENCE_TO_GENERATED)
    coarse = spread(maps.values[0, 0].flatten(), large, few).reshape(few.sides) * few.area
    high, low = facts["maps"][0]["high"], facts["maps"][0]["low"]
    assert float((values(facts, 0) - coarse).abs().max()) <= (high - low) * 0.51 / 255


def test_a_video_is_told_as_its_mean_frame() -> None:
    told: list[dict[str, Any]] = []
    video = Grid(4, 3, frames=2)
    running = recorder(2)
    live = Live(running, told.append, clock=iter(range(100)).__next__)
    sample(running, 2, live.look, video)
    made = finished(running)
    live.finish()
    assert told[-1]["grid"] == [4, 3]
    close(told[-1], made, Definition.MODEL)
