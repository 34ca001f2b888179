"""The reference pictures of Collect Attribution → each fitted to what the model saw of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ...i2am.errors import I2AMError
from ...i2am.recording import (
    Recording,
    ReferenceFit,
    Whole,
    cut,
    fits_grid,
    fits_reference,
    is_cropped,
    is_encoded,
)
from ...i2am.tokens import Picture
from .upstream import Taker, Takers

REFERENCES = [f"reference_{number}" for number in range(1, 9)]
# Nodes of ComfyUI_IPAdapter_plus that give the model several tiles of a picture, and the advice for
# each. The tokens of such a reference are those of one tile, or a mix of all.
_TILED = {
    "IPAdapterTiled": "Connect its output “tiles”, whose pictures are the references.",
    "IPAdapterTiledBatch": "Connect its output “tiles”, whose pictures are the references.",
    "IPAdapterClipVisionEnhancer": "Leave this reference open.",
    "IPAdapterClipVisionEnhancerBatch": "Leave this reference open.",
}
# Nodes that encode a picture, and what they do with its proportions. For CLIPVisionEncode that
# depends on its widget `crop`; the other one always stretches. Other vision encoder nodes crop to a
# square.
_CLIP_VISION = "CLIPVisionEncode"
_CROPS = {"center": ReferenceFit.SQUARE, "none": ReferenceFit.WHOLE}
_STRETCHING = "I2AM_ReferenceTokens"


@dataclass(frozen=True)
class References:
    """Pictures as the model saw them, the wholes of those it saw in part, and report lines."""

    pictures: tuple[Tensor | None, ...]
    wholes: tuple[Whole | None, ...]
    notes: tuple[str, ...] = ()


def fit_references(
    given: tuple[Tensor | None, ...],
    recording: Recording,
    fit: ReferenceFit,
    takers: Callable[[int], Takers],
    decode: Callable[[Tensor], Tensor] | None,
) -> References:
    """The given pictures → each cut to what the model saw of it.

    given: one for each reference, or None. takers: a reference's number → the nodes that take its
    picture on the way to the model. decode: a latent → its pictures, if there is a VAE. The decoded
    picture is used if none is given, or if the given one is not what the model saw.

    Raises I2AMError for a picture the model did not see.
    """
    pictures: list[Tensor | None] = []
    wholes: list[Whole | None] = []
    notes: list[str] = []
    for number, (one, side) in enumerate(zip(given, recording.header.references, strict=True)):
        latent = recording.reference_latents.get(number)
        decoded = None if decode is None or latent is None else lambda d=decode, x=latent: d(x)
        whole = None
        if one is not None:
            one, whole = _seen(one, number, side, fit, takers(number), decoded)
        elif decoded is not None:
            one = decoded()
        if given[number] is not one and whole is None and one is not None:
            notes.append(f"Reference {number + 1}: decoded from the latent the model was given")
        if whole is not None:
            tall, wide = whole.size
            notes.append(
                f"Reference {number + 1}: the model saw the middle, {whole.width}×{whole.height} "
                f"of {wide}×{tall} pixels (width × height); maps lie there, the rest is dimmed"
            )
        pictures.append(one)
        wholes.append(whole)
    return References(tuple(pictures), tuple(wholes), tuple(notes))


def _seen(
    picture: Tensor,
    number: int,
    side: Picture,
    fit: ReferenceFit,
    takers: Takers,
    decoded: Callable[[], Tensor] | None,
) -> tuple[Tensor, Whole | None]:
    """A picture → what the model saw of it, and the whole if that is more."""
    _check_tiles(number, side, takers)
    size = picture.shape[1], picture.shape[2]
    if fit is ReferenceFit.AUTO:
        chosen = _auto(size, side, takers)
        if chosen is None:
            if decoded is not None:
                return decoded(), None
            raise I2AMError(_refusal(number, size, side, takers))
        fit = chosen
    if fit is ReferenceFit.SQUARE and side.has_places and not fits_grid((1, 1), side):
        raise I2AMError(
            f"reference_fit says that the model saw a square of reference {number + 1}, but it had "
            f"{_tokens(side)}, which are none. Choose auto or centre crop."
        )
    whole = cut(picture, side, fit)
    return (picture, None) if whole is None else (whole.seen, whole)


def _auto(size: tuple[int, int], side: Picture, takers: Takers) -> ReferenceFit | None:
    """Which part of a picture the model saw; None if unknown."""
    if not side.has_places and (not is_encoded(side) or size[0] == size[1]):
        return ReferenceFit.WHOLE
    if side.has_places and fits_grid(size, side):
        return ReferenceFit.WHOLE
    if is_encoded(side):
        fits = {_fit_of(one) for one in takers.direct} - {None}
        known = fits - {ReferenceFit.AUTO}
        if fits:
            return known.pop() if len(known) == len(fits) == 1 else None
        return None if takers.changed else ReferenceFit.CROP
    if is_cropped(side) and (takers.direct or not takers.changed):
        return ReferenceFit.CROP
    return None


def _fit_of(taker: Taker) -> ReferenceFit | None:
    """A node that encodes a picture → which part of it the model sees.

    AUTO if that does not follow from its settings, None for any other node.
    """
    if taker.class_type == _STRETCHING:
        return ReferenceFit.WHOLE
    if taker.class_type == _CLIP_VISION:
        return _CROPS.get(str(taker.values.get("crop")), ReferenceFit.AUTO)
    return None


def _check_tiles(number: int, side: Picture, takers: Takers) -> None:
    """Raises I2AMError for a picture that reached the model in tiles."""
    for one in takers.direct + takers.changed:
        advice = _TILED.get(one.class_type)
        if advice is None or not side.has_places:
            continue
        if "Enhancer" in one.class_type and one.values.get("enhance_tiles") == 1:
            continue
        raise I2AMError(
            f"Reference {number + 1} reached the model in tiles, through {one.name}, so no map "
            f"lies over all of it. {advice}"
        )


def _refusal(number: int, size: tuple[int, int], side: Picture, takers: Takers) -> str:
    found = (
        f"Reference {number + 1} is {size[1]}×{size[0]} (width × height), but what the model was "
        f"given has other proportions ({_tokens(side)}), so a map over it would be false. "
    )
    if takers.changed:
        names = " or ".join(one.name for one in takers.changed)
        found += f"Connect the picture that comes out of {names}. "
    else:
        found += "Connect the very picture that is encoded for the model. "
    return found + (
        "Or connect a vae, which decodes what the model was given; or say with reference_fit which "
        "part of this picture it saw."
    )


def _tokens(side: Picture) -> str:
    down, across = side.grid.covered
    if side.latent != (0, 0):
        return f"a latent of {side.latent[1]}×{side.latent[0]}"
    return f"{across:g}×{down:g} tokens"


def reference_pictures(given: dict[str, Tensor], recording: Recording) -> tuple[Tensor | None, ...]:
    """Collect's inputs → the pictures for each reference, (1 or batch, height, width, 3).

    There is one input for each reference, or one input that holds all of them as a batch.
    """
    header = recording.header
    count, batch = len(header.references), header.run.batch
    inputs: list[Tensor | None] = [given.get(name) for name in REFERENCES]
    inputs = [None if pictures is None else pictures[..., :3] for pictures in inputs]
    while inputs and inputs[-1] is None:
        inputs.pop()
    if len(inputs) == 1 and inputs[0] is not None and len(inputs[0]) == count > 1:
        inputs = list(inputs[0].split(1))
    if len(inputs) > count:
        raise I2AMError(
            f"{len(inputs)} reference pictures are connected, but the model was given {count}. "
            "Connect one picture for each reference, in the order the model was given them."
        )
    for number, pictures in enumerate(inputs, start=1):
        if pictures is not None and not fits_reference(len(pictures), header, number - 1):
            raise I2AMError(
                f"Reference {number} holds {len(pictures)} pictures, but the model was given "
                f"{count} references for {batch} results. Connect one picture for each reference."
            )
    return (*inputs, *[None] * (count - len(inputs)))
