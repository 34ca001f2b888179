"""Recorder → the maps so far, sent a few times a second while a run is being sampled."""

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

INTERVAL = 1 / 3  # seconds between two messages, at least
SIDE = 32  # cells of a map's longer side, at most
Tell = Callable[[dict[str, Any]], None]


class Live:
    """Sends the maps of a recorder's finished steps through `tell`. Belongs to one run.

    It reads only what the recorder has already moved to the CPU, and computes nothing until a
    message is due. clock: in seconds.

    A message holds plain values for the first picture of the batch, mean over the layers and steps
    recorded so far; for a video, the mean frame: `step` (the latest in the schedule, from 1) and
    `steps` (its length) · `done`: whether it is the last message · `definition`, the one to show
    first · `unit` of the numbers, from `maps.unit` · `share` {text, self, references: [one for
    each]} · `grid` (height, width) and `covered` in cells · `maps` [{low, high, values}, one for
    each reference]: R2G in the units of `maps.display_values`, where a byte b of `values` (base64,
    row by row from the top left) stands for low + b / 255 × (high - low).
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
        """Send a message if there is anything new and INTERVAL has passed."""
        now = self._clock()
        if now - self._told >= INTERVAL and self._take_in():
            self._told = now
            self._tell(self._facts(done=False))

    def finish(self) -> None:
        """The run is over: send the last message at once."""
        self._take_in()
        if self._count:
            self._tell(self._facts(done=True))

    def _take_in(self) -> bool:
        """Add the steps finished since the last time; return whether there were any."""
        self._rows, finished = self._recorder.finished_maps(self._rows)
        if not self._recorder.reference_count:
            return False  # words alone have no map of a reference to show
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
