"""What the measurements share: sampling with capture, intervals over pictures, figures."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tools.comfyui.in_process import ROOT

VAE = ROOT / "models" / "vae" / "i2am_demo_vae.safetensors"
STEPS = 20
RESAMPLES = 2000  # of the pictures, for a 95 % interval


class Pack:
    """The pack's modules by name, and the demo VAE from ComfyUI's loader."""

    def __init__(self, package: str) -> None:
        import comfy.sd
        import comfy.utils

        self._package = package
        weights, metadata = comfy.utils.load_torch_file(str(VAE), return_metadata=True)
        self.vae = comfy.sd.VAE(sd=weights, metadata=metadata)

    def module(self, name: str) -> ModuleType:
        """A module of the pack by its name there, for example "i2am.scores"."""
        return importlib.import_module(f"{self._package}.{name}")

    def sample(
        self, model: Any, positive: Any, negative: Any, start: Tensor, cfg: float
    ) -> tuple[Tensor, Any]:
        """Sampled pictures (B, H, W, 3), and the recording of the conditional branch."""
        import comfy.sample

        hook, recording = self.module("nodes.host.hook"), self.module("i2am.recording")
        output = comfy.sample.sample(
            hook.arm(model, recording.Plan(branch="conditional")),
            comfy.sample.prepare_noise(start, 1), STEPS, cfg, "euler", "simple", positive, negative,
            start, disable_pbar=True, seed=1,
        )  # fmt: skip
        recordings = self.module("nodes.sockets").RECORDINGS
        record = recordings.get(recording.fingerprint(output))
        if not hasattr(record, "arrays"):
            raise SystemExit(f"Nothing was recorded: {record}")
        return self.vae.decode(output).clamp(0, 1), record

    def heatmaps(self, maps: Any, size: tuple[int, int]) -> Tensor:
        """Each map of a level in colours of its own range: (batch, maps, height, width, 3)."""
        display, tokens = self.module("i2am.display"), self.module("i2am.tokens")
        values = tokens.resample_nonnegative(maps.values, maps.grid, size).flatten(0, 1)
        low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
        drawn = display.heatmap((values - low) / (high - low), display.Colormap.INFERNO)
        return drawn.unflatten(0, maps.values.shape[:2])


def interval(values: np.ndarray, seed: int) -> tuple[float, float, float]:
    """The mean over pictures (pictures,), and its 95 % bootstrap interval."""
    picked = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[picked].mean(1), (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def save_rows(rows: list[Tensor], path: Path) -> None:
    """Rows of pictures of one size, (count, height, width, 3) each, as one file."""
    picture = torch.cat([torch.cat(list(row), 1) for row in rows], 0).clamp(0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture.numpy() * 255).round().astype(np.uint8)).save(path, optimize=True)
