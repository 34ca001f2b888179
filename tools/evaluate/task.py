"""What travels between the driver and its workers. Imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Measured = tuple[tuple[str, str], ...]  # an IMACS node and the prefix of its figures


@dataclass(frozen=True)
class Task:
    """One run of the workflow, with everything it needs, as sent to a worker."""

    prompt: Json
    measured: Measured
    pictures: dict[str, bytes]  # by their names in the prompt
    target: bytes | None = None
    correspondence: bytes | None = None
    lpips: str = ""


@dataclass(frozen=True)
class Outcome:
    """A task's results: for each picture of the run, its figures, its file and its strip.

    problem: what failed; empty if nothing did. seconds: of the run and its scores.
    """

    figures: tuple[dict[str, float], ...] = ()
    pictures: tuple[bytes, ...] = ()
    strips: tuple[bytes, ...] = ()
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Setup:
    """How a worker sets itself up. comfyui: used if the machine has no COMFYUI_PATH of its own."""

    comfyui: str
    cpu: bool
    threads: int
    arguments: tuple[str, ...] = ()
    models: tuple[tuple[str, str], ...] = ()
    node_types: tuple[str, ...] = ()
