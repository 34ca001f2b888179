"""Sample with and without capture: the same latent, and a recording equal to the dense oracle's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny
import torch
from oracle import ASKED, ASKED_OF, Place, Seen, Spy, asking, expected, largest_deviation
from torch import Tensor

TOLERANCE = 1e-4


def recording(comfy: Any, latent: Tensor) -> Any:
    """What is filed under a sampled latent."""
    store = comfy.pack("i2am.recording")
    record = comfy.pack("nodes.sockets").RECORDINGS.get(store.fingerprint(latent))
    assert isinstance(record, comfy.pack("i2am.recording").Recording), record
    return record


def rows_of(index: int, batch: int) -> Callable[[Seen], list[slice]]:
    """The rows of conditionings with this index in `cond_or_uncond` (KSampler's positive: 0)."""

    def rows(call: Seen) -> list[slice]:
        chunks = call.options["cond_or_uncond"]
        return [slice(i * batch, (i + 1) * batch) for i, c in enumerate(chunks) if c == index]

    return rows


def asked_places(comfy: Any, references: int) -> tuple[Any, ...]:
    """What the oracle is asked about, for a Plan."""
    points = comfy.pack("i2am.tokens")
    return tuple(
        points.PointQuery(reference, x, y, x, y)
        for reference in range(-1, references)
        for x, y in (ASKED if reference == points.RESULT else ASKED_OF)
    )


@contextlib.contextmanager
def listening_to_all(comfy: Any) -> Iterator[None]:
    """Attention functions are listened to whatever the size of their calls."""
    listening = comfy.pack("i2am.attention.softmax_tap")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(listening, "SMALL_BYTES", 0)
        yield


def prove(
    comfy: Any,
    model: Callable[[], Any],
    positive: list[Any],
    negative: list[Any],
    start: Tensor,
    place_of: Callable[[Seen], Place | None],
    *,
    grid: tuple[int, int],
    heads: int,
    latent: tuple[int, int] = (0, 0),
    index: int = 0,
    sample: Callable[..., Tensor] = tiny.sample,
    note: Callable[[str, Any], None] | None = None,
    plan: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Any, list[Seen]]:
    """The recording of one run, proven, and the attention calls of that run.

    A second run, in which attention functions are listened to, is proven too.

    model: makes it anew, with all that other nodes put on it. place_of: layouts by hand. grid,
    heads, latent: as `expected` takes them. index: of the recorded conditionings in
    `cond_or_uncond`. sample, options: how to sample.
    """
    hook, recorder, spy = comfy.pack("nodes.host.hook"), comfy.pack("i2am.recording"), Spy()
    plain = sample(model(), positive, negative, start, **options)
    asked = recorder.Plan(**({"places": asked_places(comfy, 8)} | (plan or {})))
    armed = hook.arm(spy.on(model()), asked)
    sampled = sample(armed, positive, negative, start, **options)
    assert torch.equal(sampled, plain)
    record = recording(comfy, sampled)
    schedule = record.header.run.schedule

    def step_of(sigma: float) -> int:
        return max(i for i, level in enumerate(schedule[:-1]) if level >= sigma * 0.9999)

    rows = rows_of(index, start.shape[0])
    frames = record.header.generated.grid.frames
    of_references = tuple(picture.grid.frames for picture in record.header.references)
    asked_of = asking(place_of, latent, frames, of_references)
    wanted = expected(spy.calls, rows, asked_of, step_of, grid, heads, latent)
    for name in wanted if frames > 1 else ():  # for the oracle they are rows, one after the other
        if name.startswith("correspondence"):  # the mean of all frames
            wanted[name] = wanted[name].unflatten(1, (frames, -1)).mean(1)
    with listening_to_all(comfy):
        again = sample(hook.arm(model(), asked), positive, negative, start, **options)
    assert torch.equal(again, plain)
    for found in (record, recording(comfy, again)):
        arrays = {n: array.reshape(wanted[n].shape) for n, array in found.arrays.items()}
        deviations = largest_deviation(arrays, wanted)
        if note is not None:
            note("largest deviation", max(deviations.values()))
        assert max(deviations.values()) < TOLERANCE, deviations
    assert record.header.evaluations == record.header.expected_evaluations
    assert len(record.header.layers) == record.header.expected_layers
    return record, spy.calls
