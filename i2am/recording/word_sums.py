"""How much each place of the result attended to each token of the prompt, added up over a run.

A map is a mean over heads, layers and the steps of a group; on a UNet, over all groups, it is what
DAAM (Tang et al., ACL 2023) shows. Nothing is kept for each layer's map: memory grows with the
prompt's tokens × the cells of CORRESPONDENCE_SIDE² × MAX_GROUPS.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor

from ..attention import correspondence_grid
from ..tokens import Grid, Region, mean_over_cells, spread
from ..tokens.architectures.base import Layer
from .running_sums import on_whole_result

_TINY = torch.finfo(torch.float32).tiny
MAX_GROUPS = 4  # of steps, of equal lengths


@dataclass(frozen=True)
class Prompt:
    """A conditioning's text: its number among those of the run, and how many tokens it has."""

    number: int
    tokens: int


@dataclass
class _OpenLayer:
    """A layer's sums within the open step.

    maps: for each prompt, (batch, tokens, cells). weight: of all calls; (batch, cells) if
    conditionings act on regions. even: the part of the result that each cell covers.
    """

    grid: Grid
    even: Tensor
    maps: dict[Prompt, Tensor] = field(default_factory=dict[Prompt, Tensor])
    weight: float | Tensor = 0.0

    def add(self, prompt: Prompt, maps: Tensor, weight: float | Tensor) -> None:
        """Add one call's maps; they may be added to in place."""
        if prompt in self.maps:
            self.maps[prompt] += maps
        else:
            self.maps[prompt] = maps
        self.weight = self.weight + weight

    def means(self) -> dict[Prompt, Tensor]:
        """Means over the calls."""
        weight = self.weight
        if isinstance(weight, Tensor):
            weight = weight.clamp(min=_TINY).unsqueeze(1)
        return {prompt: maps / weight for prompt, maps in self.maps.items()}


class WordSums:
    """The maps of one run's prompts. Not safe across threads: the recorder holds the lock.

    planned: how many steps will be recorded.
    """

    def __init__(self, planned: int) -> None:
        self._planned = planned
        self.apart = False  # whether words have calls of their own beside those of references
        self._open: dict[Layer, _OpenLayer] = {}
        # By prompt, group of steps and grid: sums of layers' means, and how many there are.
        self._closed: dict[tuple[Prompt, int, Grid], tuple[Tensor, int]] = {}
        self._shares: dict[tuple[Prompt, int, Layer], Tensor] = {}  # by step; (batch, tokens)

    def add(
        self,
        layer: Layer,
        prompt: Prompt,
        maps: Tensor,
        tokens: Grid,
        region: Region | None,
        portions: Tensor,
    ) -> None:
        """Add a call of the open step: (batch, prompt tokens, cells of `correspondence_grid`).

        tokens: the grid of the generated tokens. portions: as in `RecordedCall`.
        """
        whole = tokens if region is None else region.part.whole_grid(tokens)
        grid, weight = correspondence_grid(whole), 1.0
        if region is not None:
            by_place, by_cell = on_whole_result(
                maps.mT.unsqueeze(1), tokens, grid, region.part, portions
            )
            maps, weight = by_place[:, 0].mT, by_cell[:, 0, :, 0]
        if layer not in self._open:
            even = maps.new_full((whole.area,), 1 / whole.area)
            self._open[layer] = _OpenLayer(grid, spread(even, whole, grid))
        self._open[layer].add(prompt, maps, weight)

    def close_step(self, step: int) -> None:
        """Finish the open step, the recorded step number `step`."""
        group = self._group_of(step)
        for layer, sums in self._open.items():
            for prompt, maps in sums.means().items():
                total, count = self._closed.get((prompt, group, sums.grid), (0.0, 0))
                self._closed[prompt, group, sums.grid] = total + maps, count + 1
                self._shares[prompt, step, layer] = maps @ sums.even
        self._open = {}

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts of all calls, in the order of their numbers."""
        prompts = {prompt for prompt, _, _ in self._closed}
        return tuple(sorted(prompts, key=lambda prompt: prompt.number))

    def grid(self) -> Grid:
        """The finest grid of any layer's maps."""
        return max((grid for _, _, grid in self._closed), key=lambda grid: grid.area)

    def groups(self, steps: list[int]) -> tuple[int, ...]:
        """Recorded steps → for each, the number of its group, from 0."""
        numbers = [self._group_of(step) for step in steps]
        order = sorted(set(numbers))
        return tuple(order.index(number) for number in numbers)

    def arrays(self, steps: list[int], layers: tuple[Layer, ...]) -> dict[str, Tensor]:
        """The arrays `words.…` of a `Recording`; zero where a prompt was not attended to."""
        grid = self.grid()
        numbers = sorted({self._group_of(step) for step in steps})
        some = next(iter(self._shares.values()))
        arrays: dict[str, Tensor] = {}
        for place, prompt in enumerate(self.prompts):
            maps = torch.stack([self._map(prompt, number, grid) for number in numbers], 1)
            share = torch.zeros(len(some), len(steps), len(layers), prompt.tokens)
            for (own, step, layer), values in self._shares.items():
                if own == prompt and step in steps and layer in layers:
                    share[:, steps.index(step), layers.index(layer)] = values.cpu()
            name = f"words.{place}"
            arrays[f"{name}.map"] = rearrange(maps, "b g t (h w) -> b g t h w", h=grid.height)
            arrays[f"{name}.share"] = share
        return {name: array.contiguous() for name, array in arrays.items()}

    def _map(self, prompt: Prompt, group: int, grid: Grid) -> Tensor:
        """A prompt's mean over layers and the steps of a group: (batch, tokens, cells)."""
        total, layers_and_steps = torch.zeros(()), 0
        for (own, number, source), (maps, count) in self._closed.items():
            if (own, number) == (prompt, group):
                total = total + mean_over_cells(maps.cpu().mT, source, grid).mT
                layers_and_steps += count
        if not layers_and_steps:  # a prompt for other steps
            batch = len(next(iter(self._shares.values())))
            return torch.zeros(batch, prompt.tokens, grid.area)
        return total / layers_and_steps

    def _group_of(self, step: int) -> int:
        return step * min(MAX_GROUPS, self._planned) // self._planned
