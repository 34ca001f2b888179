"""Parts that the workflows for large models share. Those run once the model files are there."""

from __future__ import annotations

from typing import Any

from tools.workflows.catalog.parts import (
    G2R,
    GOLD,
    GREEN,
    INFLUENCE,
    LILAC,
    MAP_SIZE,
    R2G,
    SAMPLING,
    Group,
    Node,
)

PICTURE, PROMPT = 320, 140  # heights


def note(text: str, height: int) -> Node:
    return Node("note", "MarkdownNote", "Read me", widgets={"0": text}, width=460, height=height)


def loader(kind: str, **files: str) -> Node:
    return Node(kind.lower(), kind, widgets=dict(files), width=340)


def picture(key: str, title: str) -> Node:
    # Every ComfyUI comes with this picture.
    return Node(key, "LoadImage", title, widgets={"image": "example.png"}, height=PICTURE)


def prompt(key: str, title: str, text: str) -> Node:
    wires = {"clip": ("dualcliploader", 0)}
    return Node(key, "CLIPTextEncode", title, wires, {"text": text}, width=340, height=PROMPT)


Wire = tuple[str, int]


def sampler(positive: Wire, negative: Wire, latent: Wire, **widgets: Any) -> Node:
    wires = {
        "model": ("capture", 0),
        "positive": positive,
        "negative": negative,
        "latent_image": latent,
    }
    return Node("sampler", "KSampler", wires=wires, widgets=SAMPLING | widgets)


def recorded(
    model: str,
    positive: Wire,
    negative: Wire,
    latent: Wire,
    *shown: str,
    vae: Wire = ("vaeloader", 0),
    **widgets: Any,
) -> Group:
    """From the model to the attribution. `shown`: the nodes of the reference pictures, in order;
    without any, the vae decodes what the model was given."""
    references = {f"references.reference_{n}": (key, 0) for n, key in enumerate(shown, start=1)}
    references = references or {"vae": vae}
    return Group(
        "Sample and record",
        GREEN,
        (
            (
                Node("capture", "I2AM_Capture", wires={"model": (model, 0)}, width=320),
                sampler(positive, negative, latent, **widgets),
                Node(
                    "decode",
                    "VAEDecode",
                    wires={"samples": ("sampler", 0), "vae": vae},
                ),
                Node(
                    "collect",
                    "I2AM_Collect",
                    wires={"samples": ("sampler", 0), "image": ("decode", 0)} | references,
                ),
                Node(
                    "save",
                    "SaveImage",
                    "The result",
                    {"images": ("decode", 0)},
                    {"filename_prefix": "i2am/result"},
                    height=PICTURE,
                ),
            ),
        ),
    )


def viewer_group() -> Group:
    viewer = Node(
        "viewer", "I2AM_Viewer", wires={"attribution": ("collect", 0)}, width=820, height=700
    )
    return Group("Point at a place", LILAC, ((viewer,),))


def influence_and_maps(reference: int = 1, over: str | None = G2R) -> Group:
    """Reference Influence, and the maps of one reference. `over`: the second map's direction."""
    maps = [
        Node(
            key,
            "I2AM_Map",
            title,
            {"attribution": ("collect", 0)},
            {"direction": direction, "reference": reference},
            **MAP_SIZE,
        )
        for key, title, direction in (
            ("r2g", "Where it was used", R2G),
            ("g2r", "What was used", over),
        )
        if direction
    ]
    influence = Node(
        "influence", "I2AM_Influence", wires={"attribution": ("collect", 0)}, **INFLUENCE
    )
    return Group("Which gave what, and where?", GOLD, ((influence,), *((map,) for map in maps)))
