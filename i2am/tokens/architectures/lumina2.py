"""Lumina 2 and Z-Image Omni: each piece of the sequence is padded on its own, the result last."""

from __future__ import annotations

from ..grids import Grid
from ..layout import Role, TokenLayout
from .base import (
    Architecture,
    Call,
    Forward,
    Layer,
    Piece,
    blocks,
    generated_grid,
    joint_layout,
    prompt,
    reference_latents,
)


def _padded(length: int, to: int) -> int:
    return -(-length // to) * to


def _texts(forward: Forward, multiple: int) -> tuple[int, int]:
    """How many tokens the captions have, and the vision encoder's tokens of the references.

    Every reference and the result have a caption and vision tokens, or padding instead. Further
    captions follow.
    """
    count = len(forward.references)
    captions = _captions(forward, multiple)
    vision = [height * width for _, height, width, _ in forward.shapes.get("siglip_feats", ())]
    vision = [*vision[:count], *[multiple] * (count - len(vision) + 1)]
    if "siglip_refiner" not in forward.numbers or not count:
        vision = []
    return sum(_padded(n, multiple) for n in captions), sum(_padded(n, multiple) for n in vision)


def _captions(forward: Forward, multiple: int) -> list[int]:
    """How many tokens each caption has: one for each reference, then the result's, then more."""
    count = len(forward.references)
    given = [shape[1] for shape in forward.shapes.get("ref_contexts", ())]
    before = [*given[:count], *[multiple] * (count - len(given))]
    return [*before, forward.context, *given[count:]]


def _text_pieces(forward: Forward, multiple: int) -> tuple[Piece, ...]:
    """The captions, each padded, with the prompt among them, and vision tokens."""
    before = sum(
        _padded(n, multiple) for n in _captions(forward, multiple)[: len(forward.references)]
    )
    after = sum(_texts(forward, multiple)) - before - forward.context
    return (Role.TEXT, before), prompt(forward), (Role.TEXT, after)


def _pictures(forward: Forward, multiple: int) -> tuple[tuple[Role, int | Grid], ...]:
    """[reference 1 | padding | reference 2 | padding … | result | padding]."""
    pictures = [(Role.REFERENCE, picture.grid) for picture in reference_latents(forward)]
    pictures.append((Role.GENERATED, generated_grid(forward)))
    return tuple(
        piece
        for role, grid in pictures
        for piece in ((role, grid), (Role.TEXT, -grid.area % multiple))
    )


def _read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """[captions | vision tokens | pictures]; in the refiners of the pictures, [pictures].

    These come after the other refiners, which may have the same number of tokens.
    """
    multiple = forward.numbers.get("pad_tokens_multiple", 1)
    texts, pictures = _texts(forward, multiple), _pictures(forward, multiple)
    index = call.options.get("block_index")
    if index is not None:
        layer = Layer(call.options["block_type"], index)
        return layer, joint_layout(call, *_text_pieces(forward, multiple), *pictures)
    refiners = forward.numbers["noise_refiner"]
    nth = call.nth - refiners * texts.count(call.keys)
    own = sum(piece.area if isinstance(piece, Grid) else piece for _, piece in pictures)
    if call.keys != own or nth < 0:
        return None
    return Layer("refiner", nth), joint_layout(call, *pictures)


LUMINA2 = Architecture(
    name="Lumina 2 and Z-Image",
    models=frozenset({"Lumina2"}),
    joint=True,
    reference_kind="reference latent, from TextEncodeZImageOmni",
    layers=blocks(refiner="noise_refiner", double="layers"),
    references=reference_latents,
    read=_read,
    note="Padding counts as text. So do vision tokens, because the model shuffles them and they no "
    "longer have positions in a picture. In the refiners, pictures attend only to each other.",
)
