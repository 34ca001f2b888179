"""The maps so far, told a few times a second while a run is being sampled."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..maps import AttributionMap, Level, display_values, unit
from ..recording import Direction, Recorder, kind_of
from ..tokens import Grid, spread
from .render import Scale, normalise, value_range

INTERVAL = 1 / 3  # seconds between two tellings, at least
SIDE = 32  # cells of the longer side of a map, at most
Tell = Callable[[dict[str, Any]], None]


class Live:
    """Tells what a recorder has of finished steps. Owned by one run, gone with it.

    It only reads what the recorder has brought to the CPU by itself, and works nothing out until
    it is time to tell. clock: in seconds.

    What is told is plain values of the first picture of the batch, mean over the layers and steps
    seen so far, over a video its mean frame: `step` (how far the schedule has come, from 1) and
    `steps` (its length) · `done`: whether it is the last word · `definition`, the one to look at
    first · `unit` of the numbers, as `render.unit` has it · `share` {text, self, references: [one
    for each]} · `grid` (height, width) and `covered` in cells · `maps` [{low, high, values}, one
    for each reference]: R2G in the numbers of `render.display_values`, where a byte b of `values`
    (base64, row by row from the top left) stands for low + b / 255 × (high - low).
    """

    def __init__(
        self, recorder: Recorder, tell: Tell, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recorder = recorder
        self._tell = tell
        self._clock = clock
        self._told = -math.inf
        self._rows = 0  # how many of the recorder's steps are in the sums
        self._sums: dict[Grid, Tensor] = {}  # each (kinds, cells)
        self._count = 0

    def look(self) -> None:
        """Tell what is new, if there is anything and it is time."""
        now = self._clock()
        if now - self._told >= INTERVAL and self._take_in():
            self._told = now
            self._tell(self._facts(done=False))

    def finish(self) -> None:
        """The run is over: tell all of it, whatever the time."""
        self._take_in()
        if self._count:
            self._tell(self._facts(done=True))

    def _take_in(self) -> bool:
        """Add what was finished since the last time; whether there was anything."""
        self._rows, finished = self._recorder.finished_maps(self._rows)
        for grid, maps in finished:
            total = self._sums.get(grid)
            self._sums[grid] = maps[0] if total is None else total + maps[0]
        self._count += len(finished)
        return bool(finished)

    def _facts(self, done: bool) -> dict[str, Any]:
        recorder = self._recorder
        finest = max(self._sums, key=lambda grid: grid.area)
        grid = finest.one_frame.shrunk_to(SIDE)
        means = torch.stack([spread(maps, own, grid) for own, maps in self._sums.items()])
        mean = means.sum(0) / self._count  # (kinds, cells)
        references, definition = recorder.reference_count, recorder.best_definition
        first = kind_of(definition, references)
        maps = AttributionMap(
            mean[first : first + references].reshape(1, references, *grid.sides),
            tuple(f"reference {r + 1}" for r in range(references)),
            grid,
            definition,
            Direction.REFERENCE_TO_GENERATED,
            Level.UNIFIED,
        )
        values = display_values(maps)
        low, high = value_range(values, Scale.PER_MAP, maps)
        painted = (normalise(values, low, high) * 255).round().byte()[0]
        text, own, *shares = (float(share) for share in mean[: 2 + references].sum(-1))
        return {
            "step": recorder.step_of(self._rows - 1) + 1,
            "steps": len(recorder.run.schedule) - 1,
            "done": done,
            "definition": definition.value,
            "unit": unit(maps),
            "share": {"text": text, "self": own, "references": shares},
            "grid": list(grid.sides),
            "covered": list(grid.covered),
            "maps": [
                {
                    "low": float(low[0, r]),
                    "high": float(high[0, r]),
                    "values": base64.b64encode(painted[r].numpy().tobytes()).decode(),
                }
                for r in range(references)
            ],
        }
