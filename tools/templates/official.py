"""The templates that ComfyUI itself offers, and those that use a reference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

_BYPASSED = 4  # the mode of a node
# Nodes that give a model a reference picture.
REFERENCE_NODES = (
    *("ReferenceLatent", "TextEncodeQwenImageEdit", "TextEncodeQwenImageEditPlus"),
    *("FluxKontextMultiReferenceLatentMethod", "USOStyleReference", "StyleModelApply"),
    *("unCLIPConditioning", "InpaintModelConditioning", "LTXVAddGuide"),
    *("WanImageToVideo", "WanFirstLastFrameToVideo", "WanVaceToVideo", "WanSCAILToVideo"),
    *("WanInfiniteTalkToVideo", "WanHuMoImageToVideo", "Hunyuan3Dv2Conditioning"),
)


@cache
def folder() -> Path:
    """The folder in the package comfyui-workflow-templates-json."""
    import comfyui_workflow_templates_json

    return Path(comfyui_workflow_templates_json.__file__).parent / "templates"


def read(name: str) -> dict[str, Any]:
    return json.loads((folder() / f"{name}.json").read_text("utf-8"))


def node_types(workflow: dict[str, Any]) -> set[str]:
    """The types of all its nodes, including those in subgraphs."""
    inner = workflow.get("definitions", {}).get("subgraphs", [])
    return {node["type"] for graph in (workflow, *inner) for node in graph["nodes"]}


def with_reference() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each template that uses a reference, by name, and the nodes that bring it in."""
    for path in sorted(folder().glob("*.json")):
        workflow = json.loads(path.read_text("utf-8"))
        if not isinstance(workflow, dict) or "nodes" not in workflow:
            continue
        types = node_types(workflow)
        found = tuple(name for name in REFERENCE_NODES if name in types)
        if found:
            yield path.stem, found


def bypasses(workflow: dict[str, Any]) -> bool:
    """Whether it bypasses nodes: variants that the user may switch on."""
    inner = workflow.get("definitions", {}).get("subgraphs", [])
    return any(
        node.get("mode") == _BYPASSED for graph in (workflow, *inner) for node in graph["nodes"]
    )


def one_of_each() -> list[tuple[str, tuple[str, ...]]]:
    """For every kind of reference node, the smallest template with it."""
    found = list(with_reference())
    size = {name: (folder() / f"{name}.json").stat().st_size for name, _ in found}
    smallest = {
        kind: min((name for name, kinds in found if kind in kinds), key=lambda name: size[name])
        for kind in REFERENCE_NODES
    }
    return [(name, kinds) for name, kinds in found if name in smallest.values()]
