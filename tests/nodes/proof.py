"""Sampling with and without capture gives the same latent, and the dense oracle's recording."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny
import torch
from oracle import (
    ASKED,
    ASKED_OF,
    Place,
    Seen,
    Spy,
    asking,
    expected,
    expected_words,
    largest_deviation,
)
from torch import Tensor

TOLERANCE = 1e-4


def arm_model(comfy: Any, model: Any, **plan: Any) -> Any:
    """A model whose runs are recorded as planned, like Capture Attention's output."""
    return comfy.pack("nodes.host.hook").arm(model, comfy.pack("i2am.recording").Plan(**plan))


def filed(comfy: Any, latent: Tensor) -> Any:
    """What is filed under a sampled latent: a Recording, a Refusal or None."""
    name = comfy.pack("i2am.recording").fingerprint(latent)
    return comfy.pack("nodes.sockets").RECORDINGS.get(name)


def recording(comfy: Any, latent: Tensor) -> Any:
    """The recording filed under a sampled latent."""
    record = filed(comfy, latent)
    assert isinstance(record, comfy.pack("i2am.recording").Recording), record
    return record


def refusal_reason(comfy: Any, latent: Tensor) -> str:
    """Why the run that gave this latent was not recorded."""
    record = filed(comfy, latent)
    assert isinstance(record, comfy.pack("i2am.recording").Refusal), record
    return record.reason


def rows_of(index: int, batch: int) -> Callable[[Seen], list[slice]]:
    """The rows of conditionings with this index in `cond_or_uncond`; KSampler's positive is 0."""

    def rows(call: Seen) -> list[slice]:
        chunks = call.options["cond_or_uncond"]
        return [slice(i * batch, (i + 1) * batch) for i, c in enumerate(chunks) if c == index]

    return rows


def point_queries(comfy: Any, references: int) -> tuple[Any, ...]:
    """A plan's point queries, for the points that the oracle computes."""
    tokens = comfy.pack("i2am.tokens")
    return tuple(
        tokens.PointQuery(picture, x, y, x, y)
        for picture in range(tokens.RESULT, references)
        for x, y in (ASKED if picture == tokens.RESULT else ASKED_OF)
    )


@contextlib.contextmanager
def every_call_tapped(comfy: Any) -> Iterator[None]:
    """Taps the host's softmax in small calls too."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(comfy.pack("i2am.attention.softmax_tap"), "SMALL_BYTES", 0)
        yield


@contextlib.contextmanager
def without_triton(comfy: Any) -> Iterator[list[bool]]:
    """Calls are taken for those of a card without Triton; tells of each whether it was served so.

    Fused attention's sums are read of calls that the host makes by it.
    """
    served: list[bool] = []
    backend = comfy.pack("i2am.attention.torch_backend.backend")
    compute = comfy.pack("i2am.attention.compute")
    own = backend.operator_marginals

    def told(*args: Any, **options: Any) -> Any:
        found = own(*args, **options)
        served.append(found is not None)
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compute, "operator_marginals", told)
        patched.setattr(backend, "_is_card", lambda device: True)
        patched.setattr(comfy.pack("i2am.attention.dense"), "SMALL_BYTES", 0)
        patched.setattr(comfy.pack("nodes.host.calls"), "can_tap", lambda q, k: False)
        patched.setattr(comfy.pack("nodes.host.calls"), "can_tap_log_sum", lambda q, k: True)
        yield served


def over_frames(maps: Tensor, frames: int) -> Tensor:
    """Maps of a video, whose frames are rows of one picture to the oracle → of its mean frame."""
    return maps if frames == 1 else maps.unflatten(-2, (frames, -1)).mean(-3)


def step_finder(schedule: tuple[float, ...]) -> Callable[[float], int]:
    """Noise level → the last step of the schedule that starts at or above it."""

    def step_of(sigma: float) -> int:
        return max(step for step, level in enumerate(schedule[:-1]) if level >= sigma * 0.9999)

    return step_of


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
    words: bool = True,
    words_at: Callable[[Seen], Place | None] | None = None,
    **options: Any,
) -> tuple[Any, list[Seen]]:
    """Proves one run, the words of its prompt included; returns its recording and its calls.

    A second run, in which every call is tapped, and a third, as on a card without Triton, are
    proven too.

    model: makes the model, with all patches of other nodes. place_of: layouts written by hand.
    words: whether there are any. words_at: of calls with words, if they are others. grid, heads,
    latent: as in `expected`.
    index: of the recorded conditionings in `cond_or_uncond`.
    sample, options: how to sample.
    """
    spy = Spy()
    plain = sample(model(), positive, negative, start, **options)
    full_plan = {"places": point_queries(comfy, 8), "definitions": "all", "words": True}
    full_plan |= plan or {}
    armed = arm_model(comfy, spy.on(model()), **full_plan)
    sampled = sample(armed, positive, negative, start, **options)
    assert torch.equal(sampled, plain)
    record = recording(comfy, sampled)
    step_of = step_finder(record.header.run.schedule)
    rows = rows_of(index, start.shape[0])
    frames = record.header.generated.grid.frames
    of_references = tuple(picture.grid.frames for picture in record.header.references)
    asked_of = asking(place_of, latent, frames, of_references)
    calls = spy.calls, rows, asked_of, step_of
    effect = record.header.plan.definitions == "all"
    wanted = expected(*calls, grid, heads, latent, effect=effect)
    for name in wanted if frames > 1 else ():  # for the oracle, frames are rows of one picture
        if name.startswith("correspondence"):  # of the mean frame
            wanted[name] = wanted[name].unflatten(1, (frames, -1)).mean(1)
    assert bool(record.header.prompts) == words
    if words:
        places = spy.calls, rows, words_at or place_of, step_of
        sizes = len(record.header.layers), *record.header.prompts
        wanted |= expected_words(*places, grid, sizes, latent)
        wanted["words.0.map"] = over_frames(wanted["words.0.map"], frames)
    with every_call_tapped(comfy):
        armed = arm_model(comfy, model(), **full_plan)
        tapped = sample(armed, positive, negative, start, **options)
    with without_triton(comfy) as served:
        armed = arm_model(comfy, model(), **full_plan)
        by_operators = sample(armed, positive, negative, start, **options)
    # Attention to text alone has no share to compute, so no way is needed.
    assert served or not (record.header.joint or record.header.references)
    assert torch.equal(tapped, plain)
    assert torch.equal(by_operators, plain)
    for proven in (record, recording(comfy, tapped), recording(comfy, by_operators)):
        arrays = {n: array.reshape(wanted[n].shape) for n, array in proven.arrays.items()}
        deviations = largest_deviation(arrays, wanted)
        if note is not None:
            note("largest deviation", max(deviations.values()))
        assert max(deviations.values()) < TOLERANCE, deviations
    assert record.header.evaluations == record.header.expected_evaluations
    assert len(record.header.layers) == record.header.expected_layers
    return record, spy.calls
