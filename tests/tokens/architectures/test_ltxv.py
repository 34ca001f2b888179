"""LTX-Video: calls in plain numbers → layer and layout."""

from __future__ import annotations

from dataclasses import replace

import pytest

from i2am.errors import LayoutMismatch
from i2am.tokens import Grid, Role
from i2am.tokens.architectures.base import Call, Forward, Layer
from i2am.tokens.architectures.ltxv import LTXV

# Three frames of 4×5 tokens and two of guides.
GUIDED = Forward(
    *((4, 5), (), 1, 9),
    frames=5,
    shapes={"keyframe_idxs": (1, 3, 40, 2)},
    layers=(Layer("block", 0), Layer("block", 1)),
)


def test_guides() -> None:
    """The result is what comes before the guides; the guides' own call is left out."""
    read = LTXV.read(GUIDED, Call({}, 100, 100, nth=1))
    assert read is not None
    layer, layout = read
    assert layer == Layer("block", 1)
    assert layout.generated.grid == Grid(4, 5, frames=3)
    assert [(span.start, span.stop) for span in layout.references] == [(60, 80), (80, 100)]
    assert [picture.grid for picture in LTXV.references(GUIDED)] == [Grid(4, 5)] * 2
    assert LTXV.read(GUIDED, Call({}, 40, 100)) is None


def test_the_text() -> None:
    """Each block also attends to the text."""
    read = LTXV.read(GUIDED, Call({}, 100, 9, nth=1))
    assert read is not None
    layer, layout = read
    assert layer == Layer("block", 1)
    assert [(span.role, span.length, span.prompt) for span in layout.keys] == [(Role.TEXT, 9, 0)]
    assert layout.generated.stop == 60


def test_a_text_as_long_as_the_video() -> None:
    """The calls of a block cannot be told apart by their counts: every second one is the text's."""
    forward = replace(GUIDED, context=100)
    reads = [LTXV.read(forward, Call({}, 100, 100, nth)) for nth in range(4)]
    assert [read and read[0].index for read in reads] == [0, 0, 1, 1]
    assert [read and read[1].has_prompt for read in reads] == [False, True, False, True]


def test_without_guides() -> None:
    """There is a layout, but no reference in it."""
    read = LTXV.read(replace(GUIDED, shapes={}), Call({}, 100, 100))
    assert read is not None
    assert read[1].references == ()


@pytest.mark.parametrize(("tokens", "keys"), [(41, 100), (40, 99)])
def test_other_counts(tokens: int, keys: int) -> None:
    forward = replace(GUIDED, shapes={"keyframe_idxs": (1, 3, tokens, 2)})
    with pytest.raises(LayoutMismatch):
        LTXV.read(forward, Call({}, keys, keys))
