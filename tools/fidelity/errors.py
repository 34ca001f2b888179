"""How far a picture is from the truth, inside a mask: four errors, none with a trained network.

All take pictures (B, H, W, 3) in 0 to 1 and a mask (B, H, W), and give (B,), 0 where equal.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # of the window, in pixels: Wang et al. 2004
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
GRADIENT_C = 0.0026  # keeps flat places from counting: Xue et al. 2014, for 0 to 1
GRADIENT_SCALES = (1, 2, 4, 8)  # pixels averaged along a side


def _inside(errors: Tensor, mask: Tensor) -> Tensor:
    return (errors * mask).sum((1, 2)) / mask.sum((1, 2))


def mean_absolute(found: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """The mean absolute difference."""
    return _inside((found - truth).abs().mean(-1), mask)


def mean_square(found: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """The mean squared difference."""
    return _inside(((found - truth) ** 2).mean(-1), mask)


def decibels(found: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """The PSNR; not in ERRORS, since it falls as those rise."""
    return -10 * mean_square(found, truth, mask).log10()


def structural(found: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """1 − SSIM (Wang et al. 2004, Gaussian window), the map's mean inside the mask."""
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1.0)
    line = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    window = torch.outer(line, line) / line.sum() ** 2

    def blurred(pictures: Tensor) -> Tensor:
        pictures = F.pad(pictures, (SSIM_RADIUS,) * 4, mode="replicate")
        return F.conv2d(pictures, window.expand(3, 1, -1, -1), groups=3)

    x, y = found.movedim(-1, 1), truth.movedim(-1, 1)
    mean_x, mean_y = blurred(x), blurred(y)
    spread_x = blurred(x * x) - mean_x**2
    spread_y = blurred(y * y) - mean_y**2
    shared = blurred(x * y) - mean_x * mean_y
    similar = (2 * mean_x * mean_y + SSIM_C1) * (2 * shared + SSIM_C2)
    similar /= (mean_x**2 + mean_y**2 + SSIM_C1) * (spread_x + spread_y + SSIM_C2)
    return _inside(1 - similar.mean(1), mask)


def gradients(found: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Multi-scale gradient dissimilarity: 1 − gradient magnitude similarity, mean over scales.

    Used where others use LPIPS, but not LPIPS: no network has learned what people see. The
    similarity at one scale is that of Xue et al. 2014, over luma.
    """
    luma = torch.tensor((0.299, 0.587, 0.114))
    total = torch.zeros(len(found))
    for scale in GRADIENT_SCALES:
        slopes = [
            _slope(F.avg_pool2d((picture @ luma)[:, None], scale)) for picture in (found, truth)
        ]
        similar = (2 * slopes[0] * slopes[1] + GRADIENT_C) / (
            slopes[0] ** 2 + slopes[1] ** 2 + GRADIENT_C
        )
        total += _inside(1 - similar[:, 0], F.avg_pool2d(mask[:, None], scale)[:, 0])
    return total / len(GRADIENT_SCALES)


def _slope(picture: Tensor) -> Tensor:
    """Gradient magnitude by Prewitt's filters, (B, 1, H, W)."""
    across = torch.tensor((1.0, 0.0, -1.0)).expand(3, 3) / 3
    kernel = torch.stack((across, across.mT))[:, None]
    padded = F.pad(picture, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel).square().sum(1, keepdim=True).sqrt()


ERRORS = {
    "mean squared": mean_square,
    "mean absolute": mean_absolute,
    "1 − SSIM": structural,
    "gradient dissimilarity": gradients,
}
