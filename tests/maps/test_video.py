"""Videos: a frame axis in grids, maps, files, and over the pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recordings import recording

from i2am.display import recording_report
from i2am.errors import I2AMError, LayoutMismatch
from i2am.maps import EVERY_FRAME, MEAN_FRAME, Level, attribution_map
from i2am.recording import (
    MAP_SIDE,
    Attribution,
    Definition,
    Direction,
    load_attribution,
    map_grid,
    save_attribution,
)
from i2am.tokens import Grid, frames_of, spread

VIDEO = Grid(4, 3, frames=3)
MADE = recording(generated=VIDEO, references=(Grid(2, 3),), steps=2)
R2G = Direction.REFERENCE_TO_GENERATED


def test_grid() -> None:
    assert (VIDEO.area, VIDEO.shape, Grid(4, 3).shape) == (36, (3, 4, 3), (4, 3))
    assert VIDEO.shrunk_to(2) == Grid(2, 2, frames=3)
    with pytest.raises(LayoutMismatch, match="0×4×3"):
        Grid(4, 3, frames=0)


def test_spread_keeps_frames() -> None:
    """Each frame is spread like a still picture; to one frame, the frames are summed."""
    maps, small = torch.rand(2, 36, dtype=torch.float64), Grid(2, 2)
    alone = [spread(m, Grid(4, 3), small) for m in maps.unflatten(-1, (3, 12)).unbind(1)]
    together = spread(maps, VIDEO, Grid(2, 2, frames=3))
    torch.testing.assert_close(together, torch.cat(alone, -1))
    torch.testing.assert_close(spread(maps, VIDEO, small), sum(alone))
    with pytest.raises(LayoutMismatch, match="3 frames cannot be spread over 2"):
        spread(maps, VIDEO, Grid(4, 3, frames=2))


@pytest.mark.parametrize(
    ("pictures", "frames", "expected"),
    [
        (1, 1, (0,)),
        (2, 1, ()),
        (9, 3, (0, 1, 1, 1, 1, 2, 2, 2, 2)),
        (3, 3, (0, 1, 2)),
        (8, 3, ()),
        (1, 3, ()),
        (0, 3, ()),
    ],
)
def test_frames_of(pictures: int, frames: int, expected: tuple[int, ...]) -> None:
    """81 pictures are 21 frames: the first alone, then four in each."""
    assert frames_of(pictures, frames) == expected
    assert frames_of(81, 21)[-5:] == (19, 20, 20, 20, 20)


def test_long_videos_are_kept_small() -> None:
    """81 pictures of 832×480: maps take no more memory than a still picture's of two grids."""
    kept = map_grid(Grid(30, 52, frames=21))
    assert (kept.frames, kept.area <= 2 * MAP_SIDE**2) == (21, True)
    assert kept.area > 2 * MAP_SIDE**2 * 0.9
    assert map_grid(Grid(64, 64)) == Grid(64, 64)


def test_arrays() -> None:
    """Frames come before height and width; a correspondence is over all frames together."""
    arrays = MADE.arrays
    assert arrays["paper.r2g.0.step_layer"].shape == (2, 2, 3, 3, 4, 3)
    assert arrays["model.g2r.0.layer_head"].shape == (2, 3, 2, 2, 3)
    assert arrays["share.map"].shape == (2, 3, 3, 4, 3)
    assert arrays["correspondence.0"].shape == (2, 4, 3, 2, 3)
    ones = arrays["correspondence.0"].sum((-2, -1))
    torch.testing.assert_close(ones, torch.ones_like(ones))
    torch.testing.assert_close(
        arrays["correspondence.model.0"].sum((-2, -1)), arrays["share.map"][:, 2].mean(1)
    )


def test_maps_of_frames() -> None:
    """The mean of the frames' maps is the map of all frames, which sums to one."""
    mean = attribution_map(MADE, Definition.PAPER, R2G)
    every = attribution_map(MADE, Definition.PAPER, R2G, frame=EVERY_FRAME)
    second = attribution_map(MADE, Definition.PAPER, R2G, frame=1)
    assert (mean.grid, mean.labels) == (Grid(4, 3), ("unified",))
    assert every.labels == ("frame 0", "frame 1", "frame 2")
    torch.testing.assert_close(mean.values.sum((2, 3)), torch.ones(2, 1))
    torch.testing.assert_close(every.values.mean(1, keepdim=True), mean.values)
    assert torch.equal(second.values[:, 0], every.values[:, 1])
    layers = attribution_map(MADE, Definition.PAPER, R2G, Level.LAYER, frame=EVERY_FRAME)
    assert layers.labels[2:4] == ("double 0, frame 2", "double 1, frame 0")
    over = attribution_map(MADE, Definition.PAPER, Direction.GENERATED_TO_REFERENCE, frame=2)
    assert over.values.shape == (2, 1, 2, 3)  # a still picture


def test_a_frame_that_does_not_exist() -> None:
    with pytest.raises(I2AMError, match="Frame 3 does not exist: the latent has 3"):
        attribution_map(MADE, Definition.PAPER, R2G, frame=3)
    assert MEAN_FRAME < 0


def test_file(tmp_path: Path) -> None:
    """Frames are restored, and with them the pictures: nine for three frames, of two videos."""
    path = tmp_path / "video.safetensors"
    save_attribution(path, Attribution(MADE, torch.rand(18, 32, 24, 3), (torch.rand(1, 8, 8, 3),)))
    loaded = load_attribution(path)
    assert loaded.recording.header == MADE.header
    video = loaded.video(R2G, 0)
    assert video is not None
    assert video.shape == (2, 9, 32, 24, 3)
    save_attribution(path, Attribution(MADE, torch.rand(16, 32, 24, 3)))
    with pytest.raises(I2AMError, match="16 pictures"):
        load_attribution(path)


def test_report() -> None:
    assert "2 pictures of 3 latent frames" in recording_report(MADE)
