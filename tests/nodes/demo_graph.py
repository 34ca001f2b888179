"""The demo model in a graph of stock nodes, on held-out scenes with known truth.

graph = demo_graph(scenes)                 # node ids are words: "sampler", "collect", "image"
"""

from __future__ import annotations

from typing import Any

import torch
from graph import Prompt, capture, collect, given, node, sampler
from torch import Tensor

from tools.demo.scenes import Scenes
from tools.fidelity.host import MODEL, VAE

STEPS = 4  # as good as 20, and quicker
OBJECT = 2  # the number of the reference that shows the object


def demo_graph(scenes: Scenes, noises: int = 1, **nodes: dict[str, Any]) -> Prompt:
    """Scenes and their objects → the model's pictures → Collect Attribution; and more nodes.

    noises: how often to fill the hole of a single scene, as one batch.
    """
    name = "i2am " + str(float(scenes.target.sum()))  # other scenes need other names
    graph = {
        "model": node("UNETLoader", unet_name=MODEL.name, weight_dtype="default"),
        "vae": node("VAELoader", vae_name=VAE.name),
        "scene": given(f"{name} scene", scenes.scene),
        "object": given(f"{name} reference", scenes.reference),
        "hole": given(f"{name} hole", scenes.hole),
        "shape": given(f"{name} shape", scenes.object),
        "blank": node("I2AM_BlankPrompt"),
        "latent_1": node("VAEEncode", pixels=["scene", 0], vae=["vae", 0]),
        "latent_2": node("VAEEncode", pixels=["object", 0], vae=["vae", 0]),
        "reference_1": node("ReferenceLatent", conditioning=["blank", 0], latent=["latent_1", 0]),
        "positive": node(
            "ReferenceLatent", conditioning=["reference_1", 0], latent=["latent_2", 0]
        ),
        "empty": node(
            "EmptySD3LatentImage", width=128, height=128, batch_size=max(len(scenes), noises)
        ),
        "capture": capture(),
        "sampler": sampler(negative=["blank", 0], steps=STEPS),
        "image": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
        "collect": collect(
            image=["image", 0],
            mask=["hole", 0],
            **{"references.reference_1": ["scene", 0], "references.reference_2": ["object", 0]},
        ),
    }
    return graph | nodes


def errors_in_hole(pictures: Tensor, scenes: Scenes) -> Tensor:
    """Mean squared error against the truth, inside the hole: (batch,)."""
    error = ((pictures.clamp(0, 1) - scenes.target) ** 2).mean(-1) * scenes.hole
    return error.sum((1, 2)) / scenes.hole.sum((1, 2))


def overlap(found: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of two masks, (batch, height, width) to (batch,)."""
    one, two = found >= 0.5, truth >= 0.5
    both, either = (one & two).flatten(1).sum(1), (one | two).flatten(1).sum(1)
    return both / either


def only_numbers(values: list[Any]) -> Tensor:
    """The number in an output that is a list."""
    return torch.tensor(values, dtype=torch.float64)
