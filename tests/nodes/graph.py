"""Graphs around a tiny Flux: stock samplers and the pack's nodes; test nodes for model and text.

graph = flux_graph()                                  # node ids are words: "sampler", "collect"
graph = changed(graph, "sampler", seed=2)             # a copy with other inputs
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import tiny
import torch
from torch import Tensor

REFERENCES = (tiny.latent(10, 1, 16, 6, 5), tiny.latent(11, 1, 16, 4, 4))
flux = cache(tiny.flux)
unet = cache(tiny.unet)

Prompt = dict[str, Any]


class TinyFlux:
    """A tiny Flux."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "make"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"seed": ("INT", {"default": 0})}}

    def make(self, seed: int) -> tuple[Any]:
        return (flux(seed),)


class TinyUNet(TinyFlux):
    """A tiny Stable Diffusion."""

    def make(self, seed: int) -> tuple[Any]:
        return (unet(seed),)


class TinyConditioning:
    """A random text of seven tokens, with the first so many REFERENCES."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "make"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "seed": ("INT", {"default": 0}),
                "references": ("INT", {"default": 1}),
                "dim": ("INT", {"default": 16}),
            }
        }

    def make(self, seed: int, references: int, dim: int) -> tuple[Any]:
        return (tiny.conditioning(seed, 7, dim, REFERENCES[:references]),)


class Picture:
    """A minimal decoder for links: 8 pixels per latent pixel."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",)}}

    def make(self, samples: dict[str, Any]) -> tuple[Any]:
        colours = samples["samples"][:, :3].sigmoid().movedim(1, -1)
        return (colours.repeat_interleave(8, 1).repeat_interleave(8, 2),)


class Give:
    """Outputs what the test stored under this name: for values that no stock node makes."""

    RETURN_TYPES = ("*",)
    FUNCTION = "make"
    CATEGORY = "test"
    values: dict[str, Any] = {}  # noqa: RUF012 - filled by tests

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {"default": ""})}}

    def make(self, name: str) -> tuple[Any]:
        return (self.values[name],)


class Server:
    """A stand-in for ComfyUI's server, with one listening client."""

    def __init__(self) -> None:
        self.client_id: str | None = "page"
        self.sockets: dict[str, Any] = {"page": object()}
        self.sent: list[tuple[str, Any, str | None]] = []

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        self.sent.append((event, data, sid))


class Listed:
    """The items of a value as a list, like a node with a list output."""

    RETURN_TYPES = ("*",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "make"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"values": ("*", {})}}

    def make(self, values: Any) -> tuple[list[Any]]:
        return (list(values),)


class Numbers(Listed):
    """Numbers separated by commas, as a list; whole numbers for seeds."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"text": ("STRING", {"default": ""})},
            "optional": {"whole": ("BOOLEAN", {"default": False})},
        }

    def make(self, text: str, whole: bool = False) -> tuple[list[Any]]:
        return ([(int if whole else float)(number) for number in text.split(",")],)


NODES = {
    "Test_List": Listed,
    "Test_Scores": Numbers,
    "Test_Flux": TinyFlux,
    "Test_UNet": TinyUNet,
    "Test_Conditioning": TinyConditioning,
    "Test_Picture": Picture,
    "Test_Give": Give,
}


@contextlib.contextmanager
def registered(comfy: Any) -> Iterator[None]:
    """Registers the test's nodes with ComfyUI; a seed always gives the same model object."""
    comfy.nodes.NODE_CLASS_MAPPINGS.update(NODES)
    try:
        yield
    finally:
        for name in NODES:
            comfy.nodes.NODE_CLASS_MAPPINGS.pop(name, None)
        Give.values.clear()
        flux.cache_clear()
        unet.cache_clear()


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of an API prompt; a link is written ["id", slot]."""
    return {"class_type": class_type, "inputs": inputs}


def given(name: str, value: Any) -> dict[str, Any]:
    """A node that outputs this value; another value needs another name."""
    Give.values[name] = value
    return node("Test_Give", name=name)


def filled(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node with the default values of its widgets."""
    nodes: Any = sys.modules["nodes"]  # ComfyUI's
    required = nodes.NODE_CLASS_MAPPINGS[class_type].INPUT_TYPES()["required"]
    widgets = {name: kind[1] for name, kind in required.items() if len(kind) > 1}
    defaults = {name: w["default"] for name, w in widgets.items() if "default" in w}
    return node(class_type, **(defaults | inputs))


def capture(model: str = "model", **inputs: Any) -> dict[str, Any]:
    """Capture Attention with its defaults."""
    return filled("I2AM_Capture", model=[model, 0], **inputs)


def sampler(model: str = "capture", **inputs: Any) -> dict[str, Any]:
    """A stock KSampler of three steps."""
    widgets: dict[str, Any] = {"seed": 1, "steps": 3, "cfg": 1.0, "denoise": 1.0}
    widgets |= {"sampler_name": "euler", "scheduler": "simple"}
    links = {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["empty", 0]}
    return node("KSampler", **(widgets | links | {"model": [model, 0]} | inputs))


def collect(samples: str | list[Any] = "sampler", **inputs: Any) -> dict[str, Any]:
    """Collect Attribution for a node's LATENT: its first output or the linked one."""
    link = [samples, 0] if isinstance(samples, str) else samples
    return filled("I2AM_Collect", samples=link, **inputs)


def attribution_map(**inputs: Any) -> dict[str, Any]:
    """Attribution Map with its defaults, without legend."""
    return filled("I2AM_Map", attribution=["collect", 0], **({"legend": False} | inputs))


def imacs(**inputs: Any) -> dict[str, Any]:
    """IMACS with its defaults."""
    return filled("I2AM_IMACS", attribution=["collect", 0], **inputs)


def flux_graph(**nodes: dict[str, Any]) -> Prompt:
    """Model → Capture → KSampler → Collect at 64×48 pixels, with one reference; and more nodes."""
    graph = {
        "model": node("Test_Flux", seed=0),
        "capture": capture(),
        "positive": node("Test_Conditioning", seed=20, references=1, dim=16),
        "negative": node("Test_Conditioning", seed=21, references=0, dim=16),
        "empty": node("EmptySD3LatentImage", width=48, height=64, batch_size=1),
        "sampler": sampler(),
        "collect": collect(),
    }
    return graph | nodes


def changed(graph: Prompt, name: str, **inputs: Any) -> Prompt:
    """A copy of a graph with other inputs for one node."""
    copied = copy.deepcopy(graph)
    copied[name]["inputs"] |= inputs
    return copied


def custom_sampler(seed: int = 1, sampler_name: str = "euler", model: str = "capture") -> Prompt:
    """SamplerCustomAdvanced and its parts; the sampler is called "sampler"."""
    return {
        "noise": node("RandomNoise", noise_seed=seed),
        "guider": node("BasicGuider", model=[model, 0], conditioning=["positive", 0]),
        "select": node("KSamplerSelect", sampler_name=sampler_name),
        "sigmas": node(
            "BasicScheduler", model=[model, 0], scheduler="simple", steps=3, denoise=1.0
        ),
        "sampler": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["select", 0],
            sigmas=["sigmas", 0],
            latent_image=["empty", 0],
        ),
    }


def same(one: Any, other: Any) -> bool:
    """Whether two recordings hold the same bits and facts, except how long the runs took."""
    facts = [{**vars(r.header), "seconds": 0} for r in (one, other)]
    return facts[0] == facts[1] and same_arrays(one.arrays, other.arrays)


def same_arrays(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two sets of arrays hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
