"""Proof for videos: each array of the recording equals the dense oracle's.

The oracle knows still pictures. To it, a video of T frames of h×w tokens is one picture of T·h
rows, with the same tokens in the same order. A correspondence is then averaged over the frames of
the result and summed over those of a reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tiny
import torch
from oracle import Place, Seen, Spy, asking, expected, expected_words, largest_deviation
from proof import (
    TOLERANCE,
    arm_model,
    over_frames,
    point_queries,
    recording,
    rows_of,
    step_finder,
)
from torch import Tensor


def prove_video(
    comfy: Any,
    model: Callable[[], Any],
    positive: list[Any],
    negative: list[Any],
    start: Tensor,
    place_of: Callable[[Seen], Place | None],
    *,
    grid: tuple[int, int, int],
    heads: int = 2,
    reference_frames: tuple[int, ...] = (),
    note: Callable[[str, Any], None] | None = None,
    words: bool = True,
    words_at: Callable[[Seen], Place | None] | None = None,
    **options: Any,
) -> tuple[Any, list[Seen]]:
    """Proves one run; returns its recording and its attention calls.

    grid: frames, height and width of the result in tokens; `place_of` has it as (frames × height,
    width), and likewise references of several `reference_frames`. words, words_at: as in `prove`.
    """
    spy = Spy()
    plain = tiny.sample(model(), positive, negative, start, **options)
    plan = {"places": point_queries(comfy, 8), "definitions": "all", "words": True}
    armed = arm_model(comfy, spy.on(model()), **plan)
    latent = tiny.sample(armed, positive, negative, start, **options)
    assert torch.equal(latent, plain)
    record = recording(comfy, latent)
    step_of = step_finder(record.header.run.schedule)
    frames, height, width = grid
    rows = rows_of(0, start.shape[0])
    counts = reference_frames or (1,) * len(record.header.references)
    asked_of = asking(place_of, frames=frames, reference_frames=counts)
    one_picture = (frames * height, width)
    effect = bool(record.header.references)
    wanted = expected(spy.calls, rows, asked_of, step_of, one_picture, heads, effect=effect)
    for name, array in wanted.items():
        r = next((int(part) for part in name.split(".") if part.isdecimal()), 0)
        if name.startswith("correspondence"):
            array = array.unflatten(1, (frames, height)).mean(1)
            wanted[name] = array.unflatten(3, (counts[r], -1)).sum(3)
        elif "r2g" in name or name in ("share.map", "output.map"):
            wanted[name] = array.unflatten(-2, (frames, height)) if frames > 1 else array
        elif "g2r" in name and counts[r] > 1:
            wanted[name] = array.unflatten(-2, (counts[r], -1))
    assert bool(record.header.prompts) == words
    if words:
        places = spy.calls, rows, words_at or place_of, step_of
        sizes = len(record.header.layers), *record.header.prompts
        wanted |= expected_words(*places, one_picture, sizes)
        wanted["words.0.map"] = over_frames(wanted["words.0.map"], frames)
    deviations = largest_deviation(dict(record.arrays), wanted)
    if note is not None:
        note("largest deviation", max(deviations.values()))
    assert max(deviations.values()) < TOLERANCE, deviations
    assert record.header.evaluations == record.header.expected_evaluations
    assert len(record.header.layers) == record.header.expected_layers
    return record, spy.calls
