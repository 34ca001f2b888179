"""Beside ComfyUI's own model patches and guiders, on either side of Capture Attention."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from graph import capture, changed, custom_sampler, filled, flux_graph, given, node, sampler

pytestmark = pytest.mark.usefixtures("tiny_nodes")

PATCHES = {
    "ModelSamplingFlux": {"width": 64, "height": 64},
    "EasyCache": {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0},
    "SkipLayerGuidanceDiT": {
        **{"double_layers": "0", "single_layers": "1", "start_percent": 0.0, "end_percent": 1.0},
    },
    "RescaleCFG": {},
}
UNET_PATCHES = ("PerturbedAttentionGuidance", "SelfAttentionGuidance", "HyperTile", "FreeU_V2")


def recording(run: Any) -> Any:
    return run.value("collect").recording


def both_ways(graph: dict[str, Any], patch: dict[str, Any]) -> list[dict[str, Any]]:
    """Without Capture; the patch before it; the patch after it."""
    before = patch | {"inputs": patch["inputs"] | {"model": ["model", 0]}}
    after = patch | {"inputs": patch["inputs"] | {"model": ["capture", 0]}}
    return [
        changed(graph | {"patch": before}, "sampler", model=["patch", 0]),
        graph | {"patch": before, "capture": capture("patch")},
        changed(graph | {"patch": after}, "sampler", model=["patch", 0]),
    ]


@pytest.mark.parametrize("name", PATCHES)
def test_flux_patches(run_graph: Any, name: str) -> None:
    """The same latent with and without us, and the same recording on either side."""
    graph = changed(flux_graph(), "sampler", cfg=2.0, steps=4)
    plain, before, after = both_ways(graph, filled(name, **PATCHES[name]))
    latent = run_graph(plain, ["sampler"]).value("sampler")["samples"]
    found = []
    for one in (before, after):
        run = run_graph(one, ["collect"])
        assert run.ok, run.errors
        assert torch.equal(run.value("sampler")["samples"], latent)
        found.append(recording(run))
    assert all(torch.equal(found[0].arrays[k], found[1].arrays[k]) for k in found[0].arrays)
    header = found[0].header
    if name == "EasyCache":
        assert 0 < header.evaluations < header.expected_evaluations
        assert "Some evaluations were not seen" in run.value("collect", 2)
    else:
        assert (header.evaluations, header.expected_evaluations) == (4, 4)


@pytest.mark.parametrize("name", UNET_PATCHES)
def test_unet_patches(run_graph: Any, name: str) -> None:
    """Guidance that evaluates a conditioning again with tampered attention is not recorded:
    the first step, which starts from the same noise, is what it is without guidance."""
    marked = tiny.conditioning(30, 19, 24, i2am_image_tokens=[(5, 3, 4)])
    graph = flux_graph(
        model=node("Test_UNet", seed=0),
        positive=given("marked", marked),
        negative=given("plain", tiny.conditioning(31, 19, 24)),
        empty=node("EmptyLatentImage", width=128, height=128, batch_size=1),
        sampler=sampler(cfg=3.0, scheduler="normal"),
    )
    without = recording(run_graph(graph, ["collect"]))
    plain, before, after = both_ways(graph, filled(name))
    latent = run_graph(plain, ["sampler"]).value("sampler")["samples"]
    for one in (before, after):
        run = run_graph(one, ["collect"])
        assert run.ok, run.errors
        assert torch.equal(run.value("sampler")["samples"], latent)
        found = recording(run)
        assert found.header.counts == ((1,) * 7,) * 3
        if name.endswith("Guidance"):
            for key, array in without.arrays.items():
                if key.endswith("step_layer"):
                    torch.testing.assert_close(found.arrays[key][:, 0], array[:, 0])


@pytest.mark.parametrize(
    ("name", "inputs", "recorded"),
    [
        ("BasicGuider", {"conditioning": ["positive", 0]}, 1),
        ("CFGGuider", {"positive": ["positive", 0], "negative": ["negative", 0], "cfg": 2.0}, 1),
        (
            "DualCFGGuider",
            {"cond1": ["positive", 0], "cond2": ["two", 0], "negative": ["negative", 0]},
            1,
        ),
        (
            "PerpNegGuider",
            {
                **{"positive": ["positive", 0], "negative": ["two", 0], "cfg": 2.0},
                "empty_conditioning": ["negative", 0],
            },
            1,
        ),
    ],
)
def test_guiders(run_graph: Any, name: str, inputs: dict[str, Any], recorded: int) -> None:
    """The positive conditioning is found by what it is, not by where a guider puts it."""
    graph = flux_graph(**custom_sampler())
    graph["two"] = node("Test_Conditioning", seed=33, references=2, dim=16)
    style = {"style": "regular"} if name == "DualCFGGuider" else {}
    graph["guider"] = filled(name, model=["capture", 0], **inputs, **style)
    run = run_graph(graph, ["collect"])
    assert run.ok, run.errors
    plain = run_graph(changed(graph, "guider", model=["model", 0]), ["sampler"])
    latents = [one.value("sampler")["samples"] for one in (run, plain)]
    assert torch.equal(*latents)
    header = recording(run).header
    assert len(header.references) == recorded
    assert (header.evaluations, header.counts) == (3, ((1,) * 4,) * 3)


def test_a_conditioning_for_some_steps(run_graph: Any) -> None:
    """References that end halfway: the steps without are not in the recording, and counted."""
    ranged = filled("ConditioningSetTimestepRange", conditioning=["positive", 0], end=0.5)
    rest = filled("ConditioningSetTimestepRange", conditioning=["negative", 0], start=0.5)
    both = node("ConditioningCombine", conditioning_1=["ranged", 0], conditioning_2=["rest", 0])
    graph = changed(flux_graph(ranged=ranged, rest=rest, both=both), "sampler", steps=4)
    run = run_graph(changed(graph, "sampler", positive=["both", 0]), ["collect"])
    assert run.ok, run.errors
    header = recording(run).header
    assert 0 < len(header.steps) < 4
    assert header.expected_evaluations == 4
