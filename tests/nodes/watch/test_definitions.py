"""One definition alone: the same maps as with others, and a clear word where one is missing."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from proof import arm_model, recording, without_triton

REFERENCES = (tiny.latent(10, 1, 16, 7, 14), tiny.latent(11, 1, 16, 6, 5))
POSITIVE = tiny.conditioning(20, 7, 16, REFERENCES)
START = tiny.latent(22, 2, 16, 12, 10)


def recorded(comfy: Any, definitions: str) -> Any:
    places = (comfy.pack("i2am.tokens").PointQuery(-1, 0.4, 0.6, 0.4, 0.6),)
    armed = arm_model(comfy, tiny.flux(), definitions=definitions, places=places)
    return recording(comfy, tiny.sample(armed, POSITIVE, POSITIVE, START))


@pytest.mark.parametrize("triton", [True, False])
@pytest.mark.parametrize("definition", ["model", "paper"])
def test_the_same_maps(comfy: Any, tmp_path: Path, definition: str, triton: bool) -> None:
    with contextlib.nullcontext() if triton else without_triton(comfy):
        both, one = recorded(comfy, "both"), recorded(comfy, definition)
    other = {"model": "paper", "paper": "model"}[definition]
    kept = {
        name
        for name in both.arrays
        if other not in name and not (other == "paper" and name.startswith("correspondence.0"))
    }
    if definition == "model":
        kept = {name for name in kept if name not in ("correspondence.0", "correspondence.1")}
    assert set(one.arrays) == kept
    for name, array in one.arrays.items():
        assert torch.equal(array, both.arrays[name]), name
    files = comfy.pack("i2am.recording.files")
    told = comfy.pack("i2am.recording").definitions_of(one.header.plan)
    assert not any(other in name for name in told)
    assert ("correspondence" in told) == (definition == "paper")
    assert files.array_shapes(one.header).keys() == one.arrays.keys()


def test_what_is_missing_is_named(comfy: Any) -> None:
    errors, at = comfy.pack("i2am.errors"), comfy.pack("i2am.maps.levels")
    paper, model = recorded(comfy, "paper"), recorded(comfy, "model")
    best = comfy.pack("i2am.recording").best_definition
    assert (best(paper).value, best(model).value) == ("paper", "model")
    with pytest.raises(errors.I2AMError, match=r"holds no model definition.*recorded paper"):
        at.attribution_map(paper, at.Definition.MODEL, at.Direction.REFERENCE_TO_GENERATED)
    with pytest.raises(errors.I2AMError, match="holds no paper definition"):
        at.attribution_map(model, at.Definition.PAPER, at.Direction.GENERATED_TO_REFERENCE)
    scores = comfy.pack("i2am.scores.influence")
    assert scores.measure_influence(model).whole.shape == (2, 4)
    with pytest.raises(errors.I2AMError, match="holds no model definition"):
        scores.measure_influence(paper)
