"""Wan: calls in plain numbers → layer and layout."""

from __future__ import annotations

from dataclasses import replace

import pytest

from i2am.errors import I2AMError, LayoutMismatch
from i2am.tokens import Grid, Role
from i2am.tokens.architectures import find
from i2am.tokens.architectures.base import Call, Forward, Layer
from i2am.tokens.architectures.wan import WAN, WAN_WITH_POSE, WAN_WITH_SOUND

# Three latent frames of 7×10: 3×4×5 tokens. CLIP tokens of two pictures.
FLF = Forward(
    *((7, 10), (), 2, 9),
    frames=3,
    shapes={"clip_fea": (1, 514, 1280)},
    numbers={"img_emb": 1},
)
OPTIONS = {"block_type": "double", "block_index": 1}


def test_clip_tokens() -> None:
    """[CLS | 256 | CLS | 256], which the video's own tokens look at."""
    read = WAN.read(FLF, Call(OPTIONS, 60, 514))
    assert read is not None
    layer, layout = read
    assert layer == Layer("double", 1)
    assert layout.queries[0].grid == Grid(4, 5, (3.5, 5.0), 3)
    spans = [(span.role, span.start, span.stop) for span in layout.keys]
    text, reference = Role.TEXT, Role.REFERENCE
    assert spans == [(text, 0, 1), (reference, 1, 257), (text, 257, 258), (reference, 258, 514)]


def test_calls_of_as_many_keys() -> None:
    """The video first, then CLIP, then the text, whatever their numbers."""
    assert WAN.read(FLF, Call(OPTIONS, 60, 60)) is None
    assert WAN.read(FLF, Call(OPTIONS, 60, 512)) is None
    assert WAN.read(FLF, Call(OPTIONS, 60, 514, nth=1)) is None
    tall = replace(FLF, latent=(4, 514), frames=1, shapes={"clip_fea": (1, 514, 1280)})
    assert WAN.read(tall, Call(OPTIONS, 514, 514)) is None
    assert WAN.read(tall, Call(OPTIONS, 514, 514, nth=1)) is not None


def test_pictures_win_over_clip_tokens() -> None:
    both = replace(FLF, shapes={**FLF.shapes, "time_dim_concat": (1, 16, 1, 7, 10)})
    assert [picture.kind for picture in WAN.references(both)] == ["reference"]
    assert WAN.read(both, Call(OPTIONS, 80, 80)) is not None
    assert WAN.read(both, Call(OPTIONS, 80, 514)) is None


@pytest.mark.parametrize("network", ["img_emb", "ref_conv"])
def test_what_the_network_does_not_read(network: str) -> None:
    """Without its projection a picture that is given is left out."""
    shapes = {"clip_fea": (1, 257, 1280), "reference_latent": (1, 16, 8, 10)}
    forward = replace(FLF, latent=(8, 10), shapes=shapes, numbers={network: 1})
    (picture,) = WAN.references(forward)
    assert picture.kind == {"img_emb": "CLIP image tokens", "ref_conv": "reference"}[network]
    assert WAN.references(replace(forward, numbers={})) == ()
    assert WAN.read(replace(forward, numbers={}), Call(OPTIONS, 60, 60)) is None


def test_refuses() -> None:
    with pytest.raises(LayoutMismatch, match="61 queries, but the sequence has 60"):
        WAN.read(FLF, Call(OPTIONS, 61, 61))
    with pytest.raises(LayoutMismatch, match="300 CLIP tokens"):
        WAN.read(replace(FLF, shapes={"clip_fea": (1, 300, 1280)}), Call(OPTIONS, 60, 300))


def test_sound() -> None:
    """Each frame attends to sixteen tokens of its own sound: nothing of a reference."""
    forward = replace(FLF, latent=(8, 8), shapes={"reference_latent": (1, 16, 1, 8, 8)})
    assert WAN_WITH_SOUND.read(forward, Call(OPTIONS, 16, 16)) is None
    assert WAN_WITH_SOUND.read(forward, Call(OPTIONS, 64, 64)) is not None


def test_pose() -> None:
    """[reference 20 | reference 20 | video 60 | pose 18]"""
    shapes = {"reference_latent": (1, 20, 2, 8, 10), "pose_latents": (1, 20, 3, 4, 6)}
    read = WAN_WITH_POSE.read(replace(FLF, latent=(8, 10), shapes=shapes), Call(OPTIONS, 118, 118))
    assert read is not None
    spans = [(span.start, span.stop) for span in read[1].keys]
    assert spans == [(0, 20), (20, 40), (40, 100), (100, 118)]


def test_models_that_only_derive_from_it() -> None:
    assert find(["WAN22", "WAN21", "BaseModel"]) is WAN
    assert find(["WAN21_SCAIL2", "WAN21_SCAIL", "WAN21"]) is WAN_WITH_POSE
    with pytest.raises(I2AMError, match="cannot read WAN21_Vace models yet"):
        find(["WAN21_Vace", "WAN21", "BaseModel"])
