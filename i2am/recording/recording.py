"""What is kept from one sampling run: facts, header and frozen sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from torch import Tensor

from ..tokens import Grid, Picture
from ..tokens.architectures.base import Layer
from .definitions import Definition
from .plan import Plan

MAP_SIDE = 64  # cells of a map's longer side, at most


@dataclass(frozen=True)
class Run:
    """The facts of one sampling run that only the host knows.

    model: the class of the model. schedule: the noise level each step starts at, then the level
    the last one ends at. latent: its (height, width). versions: of the pack and the host. steering:
    how Reference Strength changed the recorded attention, in words. probed: whether nothing was
    sampled: a picture that existed was noised to the level of each step.
    """

    model: str
    batch: int
    seed: int | None
    schedule: tuple[float, ...]
    latent: tuple[int, int]
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    steering: tuple[str, ...] = ()
    probed: bool = False


@dataclass(frozen=True)
class Header:
    """Everything about a recording that is not an array. Plain values, fit for JSON.

    joint: whether text, result and references share one softmax.
    steps, sigmas: the number in the schedule and the noise level of each recorded step, in the
    order they ran.
    layers, layer_grids, heads: each recorded layer, its query grid, its number of heads.
    counts: how many calls were recorded, by step and layer.
    generated, references: for each picture, the grid of the maps over it and the latent.
    evaluations, expected_evaluations: how many model evaluations were recorded, and how many ran
    within the plan. expected_layers: how many layers the plan asks for.
    seconds: how long the run took, recording included.
    keys: how many keys are text, the result itself, reference 1, …, in the layer with the most
    keys; empty in older files and if they do not share one softmax.
    ways: how calls were computed, in words, and how many; empty in older files.

    With point queries in the plan:
    token_grids: the finest token grid of any layer, for the result and each reference.
    step_groups: for each of `steps`, the number of its group, from 0.

    With words in the plan:
    prompts: how many tokens each text of the recorded conditionings has.
    word_groups: for each of `steps`, the number of its group in the maps of words, from 0.
    words_apart: whether words and references have softmaxes of their own, in calls of their own.
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
    ways: Mapping[str, int] = field(default_factory=dict[str, int])
    token_grids: tuple[Grid, ...] = ()
    step_groups: tuple[int, ...] = ()
    prompts: tuple[int, ...] = ()
    word_groups: tuple[int, ...] = ()
    words_apart: bool = False


@dataclass(frozen=True)
class Recording:
    """The frozen sums of one sampling run, on the CPU, float32; never written to again.

    B batch items, S steps, L layers, H heads, R references from 0. D is a definition that was
    recorded: `paper`, `model` or `effect`. Maps are raw means: a `paper` map sums to one, a `model`
    map to the attention it is made of, an `effect` map to the squared change of the output.
    Maps over a video have a frame axis before h, w.

    D.r2g.{r}.step_layer     (B, S, L, h, w)       over the result, mean over heads
    D.r2g.{r}.layer_head     (B, L, H, h, w)       over the result, mean over steps
    D.g2r.{r}.…                                    the same two over the reference
    share.step_layer         (B, S, L, 2 + R)      of text, the result itself, reference 0, …
    share.map                (B, 2 + R, h, w)      the share at each place, mean over all else
    correspondence.{r}       (B, hg, wg, hr, wr)   the paper's M_r: each row sums to one
    correspondence.model.{r} (B, hg, wg, hr, wr)   the model's: each row sums to its share
    correspondence.effect.{r}                      the effect's: squared change by each place

    With the effect, in units of the output squared:

    output.step_layer        (B, S, L)             squared length of the output, mean over places
    output.map               (B, h, w)             the same at each place, mean over all else

    The correspondence of a video is that of its mean frame.

    reference_latents: the references that were given as latents, by number from 0: float16,
    (1 or B, channels, height, width); some models add an axis for frames.

    With point queries in the plan, P on the result and Q on reference r, T groups of steps. Each
    layer is resampled to the finest token grid; mean over heads and the steps of a group.

    point.D.g2r.{r}          (B, T, L, P, hr, wr)  rows: the paper's M_r, the model's attention
    point.D.r2g.{r}          (B, T, L, Q, h, w)    columns: the paper's M_g, the model's attention
                                                   divided by the number of queries

    With words in the plan, N tokens of prompt p, G groups of steps, on a grid of at most
    CORRESPONDENCE_SIDE a side, of a video its mean frame:

    words.{p}.map            (B, G, N, h, w)       the model's attention on each token at each
                                                   place, mean over heads, and over the layers and
                                                   steps of a group that were given the prompt
    words.{p}.share          (B, S, L, N)          the same, mean over places and heads

    encodings: of each prompt, by number: some values of each token as the model was given it,
    float16, (1 or B, N, values). They tell whether a text is the one that was sampled with.
    """

    header: Header
    arrays: Mapping[str, Tensor]
    reference_latents: Mapping[int, Tensor] = field(default_factory=dict[int, Tensor])
    encodings: Mapping[int, Tensor] = field(default_factory=dict[int, Tensor])

    @property
    def bytes(self) -> int:
        """How many bytes the arrays and latents take."""
        kept = (
            *self.arrays.values(),
            *self.reference_latents.values(),
            *self.encodings.values(),
        )
        return sum(array.numel() * array.element_size() for array in kept)


@lru_cache(maxsize=64)
def map_grid(grid: Grid, side: int = MAP_SIDE) -> Grid:
    """A token grid → the grid its maps are kept on: at most `side` cells a side.

    All frames of a video together have at most 2 × `side`² cells, which bounds the memory.
    """
    max_cells = 2 * side**2
    while grid.shrunk_to(side).area > max_cells and side > 1:
        side -= 1
    return grid.shrunk_to(side)


def correspondence_name(definition: Definition, reference: int) -> str:
    """The name of a correspondence among the arrays of a recording."""
    kind = "" if definition is Definition.PAPER else f"{definition.value}."
    return f"correspondence.{kind}{reference}"


DEFINITIONS = {
    "paper.r2g": "mean over reference tokens of the softmax over generated tokens",
    "paper.g2r": "mean over generated tokens of the softmax over the reference's tokens",
    "model.r2g": "share of the model's own attention a place gives the reference, over all places",
    "model.g2r": "mean over generated tokens of the model's own attention, over the reference",
    "effect.r2g": "how far attention's output moves at a place if the reference is left out, "
    "squared",
    "effect.g2r": "how far attention's output moves if a place of the reference is left out, "
    "squared, mean over generated tokens",
    "output": "squared length of attention's output, to compare the effect with",
    "share": "the model's own attention on text, self (the result) and each reference",
    "correspondence": "softmax over the reference's tokens, pooled, mean over heads, layers, steps",
    "correspondence.model": "the same of the model's own attention, so rows sum to the share",
    "correspondence.effect": "how far the output moves if each place is left out, squared, pooled",
    "point.paper.g2r": "of a place asked about: softmax over the reference's tokens",
    "point.paper.r2g": "of a place of the reference asked about: softmax over generated tokens",
    "point.model.g2r": "the model's own attention of a place asked about, over the reference",
    "point.model.r2g": "the model's own attention on a place asked about, over all places",
    "point.effect.g2r": "the effect of each reference token on a place asked about",
    "point.effect.r2g": "the effect of a place asked about on all places",
    "words": "the model's own attention on each token of the prompt, at each place of the result",
}


def definitions_of(plan: Plan) -> dict[str, str]:
    """Plan → the DEFINITIONS of what it records."""
    left_out = {kept.value for kept in Definition if kept not in plan.recorded}
    if not plan.effect:
        left_out.add("output")
    if not plan.words:
        left_out.add("words")
    if not plan.paper:
        left_out.add("correspondence")
    return {
        name: text
        for name, text in DEFINITIONS.items()
        if name not in left_out and not left_out & set(name.split("."))
    }
