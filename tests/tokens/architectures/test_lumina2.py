"""Lumina 2 and Z-Image Omni: calls in plain numbers → layer and layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from i2am.errors import LayoutMismatch
from i2am.tokens import Grid, Role
from i2am.tokens.architectures.base import Call, Forward, Layer
from i2am.tokens.architectures.lumina2 import LUMINA2

# A latent of 11×10 (30 tokens), references of 8×14 (28) and 6×4 (6), seven tokens of text.
LUMINA = Forward(
    *((11, 10), ((8, 14), (6, 4)), 2, 7),
    shapes={"ref_contexts": ((1, 5, 24), (1, 3, 24))},
    numbers={"noise_refiner": 2},
)
Z_IMAGE = replace(LUMINA, numbers={"noise_refiner": 2, "pad_tokens_multiple": 32})
OMNI = replace(Z_IMAGE, numbers={**Z_IMAGE.numbers, "siglip_refiner": 2})
SEEN = {"siglip_feats": ((1, 5, 7, 16), (1, 4, 4, 16))}
BLOCK = {"block_type": "double", "block_index": 3}
R, G, T = Role.REFERENCE, Role.GENERATED, Role.TEXT
PADDED = [(R, 28), (T, 4), (R, 6), (T, 26), (G, 30), (T, 2)]


def read(
    forward: Forward, tokens: int, options: dict[str, Any], nth: int = 0
) -> tuple[Layer, list[tuple[Role, int]]] | None:
    """The layer, and the roles and lengths of all spans."""
    found = LUMINA2.read(forward, Call(options, tokens, tokens, nth))
    if found is None:
        return None
    layer, layout = found
    assert [span.length for span in layout.keys if span.prompt == 0] == [7] * bool(options)
    assert layout.queries == layout.keys
    assert layout.generated.grid == Grid(6, 5, (5.5, 5.0))
    assert [span.grid for span in layout.references] == [Grid(4, 7), Grid(3, 2)]
    return layer, [(span.role, span.length) for span in layout.keys]


@pytest.mark.parametrize(
    ("forward", "spans"),
    [
        (LUMINA, [(T, 5 + 3), (T, 7), (R, 28), (R, 6), (G, 30)]),
        # three captions
        (Z_IMAGE, [(T, 2 * 32), (T, 7), (T, 25), *PADDED]),
        # a reference without a caption has padding in its stead
        (
            replace(Z_IMAGE, shapes={"ref_contexts": ((1, 40, 24),)}),
            [(T, 64 + 32), (T, 7), (T, 25), *PADDED],
        ),
        # a caption more than references
        (
            replace(Z_IMAGE, shapes={"ref_contexts": ((1, 5, 24),) * 3}),
            [(T, 2 * 32), (T, 7), (T, 25 + 32), *PADDED],
        ),
        # nothing seen: padding for each reference and the result
        (OMNI, [(T, 2 * 32), (T, 7), (T, 25 + 3 * 32), *PADDED]),
        # 35 tokens seen of the first, 16 of the second
        (
            replace(OMNI, shapes={**LUMINA.shapes, **SEEN}),
            [(T, 2 * 32), (T, 7), (T, 25 + 64 + 32 + 32), *PADDED],
        ),
        # the first alone
        (
            replace(OMNI, shapes={**LUMINA.shapes, "siglip_feats": ((1, 5, 7, 16),)}),
            [(T, 2 * 32), (T, 7), (T, 25 + 64 + 32 + 32), *PADDED],
        ),
    ],
)
def test_blocks(forward: Forward, spans: list[tuple[Role, int]]) -> None:
    tokens = sum(length for _, length in spans)
    assert read(forward, tokens, BLOCK) == (Layer("double", 3), spans)


def test_refiners() -> None:
    """Those of the pictures are read, those of the text are not."""
    assert read(LUMINA, 15, {}) is None
    spans = [(R, 28), (R, 6), (G, 30)]
    assert read(LUMINA, 64, {}) == (Layer("refiner", 0), spans)
    assert read(LUMINA, 64, {}, 1) == (Layer("refiner", 1), spans)


@pytest.mark.parametrize(("forward", "before"), [(Z_IMAGE, 2), (OMNI, 4)])
def test_refiners_of_as_many_tokens(forward: Forward, before: int) -> None:
    """Captions, vision tokens and pictures, 96 tokens each, are refined in this order."""
    reads = [read(forward, 96, {}, nth) for nth in range(before + 2)]
    assert reads[:before] == [None] * before
    assert reads[before:] == [(Layer("refiner", nth), PADDED) for nth in (0, 1)]


def test_no_reference() -> None:
    """One caption and the result, padded; nothing a vision encoder saw."""
    for forward in (Z_IMAGE, OMNI):
        found = LUMINA2.read(replace(forward, references=(), shapes={}), Call(BLOCK, 64, 64))
        assert found is not None
        keys = [(span.role, span.length, span.prompt) for span in found[1].keys]
        assert keys == [(T, 7, 0), (T, 25, None), (G, 30, None), (T, 2, None)]


@pytest.mark.parametrize("tokens", [191, 193, 64])
def test_refuses(tokens: int) -> None:
    with pytest.raises(LayoutMismatch, match=f"{tokens} queries and {tokens} keys"):
        read(Z_IMAGE, tokens, BLOCK)


def test_layers() -> None:
    network = nn.Module()
    network.noise_refiner = nn.ModuleList(nn.Identity() for _ in range(2))
    network.layers = nn.ModuleList([nn.Identity()])
    names = [layer.name for layer in LUMINA2.layers(network)]
    assert names == ["refiner 0", "refiner 1", "double 0"]
