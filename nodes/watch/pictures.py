"""A recording and the pictures to draw its maps on → an attribution.

The inputs of Collect Attribution and of Probe a Picture that take these pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate

from ...i2am.errors import I2AMError
from ...i2am.recording import (
    Attribution,
    Direction,
    Recording,
    ReferenceFit,
    fits_results,
)
from ...i2am.scores import fitting_mask
from .reference_pictures import REFERENCES, References, fit_references, reference_pictures
from .upstream import Takers, Upstream


@dataclass(frozen=True)
class GivenPictures:
    """The values of `picture_inputs`, as ComfyUI gives them."""

    image: Tensor | None = None
    references: dict[str, Tensor] | None = None
    mask: Tensor | None = None
    reference_fit: str = ReferenceFit.AUTO.value
    vae: Any = None


def picture_inputs() -> list[io.Input]:
    """The inputs, all of them optional."""
    references = io.Autogrow.TemplateNames(
        io.Image.Input(
            "reference",
            tooltip="A reference picture, in the order the model was given them. Maps over "
            "the reference are drawn on it.",
        ),
        names=REFERENCES,
        min=0,
    )
    return [
        io.Image.Input(
            "image",
            optional=True,
            tooltip="The finished picture. Maps over the result are drawn on it.",
        ),
        io.Autogrow.Input(
            "references",
            template=references,
            optional=True,
            tooltip="The reference pictures, in the order the model was given them.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Where in the result the reference was meant to go; the scores use "
            "it. If left open, the inpainting mask of the latent is used.",
        ),
        io.Combo.Input(
            "reference_fit",
            options=[fit.value for fit in ReferenceFit],
            default=ReferenceFit.AUTO.value,
            optional=True,
            advanced=True,
            tooltip="Which part of a connected reference the model saw, if its proportions "
            "are not the model's. Auto takes the centre crop that vision encoders (CLIP "
            "vision, Redux, IP-Adapter) make, and refuses where it cannot know. Whole "
            "picture: all of it, stretched.",
        ),
        io.Vae.Input(
            "vae",
            optional=True,
            tooltip="Decodes what is not connected: the result, and each reference that "
            "the model was given as a latent, which is exactly what the model saw.",
        ),
    ]


def attribution_of(
    record: Recording, latent: dict[str, Any], given: GivenPictures, upstream: Upstream
) -> tuple[Attribution, tuple[str, ...]]:
    """A recording with its pictures, and lines for the report.

    latent: what was sampled. given: of exactly its pictures. upstream: the nodes above the run.
    Raises I2AMError for pictures and masks that do not fit.
    """
    decode = _decoder(given.vae)
    image = given.image
    if image is None and decode is not None:
        image = decode(latent["samples"])
    result = _result_picture(image, record)
    fit = ReferenceFit(given.reference_fit)
    references = _references(given.references or {}, record, fit, upstream, decode)
    if record.header.plan.within and result is not None:
        references = References((result,), (None,))
    attribution = Attribution(record, result, references.pictures, wholes=references.wholes)
    if given.mask is not None:
        size = attribution.size(Direction.REFERENCE_TO_GENERATED, 0)
        mask = fitting_mask(given.mask, record.header.run.batch, size, "mask over the result")
        attribution = replace(attribution, mask=mask)
    else:
        mask = _sampled_mask(latent, attribution)
        attribution = replace(attribution, mask=mask, mask_sampled=True)
    notes = references.notes
    if attribution.mask is not None:
        whose = "connected here" if given.mask is not None else "the inpainting mask of the latent"
        notes = (*notes, f"Mask over the result: {whose}")
    return attribution, notes


def _sampled_mask(samples: dict[str, Any], attribution: Attribution) -> Tensor | None:
    """The inpainting mask a latent was sampled with, over the result: (1 or batch, height, width).

    None if there is none, or if it is all black or all white. None for a video too: each of its
    frames may have a mask of its own.
    """
    header = attribution.recording.header
    mask = samples.get("noise_mask")
    if mask is None or header.generated.grid.frames > 1:
        return None
    mask = mask.reshape(-1, 1, *mask.shape[-2:]).float().cpu()
    if len(mask) not in (1, header.run.batch):  # repeated as the sampler does
        mask = mask.repeat(-(-header.run.batch // len(mask)), 1, 1, 1)[: header.run.batch]
    size = attribution.size(Direction.REFERENCE_TO_GENERATED, 0)
    if tuple(mask.shape[-2:]) != size:
        mask = interpolate(mask, size, mode="bilinear")
    inside = mask >= 0.5
    return mask[:, 0] if bool(inside.any()) and not bool(inside.all()) else None


def _result_picture(image: Tensor | None, record: Recording) -> Tensor | None:
    if image is None:
        return None
    batch, frames = record.header.run.batch, record.header.generated.grid.frames
    if not fits_results(image.shape[0], record.header):
        sampled = str(batch) if frames == 1 else f"{batch} × {frames} latent frames"
        how = "probed" if record.header.run.probed else "sampled in this run"
        raise I2AMError(
            f"The image input holds {image.shape[0]} pictures, but {sampled} were {how}. Connect "
            "the decoded pictures of this very latent. For one picture of a batch, take it out of "
            "the latent too, with Latent From Batch, and decode that."
        )
    return image[..., :3]


def _references(
    given: dict[str, Tensor],
    record: Recording,
    fit: ReferenceFit,
    upstream: Upstream,
    decode: Callable[[Tensor], Tensor] | None,
) -> References:
    """The given pictures → fitted to what the model saw of each reference."""
    together = len(given) == 1 < len(record.header.references)  # one input holds all of them

    def takers(number: int) -> Takers:
        return upstream.takers(f"references.{REFERENCES[0 if together else number]}")

    pictures = reference_pictures(given, record)
    return fit_references(pictures, record, fit, takers, decode)


def _decoder(vae: Any) -> Callable[[Tensor], Tensor] | None:
    """A VAE → a function from a latent to its pictures, (pictures, height, width, 3).

    It does what VAE Decode does.
    """
    if vae is None:
        return None

    def decode(latent: Tensor) -> Tensor:
        try:
            pictures: Tensor = vae.decode(latent.float())
        except RuntimeError as error:
            raise I2AMError(
                f"The vae cannot decode this latent of {tuple(latent.shape)}: {error}. Connect the "
                "VAE that belongs to the model."
            ) from error
        return pictures.reshape(-1, *pictures.shape[-3:])[..., :3].float().cpu()

    return decode
