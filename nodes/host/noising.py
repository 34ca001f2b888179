"""Evaluate a model on a picture that exists, noised to some levels, through ComfyUI's sampling.

To all other nodes and packs this is a sampling run: its hooks, areas, masks, control nets and
wrappers do what they do in any other. It changes nothing, and its output is the picture itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSAMPLER, CFGGuider, calculate_sigmas
from torch import Tensor

from ...i2am.errors import I2AMError
from ...i2am.recording import evenly_spread

_FLAT = 1e-6  # squared deviation of a picture of one colour, at least


@dataclass(frozen=True)
class FinishedPicture:
    """A picture as the sampler takes it: its latent and the noise, (batch, channels, …, h, w).

    mask: the inpainting mask, if the latent has one.
    """

    latent: Tensor
    noise: Tensor
    mask: Tensor | None


class NoisedLevels(KSAMPLER):
    """A sampler that evaluates the model once at each noise level, on the picture noised to it.

    At each level the latent is what a sampler begins with if it starts there. The same noise is
    used at all levels. fits: at each level so far, how much of each picture the model's guess gets
    right, (batch,), see `_fit`.
    """

    def __init__(self) -> None:
        super().__init__(self._evaluate)
        self.fits: list[Tensor] = []

    def _evaluate(
        self,
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable[[dict[str, Any]], None],
        disable: bool | None = None,
    ) -> Tensor:
        """A sampler function as ComfyUI's are; x, noised to the first level alone, is not used."""
        guider, noise, picture = model.inner_model, model.noise, model.latent_image
        scaling = guider.inner_model.model_sampling.noise_scaling
        for level, sigma in enumerate(sigmas[:-1]):
            noised = scaling(sigma, noise, picture, self.max_denoise(guider, sigmas[level:]))
            denoised = model(noised, sigma.expand(len(noised)), **extra_args)
            self.fits.append(_fit(denoised, picture, extra_args["denoise_mask"]))
            callback({"x": noised, "i": level, "sigma": sigma, "denoised": denoised})
        return picture


def _fit(guess: Tensor, picture: Tensor, mask: Tensor | None) -> Tensor:
    """1 − squared error of a guess / squared deviation of the picture from its mean: (batch,).

    mask: where they are compared; everywhere without one.
    """
    where = torch.ones_like(picture) if mask is None else mask.expand_as(picture)
    axes = tuple(range(2, picture.ndim))
    deviation = picture - picture.mean(axes, keepdim=True)
    error, whole = ((where * x.square()).flatten(1).sum(1) for x in (guess - picture, deviation))
    return 1 - error / whole.clamp(min=_FLAT)


def noise_levels(model: ModelPatcher, scheduler: str, count: int) -> Tensor:
    """The middle of each of `count` equal parts of a schedule, then zero: (levels + 1,).

    Schedules without that many different levels give fewer.
    """
    schedule = calculate_sigmas(model.get_model_object("model_sampling"), scheduler, 2 * count)
    levels = dict.fromkeys(evenly_spread(schedule[:-1].tolist(), count))
    return torch.tensor([*levels, 0.0])


def picture_of(model: ModelPatcher, latent_image: dict[str, Any], seed: int) -> FinishedPicture:
    """A LATENT → the picture to noise. Raises I2AMError for one that the model cannot be given."""
    latent: Tensor = latent_image["samples"]
    if latent.is_nested:
        raise I2AMError("This latent mixes picture and sound, which cannot be read so far.")
    _check_values(latent)
    latent = comfy.sample.fix_empty_latent_channels(model, latent)
    _check_shape(model, latent)
    noise: Any = comfy.sample.prepare_noise(latent, seed, latent_image.get("batch_index"))
    return FinishedPicture(latent, noise, latent_image.get("noise_mask"))


def evaluate(
    model: ModelPatcher,
    positive: list[Any],
    picture: FinishedPicture,
    sigmas: Tensor,
    seed: int,
    callback: Callable[[int, Tensor, Tensor, int], Any] | None = None,
) -> Tensor:
    """Evaluate a model on a picture at each noise level, with the positive conditioning.

    sigmas: as from `noise_levels`. callback: told of each level what samplers tell theirs. Returns
    the fit at each level, (levels, batch).
    """
    guider, levels = CFGGuider(model), NoisedLevels()
    guider.inner_set_conds({"positive": positive})
    guider.sample(
        *(picture.noise, picture.latent, levels, sigmas),
        denoise_mask=picture.mask,
        callback=callback,
        seed=seed,
    )
    return torch.stack(levels.fits).cpu()


def _check_values(latent: Tensor) -> None:
    """Raises I2AMError for a latent that holds no picture."""
    if not bool(latent.isfinite().all()):
        raise I2AMError(
            "This latent holds values that are not numbers. Encode the picture again, in a "
            "precision the VAE can bear (fp32 or bf16 instead of fp16)."
        )
    if not bool(latent.count_nonzero()):
        raise I2AMError(
            "This latent is empty: there is no picture in it to probe. Connect the finished "
            "picture through VAE Encode, or the latent of a sampler."
        )


def _check_shape(model: ModelPatcher, latent: Tensor) -> None:
    """Raises I2AMError for a latent that is not of the model's kind."""
    wanted: Any = model.get_model_object("latent_format")
    name = type(model.model).__name__
    if latent.shape[1] != wanted.latent_channels:
        raise I2AMError(
            f"This latent has {latent.shape[1]} channels, but {name} models have "
            f"{wanted.latent_channels}. Encode the picture with the VAE that belongs to the model."
        )
    if latent.ndim != wanted.latent_dimensions + 2:
        kinds = {4: "a picture", 5: "a video"}
        found, needed = latent.ndim, wanted.latent_dimensions + 2
        raise I2AMError(
            f"This latent is {kinds.get(found, f'of {found} axes')}, but {name} models take "
            f"{kinds.get(needed, f'{needed} axes')}. Encode it with the VAE that belongs to the "
            "model."
        )
