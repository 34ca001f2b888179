"""What is recorded of a run: layers, steps, branch, budget, points."""

from __future__ import annotations

from dataclasses import dataclass

from ..tokens import PointQuery, Ranges, in_ranges


@dataclass(frozen=True)
class Budget:
    """How little of what a plan asks for is watched.

    steps: one of so many, evenly spread. side: every so manyth token of the result down and
    across, where it has at least THINNED_SIDE of them; others in the next layer and step.
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
    """What to keep: layers and steps by number (empty for all), the branch, the correspondence.

    within: of the picture's look at itself instead of its references. budget: a name in BUDGETS.
    places: whose whole rows and columns of attention to keep as well.
    """

    layers: Ranges = ()
    steps: Ranges = ()
    branch: str = "conditional"
    correspondence: bool = True
    within: bool = False
    budget: str = "exact"
    places: tuple[PointQuery, ...] = ()

    def __post_init__(self) -> None:
        if self.budget not in BUDGETS:
            raise ValueError(f"there is no budget “{self.budget[:40]}”, only {', '.join(BUDGETS)}")


def step_of_sigma(schedule: tuple[float, ...], sigma: float) -> int:
    """The step of a schedule that a noise level belongs to: the last one not below it."""
    levels = enumerate(schedule[:-1])
    return max((step for step, level in levels if level >= sigma * (1 - 1e-4)), default=0)


def planned_steps(plan: Plan, count: int) -> list[int]:
    """The steps a plan watches of a schedule of so many."""
    asked = [step for step in range(count) if in_ranges(plan.steps, step)]
    wanted = -(-len(asked) // BUDGETS[plan.budget].steps)
    return [asked[(2 * number + 1) * len(asked) // (2 * wanted)] for number in range(wanted)]
