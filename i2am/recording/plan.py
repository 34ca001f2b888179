"""What to record of a run: layers, steps, branch, budget, points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..tokens import PointQuery, Ranges, in_ranges, resolve_ranges
from .definitions import RECORDED, Definition

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Budget:
    """How much of a plan is recorded, to save time.

    steps: one step in every `steps` is recorded, evenly spread. side: one generated token in every
    `side` × `side` is recorded, a different one in the next layer and step. Grids with fewer than
    THINNED_SIDE tokens a side are recorded in full.
    """

    steps: int = 1
    side: int = 1


THINNED_SIDE = 32
BUDGETS = {
    "exact": Budget(),
    "balanced": Budget(steps=3),
    "fast": Budget(steps=6, side=2),
}


@dataclass(frozen=True)
class Plan:
    """What to record: layers and steps (empty for all), the branch, the correspondence.

    within: record the result's attention to itself instead of to references. budget: a name in
    BUDGETS. places: the point queries; the exact row or column of each is recorded. definitions: a
    name in RECORDED. words: also a map of each token of the prompt; models without references can
    then be recorded.
    """

    layers: Ranges = ()
    steps: Ranges = ()
    branch: str = "conditional"
    correspondence: bool = True
    within: bool = False
    budget: str = "exact"
    places: tuple[PointQuery, ...] = ()
    definitions: str = "both"
    words: bool = False

    def __post_init__(self) -> None:
        if self.definitions not in RECORDED:
            names = ", ".join(RECORDED)
            raise ValueError(f"definitions are {names}, not “{self.definitions[:40]}”")
        if self.budget not in BUDGETS:
            raise ValueError(f"there is no budget “{self.budget[:40]}”, only {', '.join(BUDGETS)}")

    @property
    def recorded(self) -> tuple[Definition, ...]:
        """The definitions that are recorded."""
        return RECORDED[self.definitions]

    @property
    def paper(self) -> bool:
        """Whether the paper's definition is recorded."""
        return Definition.PAPER in self.recorded

    @property
    def effect(self) -> bool:
        """Whether the effect is recorded. It needs the values as well as queries and keys."""
        return Definition.EFFECT in self.recorded

    @property
    def without_references(self) -> Plan:
        """What is left of the plan for a run in which there were no references: its words."""
        return replace(self, places=(), definitions="both", correspondence=False)

    def resolved(self, layers: Sequence[str], steps: int) -> Plan:
        """The plan with plain numbers, for a model with these layer names and a number of steps.

        Raises I2AMError for a layer the model does not have.
        """
        numbers = resolve_ranges(self.layers, len(layers), layers)
        return replace(self, layers=numbers, steps=resolve_ranges(self.steps, steps))


def step_of_sigma(schedule: tuple[float, ...], sigma: float) -> int:
    """A noise level → its step in the schedule: the last one that starts at or above it.

    schedule: the level each step starts at, then the level the last one ends at. Levels may be off
    by a ten-thousandth, because hosts round them.
    """
    levels = enumerate(schedule[:-1])
    return max((step for step, level in levels if level >= sigma * (1 - 1e-4)), default=0)


def planned_steps(plan: Plan, count: int) -> list[int]:
    """Plan → the numbers of the steps it records in a schedule of `count` steps."""
    asked = [step for step in range(count) if in_ranges(plan.steps, step)]
    return evenly_spread(asked, math.ceil(len(asked) / BUDGETS[plan.budget].steps))


def evenly_spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """The item in the middle of each of `count` equal parts of a sequence."""
    return [items[(2 * part + 1) * len(items) // (2 * count)] for part in range(count)]
