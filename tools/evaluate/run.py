"""The driver: plan, workers, one file per pair. Results are held only until they are written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.comfyui.in_process import comfyui_path

from .cluster import Share, has_cards, ray_session, start_worker, team_size
from .errors import EvaluationError
from .plan import Pair, Plan, Settings, read_table, read_workflow
from .plan.workflow import node_types
from .results import SKIPPED, Results
from .task import Outcome, Setup

ALL_FAILED = 5  # consecutive pairs, from the first: then something is wrong with all
SPEAK_SECONDS = 5
Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is requested. Paths as given; see docs/evaluate.md for each option."""

    workflow: Path
    pairs: Path
    out: Path
    address: str | None = None
    workers: int | None = None
    threads: int = 1
    cards: float = 1.0
    cpu: bool = False
    strict: bool = False
    pictures: tuple[Path, ...] = ()
    models: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """How an evaluation went. skipped: row, name and problem of each pair without results."""

    pairs: int
    skipped: tuple[tuple[int, str, str], ...]

    @property
    def done(self) -> int:
        return self.pairs - len(self.skipped)

    @property
    def complete(self) -> bool:
        return not self.skipped


def evaluate(request: Request, say: Say = print, by: tuple[str, ...] = ()) -> Summary:
    """Measures what is missing and writes the report, grouped by the given columns, if any.

    Raises EvaluationError before time is spent, where possible.
    """
    summary = measure(request, say)
    from .report import write_report  # imports torch, which the run itself does not need

    say(f"{summary.done} of {summary.pairs} pairs are measured.")
    if summary.skipped:
        say(f"{len(summary.skipped)} gave nothing; {request.out / SKIPPED} says why.")
    if summary.done:
        written = write_report(Results(request.out), by)
        say(f"Written: {', '.join(map(str, written))}")
    return summary


def measure(request: Request, say: Say = print) -> Summary:
    """Runs the missing pairs of an evaluation and writes its table.

    Raises EvaluationError before time is spent, where possible.
    """
    types = node_types(request.workflow)
    table = read_table(request.pairs)
    results = Results(request.out)
    cores = max(os.cpu_count() or 1, (request.workers or 1) * request.threads)
    with ray_session(request.address, cores) as ray:
        cuda = not request.cpu and has_cards(ray)
        share = Share(request.threads, request.cards if cuda else 0.0)
        size = team_size(ray, share, request.workers)
        setup = Setup(
            str(comfyui_path().resolve()),
            not cuda,
            request.threads,
            request.arguments,
            request.models,
            tuple(types),
        )
        say("Starting ComfyUI in the first worker ...")
        first = start_worker(ray, setup, share)
        plan = _plan(ray, request, table, first, cuda)
        say(f"Looking at {len(plan)} pairs ...")
        missing = _missing(plan, results)
        _say_problems(plan, request.strict, say)
        results.write_facts(plan.described())
        if missing:
            results.check_room(len(missing))
            refused = ray.get(first.refusals.remote(plan.task(plan.pair(missing[0]))))
            if refused:
                raise EvaluationError("ComfyUI refuses the workflow:\n  " + "\n  ".join(refused))
        size = max(1, min(size, len(missing)))
        say(f"{len(missing)} pairs to do, {size} worker{'s' if size > 1 else ''}.")
        failed: dict[str, str] = {}
        if missing:
            workers = [first, *(start_worker(ray, setup, share) for _ in range(size - 1))]
            failed = _run(ray, plan, missing, workers, results, say)
    summary = _summary(plan, results, failed)
    results.write_skipped(list(summary.skipped))
    results.write_table(_cells(plan, results))
    return summary


def _plan(ray: Any, request: Request, table: Any, first: Any, cuda: bool) -> Plan:
    """The plan, using what the first worker knows about nodes, models and versions."""
    try:
        facts = ray.get(first.facts.remote())
    except ray.exceptions.RayError as error:
        raise EvaluationError(f"The worker could not start: {_root_cause(error)}") from None
    info = ray.get(first.object_info.remote(node_types(request.workflow)))
    workflow = read_workflow(request.workflow, info)
    settings = Settings(
        facts["pack"],
        facts["comfyui"],
        "cuda" if cuda else "cpu",
        request.threads,
        facts["lpips"],
        request.arguments,
    )
    here = request.workflow.resolve().parent
    folders = [*request.pictures, here, here / "inputs", comfyui_path() / "input"]
    return Plan.make(
        workflow,
        table,
        settings,
        lambda names: ray.get(first.fingerprints.remote(names)),
        list(folders),
    )


def _missing(plan: Plan, results: Results) -> list[int]:
    """The rows (from 0) still to do, grouped by model; equal rows once."""
    missing: dict[str, int] = {}
    for pair in plan.pairs():
        if not pair.problem and not results.has(pair.key):
            missing.setdefault(pair.key, pair.number - 1)
    return list(missing.values())


def _say_problems(plan: Plan, strict: bool, say: Say) -> None:
    """Reports rows that cannot be run; raises EvaluationError if none can."""
    count = 0
    for number in range(len(plan)):
        pair = plan.pair(number)
        if pair.problem:
            count += 1
            say(f"  Row {pair.number} ({pair.name}) is left out: {pair.problem}.")
    if count and (strict or count == len(plan)):
        rest = ", or leave --strict out to run the others." if strict else "."
        raise EvaluationError(
            f"{count} of {len(plan)} pairs cannot be run (see above). Put them right{rest}"
        )


def _summary(plan: Plan, results: Results, failed: dict[str, str]) -> Summary:
    skipped: list[tuple[int, str, str]] = []
    for number in range(len(plan)):
        pair = plan.pair(number)
        if pair.problem or not results.has(pair.key):
            problem = pair.problem or failed.get(pair.key, "it was not run")
            skipped.append((pair.number, pair.name, problem))
    return Summary(len(plan), tuple(skipped))


def _run(
    ray: Any, plan: Plan, missing: list[int], workers: list[Any], results: Results, say: Say
) -> dict[str, str]:
    """Gives every worker one pair after another and writes each result as it arrives.

    Returns the key of each failed pair, with the reason.
    """
    waiting = iter(missing)
    busy: dict[Any, tuple[Pair, Any]] = {}
    free = list(workers)
    failed: dict[str, str] = {}
    finished = 0
    start = spoken = time.monotonic()
    while True:
        while free and (number := next(waiting, None)) is not None:
            worker, pair = free.pop(), plan.pair(number)
            busy[worker.measure.remote(plan.task(pair))] = pair, worker
        if not busy:
            return failed
        ready, _ = ray.wait(list(busy), num_returns=1)
        pair, worker = busy.pop(ready[0])
        outcome, alive = _outcome(ray, ready.pop(), worker)
        finished += 1
        if outcome.problem:
            failed[pair.key] = outcome.problem
            say(f"  Row {pair.number} ({pair.name}) failed: {outcome.problem}")
            if len(failed) == finished == ALL_FAILED:
                raise EvaluationError(
                    f"The first {ALL_FAILED} pairs failed, so the run was stopped. The last said: "
                    f"{outcome.problem}"
                )
        else:
            results.keep(pair, outcome)
        free += [worker] if alive else []
        if not busy and not free:
            raise EvaluationError(
                "No worker is left: they ended and could not start again. What is done is kept; "
                "look at Ray's logs (/tmp/ray/session_latest/logs) and run the same command again."
            )
        if time.monotonic() - spoken > SPEAK_SECONDS or finished == len(missing):
            spoken = time.monotonic()
            say(_progress(finished, len(missing), spoken - start, len(failed)))


def _outcome(ray: Any, reference: Any, worker: Any) -> tuple[Outcome, bool]:
    """A task's outcome, and whether its worker can take another."""
    try:
        return ray.get(reference), True
    except ray.exceptions.RayActorError:
        problem = "its worker ended each of the three times it was tried"
    except ray.exceptions.RayError as error:
        problem = _root_cause(error)
    try:
        ray.get(worker.process.remote())  # waits for a worker that is restarting
    except ray.exceptions.RayError:
        return Outcome(problem=problem), False
    return Outcome(problem=problem), True


def _progress(finished: int, count: int, seconds: float, skipped: int) -> str:
    left = (count - finished) * seconds / finished
    words = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
    some = f", {skipped} skipped" if skipped else ""
    return f"  {finished} of {count}{some}; {seconds / finished:.2f} s a pair, about {words} left"


def _cells(plan: Plan, results: Results) -> Iterator[tuple[dict[str, Any], str]]:
    """Each finished row of the table, in order, with its key."""
    names = plan.table.names()
    for number in range(len(plan)):
        pair = plan.pair(number)
        if not pair.problem and results.has(pair.key):
            yield {"row": number + 1, "name": names[number]} | plan.cells(number), pair.key


def _root_cause(error: BaseException) -> str:
    """The last line of a worker's error, without Ray's frames around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
