"""What the measurements share: sampling, with capture or without, intervals, figures."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
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
SEED = 1
RESAMPLES = 2000  # of the pictures, for a 95 % interval


@dataclass(frozen=True)
class Conditions:
    """What a sampler is given, as ComfyUI's nodes make it."""

    positive: Any
    negative: Any
    start: Tensor  # latent, (B, channels, height, width)


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

    def record(
        self,
        model: Any,
        conditions: Conditions,
        steps: int = STEPS,
        cfg: float = 1.0,
        **planned: Any,
    ) -> tuple[Tensor, Any]:
        """The sampled latent, and the recording of the conditional branch.

        planned: more of the plan; by default, all definitions are recorded.
        """
        hook, recording = self.module("nodes.host.hook"), self.module("i2am.recording")
        plan = recording.Plan(**{"branch": "conditional", "definitions": "all"} | planned)
        latent = sample(hook.arm(model, plan), conditions, noise_of(conditions), steps, cfg)
        recordings = self.module("nodes.sockets").RECORDINGS
        record = recordings.get(recording.fingerprint(latent))
        if not hasattr(record, "arrays"):
            raise SystemExit(f"Nothing was recorded: {record}")
        return latent, record

    def decode(self, latent: Tensor) -> Tensor:
        """The pictures, (B, H, W, 3)."""
        return self.vae.decode(latent).clamp(0, 1)

    def maps(
        self,
        record: Any,
        definition: str,
        direction: str,
        level: str = "unified",
        weight: str = "mass",
        reference: int = 0,
    ) -> Any:
        """The maps of a level. direction: "r2g" or "g2r". weight: of the layers.

        reference: its number from 0.
        """
        at = self.module("i2am.maps.levels")
        which = {
            "r2g": at.Direction.REFERENCE_TO_GENERATED,
            "g2r": at.Direction.GENERATED_TO_REFERENCE,
        }
        selection = at.Selection(weight=at.LayerWeight(weight))
        return at.attribution_map(
            record,
            at.Definition(definition),
            which[direction],
            at.Level(level),
            reference=reference,
            selection=selection,
        )

    def heatmaps(self, maps: Any, size: tuple[int, int]) -> Tensor:
        """Each map of a level in colours of its own range: (batch, maps, height, width, 3)."""
        display, tokens = self.module("i2am.display"), self.module("i2am.tokens")
        values = tokens.resample_nonnegative(maps.values, maps.grid, size).flatten(0, 1)
        low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
        drawn = display.heatmap((values - low) / (high - low), display.Colormap.INFERNO)
        return drawn.unflatten(0, maps.values.shape[:2])


def noise_of(conditions: Conditions) -> Tensor:
    """The noise that the sampling begins with, one for each picture."""
    import comfy.sample

    return torch.as_tensor(comfy.sample.prepare_noise(conditions.start, SEED))


def sample(
    model: Any, conditions: Conditions, noise: Tensor, steps: int = STEPS, cfg: float = 1.0
) -> Tensor:
    """The sampled latent."""
    import comfy.sample

    return comfy.sample.sample(
        model, noise, steps, cfg, "euler", "simple", conditions.positive, conditions.negative,
        conditions.start, disable_pbar=True, seed=SEED,
    )  # fmt: skip


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
