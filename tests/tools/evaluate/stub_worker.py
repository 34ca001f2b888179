"""A worker without ComfyUI, for what does not depend on it: it tells its task's seed as a score."""

from __future__ import annotations

import os
from typing import Any

from tools.evaluate.task import Outcome, Task

SEED = "4"  # the node of conftest.prompt


class StubWorker:
    """What a driver asks of a worker. A seed of DEADLY ends its process, one of BAD fails."""

    DEADLY, BAD = 666, 13

    def __init__(self, object_info: dict[str, Any]) -> None:
        self._object_info = object_info

    def facts(self) -> dict[str, Any]:
        return {"comfyui": "0", "pack": "1", "lpips": "", "card": ""}

    def object_info(self, types: list[str]) -> dict[str, Any]:
        return {name: self._object_info[name] for name in types if name in self._object_info}

    def fingerprints(self, names: list[str]) -> dict[str, str]:
        return {}

    def refusals(self, task: Task) -> list[str]:
        return []

    def process(self) -> int:
        return os.getpid()

    def measure(self, task: Task) -> Outcome:
        seed = task.prompt[SEED]["inputs"]["seed"]
        if seed == self.DEADLY:
            os._exit(1)
        if seed == self.BAD:
            return Outcome(problem="“KSampler” (node 4): bad luck")
        return Outcome(({"imacs_generated": seed / 1000},), (bytes(2000),), (bytes(1000),), 0.1)
