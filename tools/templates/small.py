"""API prompts from the page → the same prompts, small enough to run here.

Loaders are replaced by the stand-ins, sizes and steps are reduced, and everything the watched
pictures do not depend on is left out. All else stays as in the template.
"""

from __future__ import annotations

import copy
from typing import Any

Prompt = dict[str, Any]

# Loader node → its stand-in, and the input that says what to stand in for.
_LOADERS = {
    "UNETLoader": ("StandIn_Model", "unet_name"),
    "CheckpointLoaderSimple": ("StandIn_Checkpoint", "ckpt_name"),
    "CLIPLoader": ("StandIn_Text", "type"),
    "DualCLIPLoader": ("StandIn_Text", "type"),
    "VAELoader": ("StandIn_Vae", "vae_name"),
    "CLIPVisionLoader": ("StandIn_Vision", "clip_name"),
    "StyleModelLoader": ("StandIn_Style", "style_model_name"),
    "ModelPatchLoader": ("StandIn_Patch", "name"),
    "AudioEncoderEncode": ("StandIn_Sound", ""),
    "GetVideoComponents": ("StandIn_Pictures", ""),
    "SCAIL2ColoredMask": ("StandIn_Pictures", ""),
}
# Nodes that only load changes to a model: their input replaces their output.
_HANDED_ON = {"LoraLoaderModelOnly": "model", "TextGenerate": "prompt"}
_PICTURES = ("i2am_small_wide.png", "i2am_small_tall.png")
_STEPS, _SIDE, _LENGTH, _TOTAL = 2, 128, 5, 0.02
_SIZED_BY_PICTURE = "GetImageSize"
# Inputs of any node, and their reduced values.
_CUT: dict[str, Any] = {
    "steps": _STEPS,
    "width": _SIDE,
    "height": _SIDE,
    "length": _LENGTH,
    "megapixels": _TOTAL,
    "resize_type.megapixels": _TOTAL,
    "resize_type.width": _SIDE,
    "resize_type.height": _SIDE,
    "largest_size": _SIDE,
    "start_at_step": 0,
    "end_at_step": 10000,
}


def above(prompt: Prompt, ends: list[str]) -> Prompt:
    """The part of a prompt that some nodes depend on, including those nodes."""
    kept: set[str] = set()
    left = list(ends)
    while left:
        name = left.pop()
        if name in kept:
            continue
        kept.add(name)
        left += [str(value[0]) for value in prompt[name]["inputs"].values() if _is_link(value)]
    return {name: node for name, node in prompt.items() if name in kept}


def watched_links(prompt: Prompt) -> list[tuple[str, Any]]:
    """The inputs of every Collect Attribution: the kind ("latent", "picture") and the link."""
    links: list[tuple[str, Any]] = []
    for node in prompt.values():
        if node["class_type"] != "I2AM_Collect":
            continue
        for kind, name in (("latent", "samples"), ("picture", "image")):
            if _is_link(node["inputs"].get(name)):
                links.append((kind, node["inputs"][name]))
    return links


def with_digests(prompt: Prompt, links: list[tuple[str, Any]]) -> Prompt:
    """The prompt with a digest node for each link, and everything these depend on."""
    ends = {
        f"digest {number}": {"class_type": "StandIn_Digest", "inputs": {kind: link}}
        for number, (kind, link) in enumerate(links)
    }
    views = [name for name, node in prompt.items() if node["class_type"] == "I2AM_Viewer"]
    return above(prompt | ends, [*ends, *views])


def small(prompt: Prompt) -> Prompt:
    """The same prompt with stand-ins and small values."""
    prompt = copy.deepcopy(prompt)
    for node in prompt.values():
        _stand_in(node)
    for node in prompt.values():
        for name, value in node["inputs"].items():
            while _is_link(value) and prompt[str(value[0])]["class_type"] in _HANDED_ON:
                giver = prompt[str(value[0])]
                value = giver["inputs"][_HANDED_ON[giver["class_type"]]]
            node["inputs"][name] = value
            ours = node["class_type"].startswith("I2AM_")
            if name in _CUT and not ours and not _is_sized(prompt, value):
                node["inputs"][name] = _CUT[name]
    for number, node in enumerate(n for n in prompt.values() if n["class_type"] == "LoadImage"):
        node["inputs"] = {"image": _PICTURES[number % len(_PICTURES)]}
    return prompt


def _stand_in(node: dict[str, Any]) -> None:
    kind = node["class_type"]
    if kind not in _LOADERS:
        return
    stand_in, named = _LOADERS[kind]
    node["class_type"] = stand_in
    node["inputs"] = {"name": str(node["inputs"].get(named, kind))}


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)


def _is_sized(prompt: Prompt, value: Any) -> bool:
    """Whether a size comes from a picture, which is small already."""
    return _is_link(value) and prompt[str(value[0])]["class_type"] == _SIZED_BY_PICTURE
