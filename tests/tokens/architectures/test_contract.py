"""What every architecture must keep."""

from __future__ import annotations

from dataclasses import replace

import pytest

from i2am.errors import I2AMError
from i2am.tokens import Role
from i2am.tokens.architectures import ARCHITECTURES, NOT_YET, WITHOUT_REFERENCES, find
from i2am.tokens.architectures.base import Architecture, Call, Forward, ImageTokens, Layer

# One pass and some calls of each, as real models make them.
PASSES = {
    "Flux": (
        Forward(latent=(12, 10), references=((7, 14), (6, 5)), patch=2, context=7),
        [
            Call({"block_type": kind, "block_index": index}, queries, 74)
            for kind in ("double", "single")
            for index in (0, 1)
            for queries in (74, 37)
        ],
    ),
    "Qwen-Image-Edit": (
        Forward(latent=(12, 10), references=((7, 14), (6, 5)), patch=2, context=7),
        [
            Call({"block_type": "double", "block_index": index}, queries, 74)
            for index in (0, 1)
            for queries in (74, 37)
        ],
    ),
    "Stable Diffusion UNet": (
        Forward(latent=(16, 12), context=19, image_tokens=(ImageTokens(5, 3, 4),)),
        [
            Call(
                {"block": block, "block_index": 0, "activations_shape": [2, 32, height, width]},
                *(height * width, 19, 1),
            )
            for block, height, width in (
                (("input", 1), 16, 12),
                (("middle", 0), 8, 6),
                (("output", 3), 16, 12),
            )
        ],
    ),
}
PASSES |= {
    name: (
        Forward(latent=(12, 10), references=((7, 14), (6, 5)), patch=2, context=7),
        [Call({"block_type": kind, "block_index": index}, 74, 74) for index in (0, 1)],
    )
    for name, kind in (("Krea 2", "single"), ("MageFlow", "double"), ("JoyImage", "double"))
}
PASSES |= {
    "OmniGen2": (
        Forward((12, 10), ((7, 14), (6, 5)), 2, 7, layers=(Layer("layer", 0), Layer("layer", 1))),
        [Call({}, 74, 74, nth) for nth in (0, 1)],
    ),
    "Boogu": (
        Forward(
            *((12, 10), ((7, 14), (6, 5)), 2, 7),
            layers=(Layer("double", 0), Layer("double", 0, 1), Layer("single", 0)),
            numbers={"context_refiner": 2},
        ),
        [Call({}, 74, 74, 0), Call({}, 67, 67, 0), Call({}, 74, 74, 1)],
    ),
    "HiDream-E1": (
        Forward(
            latent=(7, 6),
            patch=2,
            context=5,
            shapes={"image_cond": (1, 16, 7, 9), "encoder_hidden_states_llama3": (1, 2, 3, 8)},
            layers=(Layer("double", 0), Layer("single", 0)),
        ),
        [Call({}, 43, 43, nth) for nth in (0, 1)],
    ),
    "Stable Cascade": (
        Forward(
            latent=(6, 5),
            shapes={
                **{"clip_text": (2, 7, 24), "cross_attn": (1, 7, 24)},
                "unclip_conditioning": ((), ()),
            },
            layers=(Layer("down", 0), Layer("up", 0)),
        ),
        [Call({}, 30, 49, nth) for nth in (0, 1)],
    ),
    "HiDream-O1": (
        Forward(
            latent=(96, 128),
            patch=32,
            shapes={
                "input_ids": (1, 20),
                "ref_patches": (1, 17, 3072),
                "reference_latents": ((1, 100, 90, 3), (1, 64, 96, 3)),
            },
        ),
        [Call({"block_type": "double", "block_index": 0}, 25, 44)],
    ),
    "Lumina 2 and Z-Image": (
        Forward(
            *((11, 10), ((8, 14), (6, 4)), 2, 7),
            shapes={"ref_contexts": ((1, 5, 8),), "siglip_feats": ((1, 5, 7, 8),)},
            numbers={"pad_tokens_multiple": 32, "noise_refiner": 2, "siglip_refiner": 2},
        ),
        [Call({"block_type": "double", "block_index": 0}, 320, 320), Call({}, 96, 96, 3)],
    ),
    "Image-to-video and novel-view UNet": (
        Forward(latent=(9, 12), context=1),
        [
            Call(
                {"block": ("input", 1), "block_index": 0, "activations_shape": [14, 32, 5, 6]},
                *(30, 1),
            )
        ],
    ),
}
PASSES |= {
    "Wan": (
        Forward(
            *((7, 10), (), 2, 9),
            frames=3,
            shapes={
                "reference_latent": (1, 16, 8, 10),
                "time_dim_concat": (1, 16, 2, 7, 10),
                "context_latents": ((1, 16, 2, 5, 8), (1, 16, 1, 4, 6)),
            },
            numbers={"ref_conv": 1},
        ),
        [Call({"block_type": "double", "block_index": index}, 150, 150) for index in (0, 1)],
    ),
    "Wan HuMo and S2V": (
        Forward(
            *((8, 10), (), 2, 9),
            frames=3,
            shapes={
                "reference_latent": (1, 16, 1, 8, 10),
                "reference_motion": (1, 16, 19, 8, 10),
            },
        ),
        [Call({"block_type": "double", "block_index": index}, 108, 108) for index in (0, 1)],
    ),
    "Wan SCAIL": (
        Forward(
            *((8, 10), (), 2, 9),
            frames=3,
            shapes={
                "reference_latent": (1, 20, 2, 8, 10),
                "pose_latents": (1, 20, 3, 4, 6),
            },
        ),
        [Call({"block_type": "double", "block_index": index}, 118, 118) for index in (0, 1)],
    ),
}
PASSES["HunyuanVideo"] = (
    Forward(
        *((6, 10), (), 2, 9, (ImageTokens(2, 2, 3),)),
        frames=2,
        shapes={"ref_latent": (1, 16, 1, 8, 6), "clip_fea": (1, 729, 1152)},
        numbers={"vision_in": 1},
    ),
    [Call({"block_type": kind, "block_index": 0}, 780, 780) for kind in ("double", "single")],
)
PASSES["LTX-Video"] = (
    Forward(
        *((4, 5), (), 1, 9),
        frames=5,
        shapes={"keyframe_idxs": (1, 3, 40, 2)},
        layers=(Layer("block", 0), Layer("block", 1)),
    ),
    [Call({}, queries, 100, nth) for nth in (0, 1) for queries in (100, 60)],
)
# Text alone: a result of 6×5 tokens and seven of text.
_TEXT = Forward((12, 10), (), 2, 7, layers=(Layer("block", 0), Layer("block", 1)))
_CELLS = replace(_TEXT, latent=(6, 5))
_COUNTED = [Call({}, 37, 37, nth) for nth in (0, 1)]
_NAMED = [Call({"block_type": "double", "block_index": index}, 37, 37) for index in (0, 1)]
PASSES |= {
    "Stable Diffusion 3": (replace(_TEXT, numbers={"register_length": 0}), _COUNTED),
    "AuraFlow": (_TEXT, [Call({}, 45, 45, nth) for nth in (0, 1)]),
    "Chroma": (_TEXT, _NAMED),
    "Lens": (_CELLS, _NAMED),
    "Ideogram 4": (_CELLS, _COUNTED),
    "Kandinsky 5 Image": (_TEXT, [replace(call, queries=30, keys=7) for call in _NAMED]),
    "HunyuanImage 2.1": (_TEXT, _NAMED),
    "Mochi": (_TEXT, [Call({}, 35, 35, nth) for nth in (0, 1)]),
    "PixelDiT": (replace(_TEXT, numbers={"txt_max_length": 300}), _COUNTED),
}
every = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.name)


@every
def test_layouts(architecture: Architecture) -> None:
    """Spans in order without gap or overlap, all keys accounted for, grids as large as spans."""
    forward, calls = PASSES[architecture.name]
    for call in calls:
        read = architecture.read(forward, call)
        assert read is not None
        _, layout = read
        for spans, count in ((layout.queries, call.queries), (layout.keys, call.keys)):
            assert spans[0].start == 0
            assert spans[-1].stop == count
            ends = [span.stop for span in spans[:-1]]
            assert ends == [span.start for span in spans[1:]]
        assert layout.key_count == call.keys
        assert layout.generated.grid is not None
        grids = tuple(span.grid for span in layout.references)
        assert grids == tuple(picture.grid for picture in architecture.references(forward))
        assert all(span.grid is not None for span in layout.keys if span.role is not Role.TEXT)


@every
def test_layers_are_named_apart(architecture: Architecture) -> None:
    forward, calls = PASSES[architecture.name]
    reads = [architecture.read(forward, call) for call in calls]
    layers = {read[0] for read in reads if read is not None}
    assert len({layer.name for layer in layers}) == len(layers)


@every
def test_is_found_by_its_classes(architecture: Architecture) -> None:
    """A subclass is found by its parent, whatever it is called itself."""
    for name in architecture.models:
        names = ["SomebodysOwn", name, "BaseModel", "object"]
        assert find(names, words=True) is architecture
        if not architecture.without:
            assert find(names) is architecture


def test_no_class_belongs_to_two() -> None:
    names = [name for architecture in ARCHITECTURES for name in architecture.models]
    assert len(names) == len(set(names))
    assert not set(names) & (WITHOUT_REFERENCES.keys() | NOT_YET.keys())


def test_an_unknown_model() -> None:
    """The message says what was found, what is known, and what to do."""
    known = ", ".join(one.name for one in ARCHITECTURES if not one.without)
    with pytest.raises(I2AMError, match=f"cannot read “Ernie” models yet. It knows: {known}"):
        find(["Ernie", "BaseModel", "object"])


def test_a_model_without_references() -> None:
    """Chroma derives from Flux and yet ignores references: the nearer name decides."""
    with pytest.raises(I2AMError, match="Chroma models have no reference to watch"):
        find(["Chroma", "Flux", "BaseModel"])


def test_a_model_that_is_not_read_yet() -> None:
    with pytest.raises(I2AMError, match="cannot read LTXAV models yet: video and sound"):
        find(["LTXAV", "BaseModel", "LTXAVModel", "Module"])
