"""The variants: capture with different plans, and the dense method for comparison."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tools.bench.cases import MIB, Case


def dense_maps(q: Tensor, k: Tensor, generated: slice, references: tuple[slice, ...]) -> Tensor:
    """The paper's two maps of one call, from full matrices: means over heads, (B, places).

    The paper's released code also keeps the matrices themselves, summed over the steps.
    """
    maps: list[Tensor] = []
    for span in references:
        logits = (q[:, :, generated] @ k[:, :, span].mT).float() * q.shape[-1] ** -0.5
        maps.append(logits.softmax(-2).mean(-1).mean(1))
        maps.append(logits.softmax(-1).mean(-2).mean(1))
    return torch.cat(maps, dim=-1)


class Dense:
    """An attention override that computes the dense method's maps of every call."""

    def __init__(self, case: Case, meter: Meter) -> None:
        self._case = case
        self._meter = meter
        self.maps: dict[Any, Tensor] = {}

    def __call__(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        output = func(*args, **kwargs)
        q, k = args[0], args[1]
        options = kwargs["transformer_options"]
        tokens = k.shape[2] if kwargs.get("skip_reshape") else k.shape[1]
        if tokens == self._case.keys:
            if not kwargs.get("skip_reshape"):
                q, k = (x.unflatten(-1, (args[3], -1)).transpose(1, 2) for x in (q, k))
            site = (options.get("block"), options.get("block_type"), options.get("block_index"))
            with self._meter():
                maps = dense_maps(q, k, self._case.generated, self._case.references)
                self.maps[site] = self.maps.get(site, 0) + maps
        return output

    @property
    def mebibytes(self) -> float:
        return sum(maps.numel() * maps.element_size() for maps in self.maps.values()) / MIB


@dataclass
class Meter:
    """While switched on, measures the peak memory of the code that runs inside it."""

    device: torch.device
    on: bool = False
    peak: int = 0
    inside: bool = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        if not self.on or self.inside:
            yield
            return
        self.inside = True
        try:
            yield from self._measured()
        finally:
            self.inside = False

    def _measured(self) -> Iterator[None]:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            yield
            torch.cuda.synchronize()
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() - before)
        else:
            with profile(
                activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
            ) as record:
                yield
            assert record.profiler is not None
            events = record.profiler.kineto_results
            assert events is not None
            held = 0
            memory = (e for e in events.events() if e.name() == "[memory]")
            for event in sorted(memory, key=lambda e: e.start_ns()):
                held += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
                self.peak = max(self.peak, held)


@dataclass(frozen=True)
class Variant:
    """One way to record a run. plan: what to record; None stands for the dense method.

    paper_only: capture gets the references' keys alone. kernels: whether Triton is used.
    """

    name: str
    plan: dict[str, Any] | None
    paper_only: bool = False
    kernels: bool = True


def every(nth: int, steps: int) -> tuple[tuple[int, int], ...]:
    return tuple((step, step) for step in range(0, steps, nth))


def variants(case: Case, device: torch.device) -> list[Variant]:
    found = [
        Variant("exact", {}),
        Variant("with the effect", {"definitions": "all"}),
        Variant("with words", {"words": True}),
        Variant("model definition", {"definitions": "model"}),
        Variant("no correspondence", {"correspondence": False}),
        Variant("paper", {"correspondence": False}, paper_only=True),
        Variant("balanced", {"budget": "balanced"}),
        Variant("fast", {"budget": "fast"}),
        Variant("dense", None),
    ]
    if device.type == "cuda":
        found[1:1] = [
            Variant("without triton", {}, kernels=False),
            Variant("fast, without triton", {"budget": "fast"}, kernels=False),
        ]
    if case.steps >= 4:
        found[3:3] = [
            Variant(f"every {name} step", {"steps": every(nth, case.steps)})
            for nth, name in ((2, "2nd"), (4, "4th"))
        ]
    return found


def of_references(layout: Any) -> Any:
    """The layout with the references' keys alone, all that the paper's maps need."""
    first = layout.references[0].start
    spans = tuple(
        type(s)(s.role, s.start - first, s.stop - first, s.grid) for s in layout.references
    )
    return type(layout)(layout.queries, spans)
