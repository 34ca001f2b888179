"""The demo model for super-resolution: the stock loader finds it, and it reads its reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graph import capture, collect, filled, given, node, sampler

from tools.demo.scenes import HELD_OUT_SEEDS, PHOTOGRAPHS, make_scenes, reduced
from tools.fidelity.statistics import pearson
from tools.tasks.upscaling import decibels, detail

FILE = "i2am_demo_upscale.safetensors"
BETTER = 0.3  # dB above the enlarged picture, on average


def upscaling_graph(name: str, low: torch.Tensor) -> dict[str, Any]:
    return {
        "model": node("UNETLoader", unet_name=FILE, weight_dtype="default"),
        "vae": node("VAELoader", vae_name="i2am_demo_vae.safetensors"),
        "low": given(name, low),
        "encoded": node("VAEEncode", pixels=["low", 0], vae=["vae", 0]),
        "blank": node("I2AM_BlankPrompt"),
        "positive": node("ReferenceLatent", conditioning=["blank", 0], latent=["encoded", 0]),
        "empty": node("EmptySD3LatentImage", width=128, height=128, batch_size=1),
        "capture": capture(),
        "sampler": sampler(steps=4, negative=["positive", 0]),
        "picture": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
        "collect": collect(**{"image": ["picture", 0], "references.reference_1": ["low", 0]}),
    }


@pytest.mark.usefixtures("tiny_nodes")
def test_its_pictures_are_better_than_enlarged_ones(run_graph: Any) -> None:
    """Closer to the truth and with more of its detail, on pictures never trained on."""
    pictures = make_scenes(8, HELD_OUT_SEEDS.start + 5000, recipe=PHOTOGRAPHS).target
    low = reduced(pictures)
    graph = upscaling_graph("eight", low)
    graph["empty"]["inputs"]["batch_size"] = len(low)
    made = run_graph(graph, targets=["picture"]).value("picture")
    assert (decibels(made, pictures) - decibels(low, pictures)).mean() > BETTER
    assert (detail(made).mean(1) > detail(low).mean(1)).all()


@pytest.mark.usefixtures("tiny_nodes")
def test_it_makes_the_picture_of_its_reference(comfy: Any, run_graph: Any) -> None:
    pictures = make_scenes(2, HELD_OUT_SEEDS.start + 5000, recipe=PHOTOGRAPHS).target
    low = reduced(pictures)
    right = run_graph(upscaling_graph("right", low[:1]), targets=["collect", "picture"])
    wrong = run_graph(upscaling_graph("wrong", low[1:]), targets=["picture"])
    errors = [(run.value("picture") - pictures[:1]).square().mean() for run in (right, wrong)]
    assert errors[0] < 0.2 * errors[1]
    header = right.value("collect").recording.header
    assert len(header.references) == 1
    assert len(header.layers) == 5
    path = comfy.folder_paths.get_full_path("diffusion_models", FILE)
    with open(path, "rb") as file:
        assert len(file.read()) <= 3.4e6


@pytest.mark.usefixtures("tiny_nodes")
def test_the_effect_says_what_muting_changes(comfy: Any, run_graph: Any) -> None:
    """Each sixteenth of the reference muted alone by Reference Strength, against the maps over it.

    docs/tasks.md has the same of single cells: 0.93 for the effect, 0.07 for attention.
    """
    side, cells = 4, torch.eye(16).unflatten(1, (4, 4))
    low = reduced(make_scenes(1, HELD_OUT_SEEDS.start + 5000, recipe=PHOTOGRAPHS).target)
    graph = upscaling_graph("muted", low)
    graph["capture"] = capture(definitions="all")
    for number, cell in enumerate(cells):
        graph[f"mask {number}"] = given(f"cell {number}", cell[None])
        mask = {"reference_mask": [f"mask {number}", 0]}
        graph[f"muted {number}"] = filled("I2AM_Steer", model=["model", 0], strength=0.0, **mask)
        graph[f"without {number}"] = sampler(f"muted {number}", steps=4, negative=["positive", 0])
    names = [f"without {number}" for number in range(len(cells))]
    run = run_graph(graph, targets=["sampler", "collect", *names])
    assert run.ok, run.errors
    whole = run.value("sampler")["samples"]
    changes = [(run.value(name)["samples"] - whole).square().mean() for name in names]
    at = comfy.pack("i2am.maps.levels")

    def correlation(definition: Any) -> float:
        maps = at.attribution_map(
            run.value("collect").recording, definition, at.Direction.GENERATED_TO_REFERENCE
        )
        values = F.adaptive_avg_pool2d(maps.values, side)
        return float(pearson(values.flatten(), torch.stack(changes)))

    assert correlation(at.Definition.EFFECT) > 0.9
    assert correlation(at.Definition.MODEL) < 0.5
