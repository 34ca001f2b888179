"""OmniGen2 and Boogu: calls in plain numbers → layer and layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

from i2am.errors import LayoutMismatch
from i2am.tokens import Grid, Role
from i2am.tokens.architectures.base import Call, Forward, Layer
from i2am.tokens.architectures.omnigen2 import BOOGU, OMNIGEN2

# A latent of 12×10 (30 tokens), references of 7×14 and 6×5: odd sides are padded to whole tokens.
FORWARD = Forward(
    *((12, 10), ((7, 14), (6, 5)), 2, 7), layers=(Layer("layer", 0), Layer("layer", 1))
)
DOUBLES = (Layer("double", 0), Layer("double", 0, 1), Layer("double", 1), Layer("double", 1, 1))
BOOGUS = replace(FORWARD, layers=(*DOUBLES, Layer("single", 0)), numbers={"context_refiner": 2})
JOINT = [(Role.TEXT, 0, 7), (Role.REFERENCE, 7, 35), (Role.REFERENCE, 35, 44)]
JOINT += [(Role.GENERATED, 44, 74)]
ALONE = [(Role.REFERENCE, 0, 28), (Role.REFERENCE, 28, 37), (Role.GENERATED, 37, 67)]


@pytest.mark.parametrize("nth", [0, 1])
def test_omnigen2(nth: int) -> None:
    read = OMNIGEN2.read(FORWARD, Call({}, 74, 74, nth))
    assert read is not None
    layer, layout = read
    assert layer == Layer("layer", nth)
    assert [(span.role, span.start, span.stop) for span in layout.keys] == JOINT
    assert layout.queries == layout.keys
    assert layout.generated.grid == Grid(6, 5)
    grids = [span.grid for span in layout.references]
    assert grids == [Grid(4, 7, (3.5, 7.0)), Grid(3, 3, (3.0, 2.5))]


@pytest.mark.parametrize("tokens", [7, 30, 37], ids=["text", "result", "references"])
def test_refiners_hold_no_reference(tokens: int) -> None:
    for one, forward in ((OMNIGEN2, FORWARD), (BOOGU, BOOGUS)):
        assert one.read(forward, Call({}, tokens, tokens)) is None


@pytest.mark.parametrize(
    ("tokens", "nth", "layer", "spans"),
    [
        (74, 0, DOUBLES[0], JOINT),
        (67, 0, DOUBLES[1], ALONE),
        (74, 1, DOUBLES[2], JOINT),
        (67, 1, DOUBLES[3], ALONE),
        (74, 2, Layer("single", 0), JOINT),
    ],
)
def test_boogu(tokens: int, nth: int, layer: Layer, spans: list[tuple[Role, int, int]]) -> None:
    read = BOOGU.read(BOOGUS, Call({}, tokens, tokens, nth))
    assert read is not None
    assert read[0] == layer
    assert [(span.role, span.start, span.stop) for span in read[1].keys] == spans


def test_as_many_tokens_of_text_as_of_pictures() -> None:
    """The two refiners of the text call first."""
    forward = replace(BOOGUS, context=67)
    reads = [BOOGU.read(forward, Call({}, 67, 67, nth)) for nth in range(4)]
    assert reads[:2] == [None, None]
    assert [read and read[0] for read in reads[2:]] == [DOUBLES[1], DOUBLES[3]]


@pytest.mark.parametrize(("queries", "keys"), [(73, 73), (75, 75), (30, 74)])
def test_refuses(queries: int, keys: int) -> None:
    for one, forward in ((OMNIGEN2, FORWARD), (BOOGU, BOOGUS)):
        with pytest.raises(LayoutMismatch, match=f"{queries} queries and {keys} keys"):
            one.read(forward, Call({}, queries, keys))


def test_refuses_more_calls_than_layers() -> None:
    with pytest.raises(LayoutMismatch, match="there are 2 layers, but call 3 came"):
        OMNIGEN2.read(FORWARD, Call({}, 74, 74, 2))


def test_no_reference() -> None:
    for one, forward in ((OMNIGEN2, FORWARD), (BOOGU, BOOGUS)):
        read = one.read(replace(forward, references=()), Call({}, 37, 37))
        assert read is not None
        assert [(span.length, span.prompt) for span in read[1].keys] == [(7, 0), (30, None)]


def test_layers() -> None:
    network = nn.Module()
    network.layers = nn.ModuleList(nn.Identity() for _ in range(2))
    network.double_stream_layers = nn.ModuleList(nn.Identity() for _ in range(2))
    network.single_stream_layers = nn.ModuleList([nn.Identity()])
    assert OMNIGEN2.layers(network) == FORWARD.layers
    assert BOOGU.layers(network) == BOOGUS.layers
