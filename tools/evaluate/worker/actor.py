"""The worker: a Ray actor in its own process."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ..task import Json, Outcome, Setup, Task


class Worker:
    """ComfyUI in this process. Runs as a Ray actor, which Ray restarts when it dies."""

    def __init__(self, setup: Setup) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", str(setup.threads))
        from .comfyui import ComfyUI

        self._cpu = setup.cpu
        self._scratch = Path(tempfile.mkdtemp(prefix="i2am-evaluate-"))
        self.comfyui = ComfyUI(
            Path(os.environ.get("COMFYUI_PATH") or setup.comfyui),
            self._scratch,
            cpu=setup.cpu,
            arguments=setup.arguments,
            models=setup.models,
            node_types=setup.node_types,
        )
        import torch

        torch.set_num_threads(setup.threads)
        # Everything a task needs is imported now: edits made during a run must not mix into it.
        from . import pictures
        from .scores import Scores

        self._pictures = pictures
        self._scores = Scores(self.comfyui.pack)

    def facts(self) -> Json:
        """Versions and the device, which the figures depend on."""
        import torch

        cuda = not self._cpu and torch.cuda.is_available()
        return {
            "comfyui": self.comfyui.version,
            "pack": self.comfyui.pack_version,
            "lpips": self._pictures.lpips_at_hand(),
            "weights": str(self._pictures.weights_folder()),
            "card": torch.cuda.get_device_name() if cuda else "",
            "process": os.getpid(),
        }

    def object_info(self, types: Sequence[str]) -> Json:
        """The given node types that ComfyUI knows."""
        return self.comfyui.object_info(types)

    def fingerprints(self, names: Sequence[str]) -> dict[str, str]:
        """The given names that are model files, with a digest of each."""
        return self.comfyui.fingerprints(names)

    def refusals(self, task: Task) -> list[str]:
        """ComfyUI's objections to a task, before running it."""
        self.comfyui.put(task.pictures)
        return self.comfyui.refusals(task.prompt, _targets(task))

    def process(self) -> int:
        """The id of this process."""
        return os.getpid()

    def measure(self, task: Task) -> Outcome:
        """Runs a task; any failure is returned, not raised."""
        start = time.perf_counter()
        try:
            figures, pictures, strips = self._measure(task)
        except Exception as error:  # from any node, ours or another pack's
            return Outcome(problem=str(error).strip() or type(error).__name__)
        seconds = time.perf_counter() - start
        return Outcome(tuple(figures), tuple(pictures), tuple(strips), round(seconds, 3))

    def close(self) -> None:
        """Removes the files the worker wrote."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _measure(self, task: Task) -> tuple[list[dict[str, float]], list[bytes], list[bytes]]:
        pictures = self._pictures
        self.comfyui.put(task.pictures)
        outputs = self.comfyui.run(task.prompt, _targets(task))
        display = self.comfyui.pack("i2am.display")
        rows: list[dict[str, float]] = []
        files: list[bytes] = []
        strips: list[bytes] = []
        compared: set[str] = set()
        for node, prefix in task.measured:
            given = {
                name: outputs[value[0]][value[1]][0] if isinstance(value, list) else value
                for name, value in task.prompt[node]["inputs"].items()
            }
            attribution = given.pop("attribution")
            found, sides = self._scores.figures(attribution, given, task.correspondence)
            collect = task.prompt[node]["inputs"]["attribution"][0]
            if collect not in compared:
                made = pictures.results(attribution)
                if task.target is not None:
                    if len(attribution.image) != len(made):
                        raise ValueError("a target is a picture, but the result is a video")
                    for item, row in enumerate(found):
                        mask = sides.over_result.mask
                        mask = None if mask is None else mask[min(item, len(mask) - 1)]
                        row |= pictures.quality(made[item], task.target, mask, task.lpips)
                if not compared:
                    files = [pictures.png(picture) for picture in made]
                    strips = [
                        pictures.strip(display, attribution, sides, item, task.target)
                        for item in range(len(made))
                    ]
            compared.add(collect)
            named = [{prefix + name: value for name, value in row.items()} for row in found]
            rows = [one | other for one, other in zip(rows or named, named, strict=True)]
        return rows, files, strips


def _targets(task: Task) -> list[str]:
    """The nodes whose values the scores need: all that the IMACS nodes are connected to."""
    links = (
        value[0]
        for node, _ in task.measured
        for value in task.prompt[node]["inputs"].values()
        if isinstance(value, list)
    )
    return list(dict.fromkeys(links))
