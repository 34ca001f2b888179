"""Masks of the same proportions are resized to their picture; others are refused."""

from __future__ import annotations

import pytest
import torch

from i2am.errors import I2AMError
from i2am.scores import fitting_mask
from i2am.scores.fitting import has_proportions


@pytest.mark.parametrize(
    ("mask", "picture", "fits"),
    [
        ((128, 128), (128, 128), True),
        ((128, 128), (1024, 1024), True),
        ((1334, 2000), (667, 1000), True),
        ((341, 512), (512, 768), True),  # 341.3, rounded
        ((342, 512), (512, 768), True),
        ((43, 64), (683, 1024), True),
        ((767, 1023), (760, 1016), True),  # what a VAE cuts off
        ((128, 128), (112, 144), False),
        ((512, 768), (768, 512), False),
        ((1, 1), (64, 128), False),
        ((512, 768), (576, 768), False),
        ((480, 640), (500, 640), False),
        ((1080, 1920), (1088, 1920), True),  # padded to whole tokens
    ],
)
def test_proportions(mask: tuple[int, int], picture: tuple[int, int], fits: bool) -> None:
    assert has_proportions(mask, picture) == fits
    assert has_proportions(picture, mask) == fits
    painted = torch.rand(1, *mask)
    if not fits:
        with pytest.raises(I2AMError, match="other proportions"):
            fitting_mask(painted, 1, picture, "mask")
    elif mask == picture:
        assert fitting_mask(painted, 1, picture, "mask") is painted
    else:
        assert fitting_mask(painted, 1, picture, "mask").shape == (1, *picture)


def test_resizing_keeps_the_place() -> None:
    """Enlarged to twice the size and back: the same mask, and its area is unchanged."""
    mask = torch.zeros(2, 48, 64)
    mask[0, 8:24, 16:40], mask[1, 30:, :12] = 1, 1
    twice = fitting_mask(mask, 2, (96, 128), "mask") >= 0.5
    exact = mask.repeat_interleave(2, 1).repeat_interleave(2, 2) >= 0.5
    assert (twice != exact).float().mean() < 0.002  # only at corners
    again = fitting_mask(exact.float(), 2, (48, 64), "mask") >= 0.5
    assert (again != (mask >= 0.5)).float().mean() < 0.002


def test_numbers_stay_between_0_and_1() -> None:
    resized = fitting_mask((torch.rand(1, 12, 12) > 0.5).float(), 1, (64, 64), "mask")
    assert float(resized.min()) >= 0
    assert float(resized.max()) <= 1
