"""A handwritten prompt needs only links: widgets have defaults and may be left out."""

from __future__ import annotations

from typing import Any

import pytest
from graph import flux_graph, given, node
from torch import ones, rand

from tools.workflows.node_schema import inputs_of

# What cannot run in this graph: the demo's own models, and nodes for other kinds of models or for
# prompts.
ELSEWHERE = {
    "I2AM_BlankPrompt",
    "I2AM_ImageTokens",
    "I2AM_Load",
    "I2AM_LoadInsertion",
    "I2AM_LoadWords",
    "I2AM_MarkRedux",
    "I2AM_ReferenceTokens",
    "I2AM_TraceAdapter",
    "I2AM_Words",
}


def test_no_widget_with_a_default_is_required(comfy: Any) -> None:
    for name, cls in comfy.nodes.NODE_CLASS_MAPPINGS.items():
        if name.startswith("I2AM_"):
            for one, (_, options, required) in inputs_of(cls.GET_SCHEMA().get_v1_info(cls)).items():
                assert not required or "default" not in options, f"{name}: {one}"


@pytest.mark.usefixtures("tiny_nodes")
def test_links_are_enough(comfy: Any, run_graph: Any) -> None:
    attribution = {"attribution": ["collect", 0]}
    mask = given("half", (ones(1, 64, 48) * (rand(1, 64, 48) > 0.5)).round())
    asked = {
        "I2AM_Map": attribution,
        "I2AM_Point": attribution,
        "I2AM_Flow": attribution,
        "I2AM_Viewer": attribution,
        "I2AM_IMACS": attribution | {"generated_mask": ["mask", 0]},
        "I2AM_Influence": attribution,
        "I2AM_Compare": attribution | {"other": ["collect", 0]},
        "I2AM_ToMask": attribution,
        "I2AM_Locate": attribution,
        "I2AM_TopPart": attribution,
        "I2AM_Save": attribution,
        "I2AM_Probe": {
            "model": ["model", 0],
            "positive": ["positive", 0],
            "latent_image": ["sampler", 0],
        },
        "I2AM_PickBest": {"scores": ["I2AM_IMACS", 0], "samples": ["sampler", 0]},
        "I2AM_TruthTest": {
            "plain": ["black", 0],
            "top_muted": ["white", 0],
            "random_muted": ["white", 0],
        },
    }
    graph = flux_graph(
        steer=node("I2AM_Steer", model=["model", 0]),
        capture=node("I2AM_Capture", model=["steer", 0]),
        collect=node("I2AM_Collect", samples=["sampler", 0]),
        mask=mask,
        black=node("EmptyImage", width=48, height=64, batch_size=1, color=0),
        white=node("EmptyImage", width=48, height=64, batch_size=1, color=0xFFFFFF),
        **{name: node(name, **links) for name, links in asked.items()},
    )
    ours = {name for name in comfy.nodes.NODE_CLASS_MAPPINGS if name.startswith("I2AM_")}
    assert ours - ELSEWHERE == {one["class_type"] for one in graph.values()} & ours
    run = run_graph(graph, targets=[*asked])
    assert run.ok, run.errors
    assert asked.keys() <= run.outputs.keys()
