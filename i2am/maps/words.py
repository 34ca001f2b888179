"""Recording → the map and the share of a word of the prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import I2AMError
from ..recording import Definition, Direction, Recording, Word
from ..tokens import Grid, spread
from .values import AttributionMap, Level

ALL_STEPS = 0  # in place of the number of a group


def word_grid(recording: Recording, prompt: int = 0) -> Grid:
    """The grid that maps of words lie on."""
    height, width = recording.arrays[f"words.{prompt}.map"].shape[-2:]
    return recording.header.generated.grid.one_frame.with_cells(height, width)


def word_groups(recording: Recording) -> tuple[range, ...]:
    """The recorded steps of each group, by their place among the recording's steps."""
    groups = recording.header.word_groups
    return tuple(
        range(groups.index(number), groups.index(number) + groups.count(number))
        for number in range(groups[-1] + 1)
    )


def token_maps(recording: Recording, prompt: int = 0, group: int = ALL_STEPS) -> Tensor:
    """The model's attention on each token at each place: (batch, tokens, height, width), 0 to 1.

    group: of steps, from 1; ALL_STEPS for the mean over all of them. Raises I2AMError for one that
    there is not.
    """
    maps, groups = recording.arrays[f"words.{prompt}.map"], word_groups(recording)
    if not 0 <= group <= len(groups):
        raise I2AMError(
            f"There is no time group {group}: the steps form {len(groups)}. Choose 1 to "
            f"{len(groups)}, or 0 for all steps."
        )
    if group != ALL_STEPS:
        return maps[:, group - 1]
    steps = torch.tensor([len(steps) for steps in groups], dtype=maps.dtype)
    return (maps * (steps / steps.sum())[:, None, None, None]).sum(1)


def word_maps(
    recording: Recording, words: Sequence[Word], group: int = ALL_STEPS
) -> AttributionMap:
    """The maps of some words of one prompt, one each: the sum over a word's tokens.

    On a UNet, over all steps, a token's map is DAAM's (Tang et al., ACL 2023, formula 4, before its
    threshold), up to the resampling of layers.
    """
    each = _of_words(recording, words, group)
    steps = "all steps" if group == ALL_STEPS else f"time group {group}"
    grid = word_grid(recording, words[0].prompt)
    return AttributionMap(
        each / grid.area,
        tuple(word.text for word in words),
        grid,
        Definition.MODEL,
        Direction.REFERENCE_TO_GENERATED,
        Level.UNIFIED,
        title=f"words · model · {steps}",
    )


def _of_words(recording: Recording, words: Sequence[Word], group: int) -> Tensor:
    """The model's attention on each word of one prompt: (batch, words, height, width), 0 to 1."""
    maps = token_maps(recording, words[0].prompt, group)
    return torch.stack([maps[:, list(word.tokens)].sum(1) for word in words], 1)


def word_shares(
    recording: Recording,
    words: Sequence[Word],
    region: Tensor | None = None,
    group: int = ALL_STEPS,
) -> Tensor:
    """The share of the model's attention that each word of a prompt has: (batch, words), 0 to 1.

    region: a mask over the result, (1 or batch, height, width); without it, the whole result.
    """
    maps = _of_words(recording, words, group)
    weights = region_weights(region, word_grid(recording, words[0].prompt))
    return (maps.flatten(2) * weights[:, None]).sum(-1) / weights.sum(-1, keepdim=True)


def region_weights(region: Tensor | None, grid: Grid) -> Tensor:
    """How much of the region each cell covers: (1 or batch, cells).

    region: None for the whole result. Raises I2AMError for an empty one.
    """
    mask = torch.ones(1, *grid.sides) if region is None else region.float()
    pixels = Grid(mask.shape[-2], mask.shape[-1])
    weights = spread(mask.flatten(1), pixels, grid)
    if not bool((weights.sum(-1) > 0).all()):
        raise I2AMError("The region is empty. Paint it white where you want to know.")
    return weights
