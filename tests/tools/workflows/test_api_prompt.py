"""A saved workflow becomes the prompt the page would send."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tools.workflows.api_prompt import WorkflowError, bypass, find, only, to_prompt

OBJECT_INFO: dict[str, Any] = {
    "Loader": {
        "display_name": "Load It",
        "input": {
            "required": {
                "name": [["a.png", "b.png"], {"image_upload": True}],
                "channel": [["red", "alpha"]],
            }
        },
        "input_order": {"required": ["name", "channel"]},
    },
    "Sampler": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"default": 0, "control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "mode": ["COMBO", {"options": ["x", "y"]}],
                "forced": ["INT", {"forceInput": True}],
            },
            "optional": {
                "noise": ["FLOAT", {"default": 0.5}],
                "late": ["STRING", {"default": "z"}],
            },
        },
        "input_order": {
            "required": ["model", "seed", "steps", "mode", "forced"],
            "optional": ["noise", "late"],
        },
    },
    "Collect": {
        "input": {
            "required": {"samples": ["LATENT", {}]},
            "optional": {"references": ["COMFY_AUTOGROW_V3", {"template": {}}]},
        },
        "input_order": {"required": ["samples"], "optional": ["references"]},
    },
    "Changing": {
        "input": {"required": {"mode": ["COMFY_DYNAMICCOMBO_V3", {"options": []}]}},
        "input_order": {"required": ["mode"]},
    },
}


def slot(name: str, link: int | None) -> dict[str, Any]:
    return {"name": name, "type": "*", "link": link}


@pytest.fixture
def workflow() -> dict[str, Any]:
    """Loader -> Reroute -> Sampler -> Collect, with a primitive and a note beside them."""
    return {
        "version": 0.4,
        "nodes": [
            {"id": 1, "type": "Loader", "widgets_values": ["b.png", "red", "image"], "mode": 0},
            {"id": 2, "type": "Reroute", "inputs": [slot("", 10)]},
            {"id": 3, "type": "PrimitiveNode", "widgets_values": [7, "fixed"]},
            {
                "id": 4,
                "type": "Sampler",
                "title": "Mine",
                "inputs": [slot("model", 11), slot("steps", None), slot("forced", 12)],
                "widgets_values": [123, "randomize", 30, "y", 0.25],
            },
            {
                "id": 5,
                "type": "Collect",
                "inputs": [
                    slot("samples", 13),
                    slot("references.reference_1", 14),
                    slot("references.reference_2", None),
                ],
            },
            {"id": 6, "type": "MarkdownNote", "widgets_values": ["words"]},
        ],
        "links": [
            [10, 1, 0, 2, 0, "*"],
            [11, 2, 0, 4, 0, "*"],
            [12, 3, 0, 4, 2, "INT"],
            [13, 4, 0, 5, 0, "LATENT"],
            [14, 1, 1, 5, 1, "IMAGE"],
        ],
    }


def test_every_kind_of_input(workflow: dict[str, Any]) -> None:
    prompt = to_prompt(workflow, OBJECT_INFO)
    assert {node: found["inputs"] for node, found in prompt.items()} == {
        "1": {"name": "b.png", "channel": "red"},
        "4": {
            "model": ["1", 0],
            "seed": 123,
            "steps": 30,
            "mode": "y",
            "forced": 7,
            "noise": 0.25,
            "late": "z",  # not saved yet: the default
        },
        "5": {"samples": ["4", 0], "references.reference_1": ["1", 1]},
    }
    titles = {node: found["_meta"]["title"] for node, found in prompt.items()}
    assert titles == {"1": "Load It", "4": "Mine", "5": "Collect"}


def test_links_of_version_1(workflow: dict[str, Any]) -> None:
    expected = to_prompt(workflow, OBJECT_INFO)
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    workflow["links"] = [dict(zip(names, link, strict=True)) for link in workflow["links"]]
    assert to_prompt(workflow, OBJECT_INFO) == expected


def test_values_saved_by_name(workflow: dict[str, Any]) -> None:
    workflow["nodes"][0]["widgets_values"] = {"name": "a.png", "channel": "red", "upload": "image"}
    assert to_prompt(workflow, OBJECT_INFO)["1"]["inputs"] == {
        "name": "a.png",
        "channel": "red",
    }


@pytest.mark.parametrize(
    ("node", "change", "message"),
    [
        (3, {"mode": 2}, r"Mine \(node 4\) is muted"),
        (3, {"mode": 4}, r"Mine \(node 4\) is bypassed"),
        (0, {"type": "Elsewhere"}, "no node of this type"),
        (0, {"widgets_values": []}, "none of them for name"),
        (0, {"type": "Changing"}, "changes with others"),
        (4, {"inputs": [slot("samples", 99)]}, "wire to samples is loose"),
    ],
)
def test_refused_by_name(
    workflow: dict[str, Any], node: int, change: dict[str, Any], message: str
) -> None:
    workflow["nodes"][node].update(change)
    with pytest.raises(WorkflowError, match=message):
        to_prompt(workflow, OBJECT_INFO)


def test_a_circle_of_reroutes_is_a_loose_wire(workflow: dict[str, Any]) -> None:
    workflow["links"][0] = [10, 2, 0, 2, 0, "*"]
    with pytest.raises(WorkflowError, match="wire to model is loose"):
        to_prompt(workflow, OBJECT_INFO)


def test_bypass_only_and_find(workflow: dict[str, Any]) -> None:
    prompt = to_prompt(workflow, OBJECT_INFO)
    before = copy.deepcopy(prompt)
    plain = bypass(prompt, "4", "model")
    assert plain["5"]["inputs"]["samples"] == ["1", 0]
    assert "4" not in plain
    assert prompt == before
    assert set(only(prompt, "4")) == {"1", "4"}
    assert find(prompt, "Sampler", mode="y") == "4"
    with pytest.raises(WorkflowError, match="found 0"):
        find(prompt, "Sampler", mode="x")
