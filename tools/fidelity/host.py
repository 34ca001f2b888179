"""The demo model in real ComfyUI, recorded by the pack, with all or part of its reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tools.comfyui.in_process import ROOT, names_of
from tools.demo.scenes import Scenes

MODEL = ROOT / "models" / "diffusion_models" / "i2am_demo_inpaint.safetensors"
VAE = ROOT / "models" / "vae" / "i2am_demo_vae.safetensors"
STEPS = 20
SCENE, OBJECT = 0, 1  # the references, in the order the model is given them


@dataclass(frozen=True)
class Host:
    """The demo model and its VAE, loaded, and the names used of the pack."""

    model: Any
    vae: Any
    pack: SimpleNamespace

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers, in the order they run. The last reads the object."""
        network = self.model.model.diffusion_model
        return tuple(
            f"{kind} {number}"
            for kind in ("double", "single")
            for number in range(len(getattr(network, f"{kind}_blocks")))
        )

    @property
    def last(self) -> int:
        """The number of the last layer."""
        return len(self.layers) - 1

    def encoded(self, scenes: Scenes) -> list[Tensor]:
        """Latents of the scenes with their holes, then of the references."""
        return [self.vae.encode(picture) for picture in (scenes.scene, scenes.reference)]

    def sample(
        self,
        latents: list[Tensor],
        count: int,
        *,
        sampled: int = STEPS,
        cfg: float = 1.0,
        seed: int = 1,
        copies: int = 1,
        first: int = 0,
        muted: Tensor | None = None,
        **plan: Any,
    ) -> tuple[Tensor, Any]:
        """Fill the holes from encoded references: the latent, and its recording if there is a plan.

        sampled: the number of steps. copies: how many samples in a row are of one scene and begin
        with the same noise. first: the number of the first scene, if these are some of many.
        muted: (count, tokens) bool, tokens of the last reference that nothing may attend to. The
        negative conditioning of guidance is without that reference.
        """
        import comfy.sample

        positive, negative = (
            [[torch.zeros(1, 1, 16), {"reference_latents": given}]]
            for given in (latents, latents[:1])
        )
        start = torch.zeros(count, 16, *latents[0].shape[-2:])
        scenes = torch.zeros(first + count // copies, *start.shape[1:])
        noise = torch.as_tensor(comfy.sample.prepare_noise(scenes, seed))[first:]
        noise = noise.repeat_interleave(copies, 0)
        model = self.model
        if muted is not None:
            model = model.clone()
            options = model.model_options.setdefault("transformer_options", {})
            options["optimized_attention_override"] = _muting(muted)
        if plan:
            model = self.pack.arm(model, self.pack.Plan(**plan))
        latent = comfy.sample.sample(
            model, noise, sampled, cfg, "euler", "simple", positive,
            negative, start, disable_pbar=True, seed=seed,
        )  # fmt: skip
        record = self.pack.RECORDINGS.get(self.pack.fingerprint(latent)) if plan else None
        if plan and not isinstance(record, self.pack.Recording):
            raise SystemExit(f"Nothing was recorded: {record}")
        return latent, record


def _muting(muted: Tensor) -> Callable[..., Tensor]:
    """An attention override that hides the muted ones among the last keys."""

    def attend(
        attention: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        if kwargs.get("mask") is not None or len(q) != len(muted):
            raise SystemExit("The demo model's attention is not called as it used to be.")
        bias = q.new_zeros(len(q), q.shape[2], k.shape[2])
        bias[..., -muted.shape[1] :].masked_fill_(muted.unsqueeze(1), float("-inf"))
        return attention(q, k, v, *args, **{**kwargs, "mask": bias})

    return attend


def pack_names(package: str) -> SimpleNamespace:
    """Everything these tools use of the pack. package: the name it was loaded under."""
    modules = (
        *("nodes.host.hook", "nodes.sockets"),
        *("i2am.tokens", "i2am.recording", "i2am.maps", "i2am.scores"),
    )
    return names_of(package, *modules)


def load(pack: SimpleNamespace, model: Path = MODEL, vae: Path = VAE) -> Host:
    """The demo model and its VAE through ComfyUI's loaders."""
    import comfy.sd
    import comfy.utils

    if not model.exists() or not vae.exists():
        raise SystemExit(f"The demo model is not there: {model.name} or {vae.name} is missing.")
    weights, metadata = comfy.utils.load_torch_file(str(vae), return_metadata=True)
    return Host(
        comfy.sd.load_diffusion_model(str(model)),
        comfy.sd.VAE(sd=weights, metadata=metadata),
        pack,
    )
