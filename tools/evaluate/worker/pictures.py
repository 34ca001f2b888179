"""Result and target → PSNR, SSIM and LPIPS, by torchmetrics; and the strip that a report shows.

Pictures are compared as saved: with 8 bits per channel.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

STRIP = 96  # pixels: the height of a strip
GAP = 3
QUALITY = 85
# The files of weights that torchvision uses; torchmetrics includes those of LPIPS itself.
LPIPS_WEIGHTS = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}


def weights_folder() -> Path:
    """Where torch keeps downloaded weights: TORCH_HOME, or ~/.cache/torch."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def lpips_at_hand(wanted: str | None = None) -> str:
    """The network for LPIPS: the first one with weights present; empty if there is none."""
    for network, file in LPIPS_WEIGHTS.items():
        if wanted in (None, network) and (weights_folder() / file).is_file():
            return network
    return ""


def eight_bit(picture: Tensor) -> Tensor:
    """A picture (height, width, 3) in 0 to 1, rounded as in its file."""
    return (picture.clamp(0, 1) * 255).round() / 255


def quality(result: Tensor, data: bytes, mask: Tensor | None, lpips: str) -> dict[str, float]:
    """The quality of a result (height, width, 3) compared with the target in a file.

    mask: (height, width), where the reference was meant to go. Raises ValueError for a target with
    another size.
    """
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    with Image.open(io.BytesIO(data)) as file:
        target = torch.from_numpy(np.asarray(file.convert("RGB"), np.float32) / 255)
    if target.shape != result.shape:
        sizes = (f"{one.shape[1]}×{one.shape[0]}" for one in (target, result))
        raise ValueError("the target is {}, but the result is {}".format(*sizes))
    found, wanted = (one.movedim(-1, 0)[None] for one in (eight_bit(result), target))
    similarity: Any = structural_similarity_index_measure(found, wanted, data_range=1.0)
    figures = {
        "psnr": float(peak_signal_noise_ratio(found, wanted, data_range=1.0)),
        "ssim": float(similarity),
    }
    if mask is not None:
        inside = mask >= 0.5
        parts = (one[0][:, inside] for one in (found, wanted))
        figures["psnr_inside"] = float(peak_signal_noise_ratio(*parts, data_range=1.0))
    if lpips:
        figures["lpips"] = float(_lpips(lpips)(found, wanted))
    return figures


@cache
def _lpips(network: Any) -> Callable[[Tensor, Tensor], Tensor]:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type=network, normalize=True).eval()


def png(picture: Tensor) -> bytes:
    """A picture (height, width, 3) as PNG bytes."""
    values = (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def results(attribution: Any) -> Tensor:
    """The result of each batch item, (batch, height, width, 3); for a video, its middle picture."""
    batch = attribution.recording.header.run.batch
    pictures = attribution.image.float().cpu().unflatten(0, (batch, -1))
    return pictures[:, pictures.shape[1] // 2]


def strip(
    display: ModuleType, attribution: Any, sides: Any, item: int, target: bytes | None
) -> bytes:
    """Reference, result, target if any, R2G and G2R of a picture in a row, as JPEG."""
    result = results(attribution)[item]
    number = sides.reference
    given = attribution.references[number] if number < len(attribution.references) else None
    reference = None if given is None else given[min(item, len(given) - 1)].float().cpu()
    shown = [reference, result]
    if target is not None:
        with Image.open(io.BytesIO(target)) as file:
            shown.append(torch.from_numpy(np.asarray(file.convert("RGB"), np.float32) / 255))
    for side, under in ((sides.over_result, result), (sides.over_reference, reference)):
        if side.map is None:
            continue
        size = (STRIP, STRIP) if under is None else (under.shape[0], under.shape[1])
        painted = display.paint(side.map, display.Scale.PER_MAP, size).values[item : item + 1, 0]
        picture = torch.zeros(1, *size, 3) if under is None else under[None]
        shown.append(display.overlay(picture, painted, display.Colormap.INFERNO, 0.8)[0])
    tiles = [_tile(picture) for picture in shown]
    row = torch.ones(STRIP, sum(tile.shape[1] for tile in tiles) + GAP * (len(tiles) - 1), 3)
    left = 0
    for tile in tiles:
        row[:, left : left + tile.shape[1]] = tile
        left += tile.shape[1] + GAP
    buffer = io.BytesIO()
    values = (row.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(values).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _tile(picture: Tensor | None) -> Tensor:
    """A picture at the height of the strip; grey if there is none."""
    if picture is None:
        return torch.full((STRIP, STRIP, 3), 0.5)
    width = max(1, round(picture.shape[1] * STRIP / picture.shape[0]))
    small = interpolate(
        picture.movedim(-1, 0)[None], (STRIP, width), mode="bilinear", antialias=True
    )
    return small[0].movedim(0, -1)
