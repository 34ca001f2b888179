"""What is asked for, and what is kept of one sampling run: plan, facts and frozen sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from torch import Tensor

from ..tokens import Grid, Picture
from ..tokens.architectures.base import Layer
from .plan import Plan

MAP_SIDE = 64


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


@lru_cache(maxsize=64)
def map_grid(grid: Grid, side: int = MAP_SIDE) -> Grid:
    """The grid maps are kept on: at most `side` cells a side, a video's in all 2 × `side`²."""
    most = 2 * side**2  # of all frames: what bounds the memory it takes
    while grid.at_most(side).area > most and side > 1:
        side -= 1
    return grid.at_most(side)


DEFINITIONS = {
    "paper.r2g": "mean over reference tokens of the softmax over generated tokens",
    "paper.g2r": "mean over generated tokens of the softmax over the reference's tokens",
    "model.r2g": "share of the model's own attention a place gives the reference, over all places",
    "model.g2r": "mean over generated tokens of the model's own attention, over the reference",
    "share": "the model's own attention on text, self (the result) and each reference",
    "correspondence": "softmax over the reference's tokens, pooled, mean over heads, layers, steps",
    "correspondence.model": "the same of the model's own attention, so rows sum to the share",
    "point.paper.g2r": "of a place asked about: softmax over the reference's tokens",
    "point.paper.r2g": "of a place of the reference asked about: softmax over generated tokens",
    "point.model.g2r": "the model's own attention of a place asked about, over the reference",
    "point.model.r2g": "the model's own attention on a place asked about, over all places",
}
