"""What is asked for, and what is kept of one sampling run: plan, facts and frozen sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from torch import Tensor

from .architectures.base import Layer
from .geometry import Grid, Picture
from .points import AskedPlace
from .ranges import Ranges, contains

MAP_SIDE = 64


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
    places: tuple[AskedPlace, ...] = ()

    def __post_init__(self) -> None:
        if self.budget not in BUDGETS:
            raise ValueError(f"there is no budget “{self.budget[:40]}”, only {', '.join(BUDGETS)}")


@dataclass(frozen=True)
class Run:
    """The facts of one sampling run that only the host knows.

    latent: (height, width) of the latent. versions: of the pack and the host. steering: what other
    nodes of ours changed in the attention that was recorded, in words.
    """

    model: str
    batch: int
    seed: int | None
    schedule: tuple[float, ...]
    latent: tuple[int, int]
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    steering: tuple[str, ...] = ()


@dataclass(frozen=True)
class Header:
    """Everything about a recording that is not an array. Plain values, fit for JSON.

    joint: whether text, result and references share one softmax. steps: the schedule's number of
    each recorded step, in the order they ran; sigmas: the noise level there. layer_grids: the
    generated grid each layer looked from; heads: how many heads it has. counts: how often each
    (step, layer) was seen. evaluations, expected_evaluations: model evaluations recorded, and run,
    within the plan; expected_layers: layers the plan asks for. seconds: the run's, recording
    included. keys: how many tokens a place could look at, in the order text, the picture itself,
    reference 1, …; of the layer with the most, and empty where they do not share one softmax or
    it is not known. Where places were asked about, token_grids: the finest of any layer, of the
    result and of each reference, and step_groups: which of `steps` are kept together, the number
    of each one's group, from 0.
    """

    run: Run
    plan: Plan
    architecture: str
    joint: bool
    steps: tuple[int, ...]
    sigmas: tuple[float, ...]
    layers: tuple[Layer, ...]
    layer_grids: tuple[Grid, ...]
    heads: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]
    generated: Picture
    references: tuple[Picture, ...]
    evaluations: int
    expected_evaluations: int
    expected_layers: int
    seconds: float = 0.0
    keys: tuple[int, ...] = ()
    token_grids: tuple[Grid, ...] = ()
    step_groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recording:
    """The frozen sums of one sampling run, on the CPU, float32; never written to again.

    arrays, with B batch items, S steps, L layers, H heads, R references from 0, D in `paper`,
    `model`, and maps that are raw means (paper: each sums to one; model: to the attention it is
    made of; over a video with a frame axis before h, w):
    `D.r2g.{r}.step_layer` (B,S,L,h,w), mean over heads · `D.r2g.{r}.layer_head` (B,L,H,h,w), mean
    over steps · `D.g2r.{r}.…` the same over the reference · `share.step_layer` (B,S,L,2+R) in the
    order text, self, reference 0, … · `share.map` (B,2+R,h,w), the share at each place, mean over
    everything else · `correspondence.{r}` (B,hg,wg,hr,wr), the paper's M_r: each place's own
    distribution over the reference · `correspondence.model.{r}` the same of the model's attention:
    each place's sums to its share. Places of a video are those of its mean frame.

    Of places asked about in the plan, P of the result and Q of reference r, with T groups of steps
    and each layer brought to the finest grid of tokens, mean over heads and the group's steps:
    `point.D.g2r.{r}` (B,T,L,P,hr,wr), the row of each place: paper's M_r, the model's attention ·
    `point.D.r2g.{r}` (B,T,L,Q,h,w), the column of each: paper's M_g, the model's attention over
    the number of places.
    """

    header: Header
    arrays: Mapping[str, Tensor]

    @property
    def bytes(self) -> int:
        """The memory its arrays take."""
        return sum(array.numel() * array.element_size() for array in self.arrays.values())


def step_at(schedule: tuple[float, ...], sigma: float) -> int:
    """The step of a schedule that a noise level belongs to: the last one not below it."""
    levels = enumerate(schedule[:-1])
    return max((step for step, level in levels if level >= sigma * (1 - 1e-4)), default=0)


@lru_cache(maxsize=64)
def map_grid(grid: Grid, side: int = MAP_SIDE) -> Grid:
    """The grid maps are kept on: at most `side` cells a side, a video's in all 2 × `side`²."""
    most = 2 * side**2  # of all frames: what bounds the memory it takes
    while grid.at_most(side).area > most and side > 1:
        side -= 1
    return grid.at_most(side)


def planned_steps(plan: Plan, count: int) -> list[int]:
    """The steps a plan watches of a schedule of so many."""
    asked = [step for step in range(count) if contains(plan.steps, step)]
    wanted = -(-len(asked) // BUDGETS[plan.budget].steps)
    return [asked[(2 * number + 1) * len(asked) // (2 * wanted)] for number in range(wanted)]
