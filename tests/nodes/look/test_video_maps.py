"""Attribution Map and Collect Attribution on a video, with all of the video's pictures."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from proof import arm_model, recording
from tiny_wan import EVEN, texts, wan

PICTURES = torch.rand(18, 64, 80, 3)  # two videos of nine: three latent frames


@pytest.fixture
def record(comfy: Any) -> Any:
    positive, _ = texts(reference_latents=[tiny.latent(65, 1, 16, 1, 8, 10)])
    armed = arm_model(comfy, wan("WAN21_T2V", in_dim_ref_conv=16))
    return recording(comfy, tiny.sample(armed, positive, positive, EVEN, steps=1))


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (-2, [(0, 0), *((1 + n // 4, 1 + n) for n in range(8))]),
        (-1, [(0, 4)]),
        (0, [(0, 0)]),
        (2, [(0, 7)]),
    ],
    ids=["every frame", "mean", "first", "last"],
)
def test_maps_over_pictures(
    comfy: Any, record: Any, frame: int, expected: list[tuple[int, int]]
) -> None:
    """Every frame's map over all pictures of that frame; other maps over the middle one."""
    maps, made = comfy.pack("nodes.drawing"), comfy.pack("i2am.maps.levels")
    attribution = comfy.pack("i2am.recording").Attribution(record, PICTURES, (None,))
    direction = made.Direction.REFERENCE_TO_GENERATED
    found = made.attribution_map(record, made.Definition.MODEL, direction, frame=frame)
    pictures = attribution.video(direction, 0)
    over = maps.maps_over(pictures, len(found.labels), attribution, direction, 1, frame)
    assert over == expected
    look = maps.Colormap.INFERNO, 0.0, maps.Scale.SHARED, False
    overlays, _, values = maps._draw(found, pictures, over, (64, 80), *look)
    assert values.shape == (2, len(over), 64, 80)
    for number, (_, picture) in enumerate(expected):  # opacity 0 shows the picture itself
        assert torch.equal(overlays[:, number], PICTURES.unflatten(0, (2, 9))[:, picture])


def test_pictures_that_do_not_fit(comfy: Any, record: Any) -> None:
    """Sixteen pictures cannot be two videos of three latent frames."""
    pictures, error = comfy.pack("nodes.watch.pictures"), comfy.pack("i2am.errors").I2AMError
    assert len(pictures._result_picture(PICTURES, record)) == 18
    with pytest.raises(error, match="16 pictures, but 2 × 3 latent frames"):
        pictures._result_picture(PICTURES[:16], record)
