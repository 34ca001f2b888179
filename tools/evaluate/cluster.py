"""The Ray cluster of an evaluation: one started for it, or an existing one."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tools.setup.paths import ROOT

from .errors import EvaluationError
from .task import Setup
from .worker.actor import Worker

CONNECT_SECONDS = 5
STORE_BYTES = 256 * 2**20  # of Ray's shared memory, for work in progress, never for all results
# A worker that dies is always restarted; a task that kills its worker is tried three times.
RETRIES = 2
# The parts of this folder that a cluster's machines get.
NOT_SENT = [".git", ".venv", ".comfyui", "output", "tests", "docs", "example_workflows"]
NO_MESSAGES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class Share:
    """What one worker takes: CPU cores, and all, part or none of a graphics card."""

    cores: int = 1
    cards: float = 0.0


@contextmanager
def ray_session(address: str | None, cores: int) -> Iterator[Any]:
    """Ray, connected. address: “host:port” of a cluster, or “auto”; None starts one with `cores`.

    A Ray already connected in this process is used and left running. Raises EvaluationError for a
    cluster that cannot be reached.
    """
    os.environ.update(NO_MESSAGES)
    import ray

    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        os.environ["PYTHONPATH"] = _with_root(os.environ.get("PYTHONPATH"))
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            **quiet,
        )
    else:
        if address != "auto":
            _reach(address)
        try:
            packed = {"working_dir": str(ROOT), "excludes": NOT_SENT}
            ray.init(address=address, runtime_env=packed, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise EvaluationError(
                f"There is no connection to a Ray cluster at {address}: {error}. Start one with "
                "“ray start --head”, with the same versions of Ray and Python, or leave --address "
                "out to run on this machine. Where the cluster asks for a token, set "
                "RAY_AUTH_MODE=token, and give this machine the token."
            ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def team_size(ray: Any, share: Share, wanted: int | None) -> int:
    """The number of workers: as many as wanted, else one per card or per share of the cores.

    Raises EvaluationError if they do not all fit, since Ray would wait forever.
    """
    there = ray.cluster_resources()
    cores, cards = int(there.get("CPU", 0)), float(there.get("GPU", 0))
    room = cores // share.cores if share.cores else cores
    if share.cards:
        room = min(room, int(cards / share.cards))
    if not room or (wanted or 0) > room:
        needs = f"{share.cores} cores" + (f" and {share.cards:g} of a card" if share.cards else "")
        raise EvaluationError(
            f"There is room for {room} workers: one takes {needs}, and Ray has {cores} cores and "
            f"{cards:g} cards free to use. Ask for fewer with --workers or --threads."
        )
    return wanted or room


def start_worker(ray: Any, setup: Setup, share: Share) -> Any:
    """Starts a worker in its own process."""
    actor = ray.remote(Worker).options(
        num_cpus=share.cores,
        num_gpus=share.cards,
        max_restarts=-1,
        max_task_retries=RETRIES,
    )
    return actor.remote(setup)


def has_cards(ray: Any) -> bool:
    """Whether Ray knows a graphics card."""
    return bool(ray.cluster_resources().get("GPU", 0))


def _reach(address: str) -> None:
    """Checks that something answers at an address; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address.startswith("ray://") or not host or not port.isdigit():
        raise EvaluationError(
            f"“{address}” is no address of a Ray cluster. It is what “ray start --head” prints, "
            "for example 10.0.0.1:6379; “auto” finds the one on this machine."
        )
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise EvaluationError(
            f"No Ray cluster answers at {address}: {error.strerror or error}. Start it with “ray "
            "start --head”, or leave --address out to run on this machine."
        ) from None


def _with_root(before: str | None) -> str:
    """PYTHONPATH with this checkout first, so that workers find `tools`."""
    return os.pathsep.join([str(ROOT), *([before] if before else [])])
