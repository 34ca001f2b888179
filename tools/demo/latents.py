"""The demo model's latent space: a few DCT coefficients of each 8x8 block of pixels, written down.

A latent pixel sees exactly its own 8x8 block, so a token (2x2 latent pixels, 16x16 pixels) knows
nothing of its neighbours and "which token was copied" has one true answer. The block DCT and the
luma/chroma split are those of JPEG (ITU-T T.81, ITU-R BT.601); which coefficients are kept and how
they are scaled was chosen by their spread on demo scenes and photographs. The lower ones are only
partly whitened, so that what the eye sees most also weighs most in the training loss.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8  # pixels along one side of a latent pixel
CHANNELS = 16

# ComfyUI's constants of the Flux latent space: the sampler works on (z - SHIFT) * SCALE.
SCALE, SHIFT = 0.3611, 0.1159

Y, CB, CR = (0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081)

# (colour axis, vertical frequency, horizontal frequency, divisor)
COEFFICIENTS = (
    *((Y, v, h, d) for (v, h), d in zip(
        ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1)),
        (1.3, 0.5, 0.5, 0.33, 0.32, 0.32, 0.245, 0.245), strict=True)),
    *((axis, v, h, d) for axis in (CB, CR) for (v, h), d in zip(
        ((0, 0), (0, 1), (1, 0), (1, 1)), (0.65, 0.28, 0.28, 0.16), strict=True)),
)  # fmt: skip

GREY_OFFSET = BLOCK / 2 / 1.3  # the first coefficient of flat 0.5 grey, which becomes latent zero


def latent_kernel() -> Tensor:
    """The encoder as one convolution of stride 8: (16, 3, 8, 8)."""
    positions = torch.arange(BLOCK, dtype=torch.float64)
    frequencies = positions[:, None]
    basis = math.sqrt(2 / BLOCK) * torch.cos(math.pi * (positions + 0.5) * frequencies / BLOCK)
    basis[0] /= math.sqrt(2)
    kernels = [
        torch.tensor(axis, dtype=torch.float64)[:, None, None]
        * torch.outer(basis[vertical], basis[horizontal])
        / divisor
        for axis, vertical, horizontal, divisor in COEFFICIENTS
    ]
    return torch.stack(kernels).float()


def encode(pictures: Tensor) -> Tensor:
    """Pictures (B, H, W, 3), 0 to 1, to latents as the sampler sees them: (B, 16, H/8, W/8)."""
    latents = F.conv2d(pictures.movedim(-1, 1), latent_kernel(), stride=BLOCK)
    latents[:, 0] -= GREY_OFFSET
    return latents


def pixel_weights() -> Tensor:
    """How much an error of each latent channel weighs in pixels, one on average: (16, 1, 1).

    The DCT keeps squares; what is left is how the coefficients are scaled. The three colour axes
    are about equally long.
    """
    divisors = torch.tensor([divisor for *_, divisor in COEFFICIENTS])
    return (divisors.square() / divisors.square().mean())[:, None, None]
