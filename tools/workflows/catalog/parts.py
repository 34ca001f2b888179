"""What workflows are made of: nodes, groups, and the parts that several of them share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SEED = 20240712
SAMPLING: dict[str, Any] = {
    "seed": SEED,
    "control_after_generate": "fixed",
    "steps": 20,
    "cfg": 1.0,
    "sampler_name": "euler",
    "scheduler": "simple",
    "denoise": 1.0,
}
R2G, G2R = "reference to generated", "generated to reference"


@dataclass(frozen=True)
class Node:
    """One node. `wires`: input name → (key of another node, its output slot)."""

    key: str
    type: str
    title: str | None = None
    wires: dict[str, tuple[str, int]] = field(default_factory=dict)
    widgets: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Group:
    """Stacks of nodes side by side, in a frame with a title."""

    title: str
    color: str
    stacks: tuple[tuple[Node, ...], ...]


PICTURE = 268  # height of a node that shows a small picture


@dataclass(frozen=True)
class Workflow:
    """One file: groups in columns.

    shown: up to four nodes whose pictures make the thumbnail. runs: whether the models that come
    with the pack are enough to run it. packs: other packs it needs.
    """

    name: str
    columns: tuple[tuple[Group, ...], ...]
    shown: tuple[str, ...] = ()
    runs: bool = True
    packs: tuple[str, ...] = ()

    def node(self, key: str) -> Node:
        """The node with this key."""
        nodes = (
            node
            for column in self.columns
            for group in column
            for stack in group.stacks
            for node in stack
        )
        return next(node for node in nodes if node.key == key)


# Shared parts. A second node of a kind has a suffix in its key, for example "_2".

BLUE, GREEN, GOLD, RED, TEAL, LILAC = "#3f789e", "#8A8", "#b58b2a", "#A88", "#3f5159", "#7a5c9e"
MAP_SIZE: dict[str, Any] = {"width": 340, "height": 660}


def load_picture(key: str, title: str, file: str) -> Node:
    return Node(key, "LoadImage", title, widgets={"image": file}, height=PICTURE)


def load_mask(key: str, title: str, file: str) -> Node:
    widgets = {"image": file, "channel": "red"}
    return Node(key, "LoadImageMask", title, widgets=widgets, height=PICTURE)


def pictures(prefix: str, scene: str, thing: str) -> Group:
    """A scene with a hole and an object to fill it, each with its mask."""
    return Group(
        "2 · Pictures and masks",
        BLUE,
        (
            (
                load_picture("scene", f"The {scene}, with a hole", f"{prefix}_scene.png"),
                load_mask("hole", "Where the hole is", f"{prefix}_hole_mask.png"),
            ),
            (
                load_picture("object", f"The {thing}", f"{prefix}_reference.png"),
                load_mask("shape", f"Where the {thing} is", f"{prefix}_object_mask.png"),
            ),
        ),
    )


def models(note: str, height: int = 560) -> Group:
    """The note that explains a workflow, and the demo's models."""
    return Group(
        "1 · Read me, and the models",
        TEAL,
        (
            (
                Node(
                    "note", "MarkdownNote", "Read me", widgets={"0": note}, width=440, height=height
                ),
                Node("unet", "UNETLoader", widgets={"unet_name": "i2am_demo_inpaint.safetensors"}),
                Node("vae", "VAELoader", widgets={"vae_name": "i2am_demo_vae.safetensors"}),
            ),
        ),
    )


def encoded(key: str, picture: str, title: str) -> Node:
    return Node(key, "VAEEncode", title, {"pixels": (picture, 0), "vae": ("vae", 0)})


def reference(key: str, conditioning: str, latent: str, title: str) -> Node:
    wires = {"conditioning": (conditioning, 0), "latent": (latent, 0)}
    return Node(key, "ReferenceLatent", title, wires)


def given(batch: int = 1) -> Group:
    """Scene and object, encoded as references, and the empty latent."""
    return Group(
        "3 · What the model is given",
        "#88A",
        (
            (
                Node("blank", "I2AM_BlankPrompt"),
                encoded("encode_scene", "scene", "Encode the scene"),
                encoded("encode_object", "object", "Encode the reference"),
            ),
            (
                reference("reference_1", "blank", "encode_scene", "Reference 1: the scene"),
                reference("reference_2", "reference_1", "encode_object", "Reference 2: the object"),
                Node(
                    "empty",
                    "EmptySD3LatentImage",
                    "The empty canvas",
                    widgets={"width": 128, "height": 128, "batch_size": batch},
                ),
            ),
        ),
    )


def capture(key: str = "capture", model: str = "unet") -> Node:
    return Node(key, "I2AM_Capture", wires={"model": (model, 0)}, width=300)


def sampler(
    key: str = "sampler",
    title: str | None = None,
    model: str = "capture",
    positive: str = "reference_2",
    latent: str = "empty",
    **widgets: Any,
) -> Node:
    wires = {
        "model": (model, 0),
        "positive": (positive, 0),
        "negative": ("blank", 0),
        "latent_image": (latent, 0),
    }
    return Node(key, "KSampler", title, wires, SAMPLING | widgets)


def decoded(key: str = "decode", samples: str = "sampler") -> Node:
    return Node(key, "VAEDecode", wires={"samples": (samples, 0), "vae": ("vae", 0)})


def collected(
    key: str = "collect",
    samples: str = "sampler",
    image: str = "decode",
    thing: str = "object",
    mask: str | None = "hole",
) -> Node:
    wires = {
        "samples": (samples, 0),
        "image": (image, 0),
        "references.reference_1": ("scene", 0),
        "references.reference_2": (thing, 0),
    }
    if mask:
        wires["mask"] = (mask, 0)
    return Node(key, "I2AM_Collect", wires=wires)


def saved(key: str, title: str, image: tuple[str, int], name: str) -> Node:
    widgets = {"filename_prefix": f"i2am/{name}"}
    return Node(key, "SaveImage", title, {"images": image}, widgets, height=PICTURE)


def mapped(key: str, title: str, direction: str, attribution: str = "collect", **more: Any) -> Node:
    widgets = {"direction": direction, "reference": 2} | more
    return Node(key, "I2AM_Map", title, {"attribution": (attribution, 0)}, widgets, **MAP_SIZE)


def scored(key: str, title: str, attribution: str = "collect", **wires: tuple[str, int]) -> Node:
    wires = {"attribution": (attribution, 0)} | wires
    return Node(key, "I2AM_IMACS", title, wires, {"reference": 2}, width=380)


ONE_RUN = Group("4 · Sample and record", GREEN, ((capture(), sampler(), decoded(), collected()),))
INFLUENCE: dict[str, Any] = {"width": 420, "height": 640}
