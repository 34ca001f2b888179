"""Influence, strength and the truth test on the demo model, where the truth is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph import Prompt, filled, given, node
from torch import Tensor

from tools.demo.scenes import HELD_OUT_SEEDS, Scenes, make_scenes, token_coverage
from tools.fidelity.host import MODEL, VAE

COUNT = 6
pytestmark = pytest.mark.usefixtures("tiny_nodes")


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(COUNT, HELD_OUT_SEEDS.start + 500)


def demo(
    scenes: Scenes,
    reference: Tensor,
    name: str,
    strength: float = 1.0,
    definitions: str = "both",
    **masks: Any,
) -> Prompt:
    """Fills the holes; Reference Strength on the object, Influence inside the holes."""
    return {
        "model": node("UNETLoader", unet_name=MODEL.name, weight_dtype="default"),
        "vae": node("VAELoader", vae_name=VAE.name),
        "scene": given("scene", scenes.scene),
        "object": given(name, reference),
        "hole": given("hole", scenes.hole),
        "scene latent": node("VAEEncode", pixels=["scene", 0], vae=["vae", 0]),
        "object latent": node("VAEEncode", pixels=["object", 0], vae=["vae", 0]),
        "blank": node("I2AM_BlankPrompt"),
        "one": node("ReferenceLatent", conditioning=["blank", 0], latent=["scene latent", 0]),
        "two": node("ReferenceLatent", conditioning=["one", 0], latent=["object latent", 0]),
        "empty": node("EmptySD3LatentImage", width=128, height=128, batch_size=COUNT),
        "capture": filled("I2AM_Capture", model=["model", 0], definitions=definitions),
        "steer": filled(
            "I2AM_Steer", model=["capture", 0], reference=2, strength=strength, **masks
        ),
        "sampler": node(
            "KSampler",
            **{"model": ["steer", 0], "positive": ["two", 0], "negative": ["two", 0]},
            **{"latent_image": ["empty", 0], "seed": 1, "steps": 10, "cfg": 1.0},
            **{"sampler_name": "euler", "scheduler": "simple", "denoise": 1.0},
        ),
        "image": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
        "collect": filled("I2AM_Collect", samples=["sampler", 0], image=["image", 0]),
        "influence": filled("I2AM_Influence", attribution=["collect", 0], region=["hole", 0]),
    }


def error(image: Tensor, scenes: Scenes) -> float:
    """Mean squared error inside the holes."""
    return float((((image - scenes.target) ** 2).mean(-1) * scenes.hole).sum() / scenes.hole.sum())


@pytest.fixture
def run(run_graph: Any, scenes: Scenes) -> Callable[..., Any]:
    def one(reference: Tensor, name: str, **options: Any) -> tuple[list[float], list[str], Any]:
        found = run_graph(demo(scenes, reference, name, **options))
        assert found.ok, found.errors
        shares = found.outputs["influence"][1]
        return shares, found.value("influence", 2).splitlines(), found.value("image")

    return one


def test_verdicts(run: Callable[..., Any], scenes: Scenes) -> None:
    """Calibration of the thresholds: right, swapped, blank and muted references."""
    right, words, _ = run(scenes.reference, "right")
    assert words[0].startswith("Reference 1 is used outside the region: ")
    assert words[1].startswith("Reference 2 fills the region: ")
    assert right[1] > 0.33
    swapped, words, _ = run(scenes.reference.roll(1, 0), "swapped")
    # It searches just as hard: a share shows that something is read, not that it is right.
    assert words[1].startswith("Reference 2 fills the region: ")
    assert swapped[1] == pytest.approx(right[1], rel=0.1)
    blank, words, _ = run(torch.full_like(scenes.reference, 0.5), "blank")
    little = ("Reference 2 is hardly used: ", "Reference 2 is used alike inside and outside the ")
    assert words[1].startswith(little)
    assert blank[1] < 0.7 * right[1]
    muted, words, _ = run(scenes.reference, "right", strength=0.0)
    assert words[1].startswith("Reference 2 is not used: 0.0% of the attention inside the region")
    assert muted[1] == 0
    _, words, _ = run(scenes.reference, "right", strength=0.1)
    assert words[1].startswith("Reference 2 is used weakly in the region: ")
    _, words, _ = run(scenes.reference, "right", strength=0.02)
    assert words[1].startswith("Reference 2 is hardly used: ")


def test_verdict_by_effect(run: Callable[..., Any], scenes: Scenes) -> None:
    """The effect of muting it, calibrated: the object's reference, a grey one, a muted one."""
    said = re.compile(
        r"Muting it would change attention's output( little,)? by (\d+)% there, and by "
    )

    def change(reference: Tensor, name: str, **options: Any) -> int:
        _, words, _ = run(reference, name, definitions="all", **options)
        found = said.search(words[1])
        assert found, words
        return int(found[2])

    right = change(scenes.reference, "right")
    assert 50 <= right <= 70
    assert change(torch.full_like(scenes.reference, 0.5), "blank") < 0.6 * right
    _, words, _ = run(scenes.reference, "right", strength=0.0, definitions="all")
    assert "Muting" not in words[1]
    _, words, _ = run(scenes.reference, "right")
    assert "Muting" not in words[1]


@pytest.mark.parametrize("count", [1, COUNT])
@pytest.mark.parametrize("with_mask", [True, False])
def test_verdict_in_place(run_graph: Any, with_mask: bool, count: int) -> None:
    """Without a region it uses Collect's mask, otherwise the places where each is strongest."""
    scenes = make_scenes(count, HELD_OUT_SEEDS.start + 600)
    graph = demo(scenes, scenes.reference, f"in place {count}")
    graph["scene"] = given(f"in place {count} scene", scenes.scene)
    graph["hole"] = given(f"in place {count} hole", scenes.hole)
    graph["empty"]["inputs"]["batch_size"] = count
    del graph["influence"]["inputs"]["region"]
    if with_mask:
        graph["collect"]["inputs"]["mask"] = ["hole", 0]
    found = run_graph(graph)
    first, second = found.value("influence", 2).splitlines()
    if with_mask:
        assert first.startswith("Reference 1 is used outside the mask: ")
        assert second.startswith("Reference 2 fills the mask: ")
    else:
        assert first.startswith("Reference 1 is used everywhere alike: ")
        assert second.startswith("Reference 2 is used most ")
    whole = found.value("collect").recording.arrays["share.map"].mean((0, 2, 3))
    assert found.outputs["influence"][1] == pytest.approx(whole[2:].tolist(), rel=1e-3)


def test_strongest_places_have_a_name(run_graph: Any, comfy: Any) -> None:
    """The verdict names the corner with the hole."""
    part = comfy.pack("i2am.scores.verdict")
    names = {}
    for row in range(3):
        for column in range(3):
            places = torch.zeros(1, 12, 12, dtype=torch.bool)
            places[:, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = True
            names[row, column] = part.places_name(places)
    assert names == {
        (0, 0): "in the upper left", (0, 1): "in the upper part", (0, 2): "in the upper right",
        (1, 0): "in the left part", (1, 1): "in the middle", (1, 2): "in the right part",
        (2, 0): "in the lower left", (2, 1): "in the lower part", (2, 2): "in the lower right",
    }  # fmt: skip
    corners = torch.zeros(1, 12, 12, dtype=torch.bool)
    corners[:, :2, :2] = corners[:, -2:, -2:] = True
    assert part.places_name(corners) == "where it is strongest"
    assert part.places_name(torch.zeros(1, 12, 12, dtype=torch.bool)) == "where it is strongest"


def test_strength_is_a_dial(run: Callable[..., Any], scenes: Scenes) -> None:
    """From 0.25 to 4 the share rises and the pasted object's error falls, step by step."""
    found = [run(scenes.reference, "right", strength=s) for s in (0.25, 0.5, 1.0, 2.0, 4.0)]
    shares = [one[0][1] for one in found]
    errors = [error(one[2], scenes) for one in found]
    assert shares == sorted(shares)
    assert errors == sorted(errors, reverse=True)
    assert shares[-1] > 1.6 * shares[0]
    assert errors[-1] < 0.5 * errors[0]


def test_regions_match(run_graph: Any, comfy: Any, scenes: Scenes) -> None:
    """Tokens the hole touches draw from the object, all others from the scene: IoU with both."""
    found = run_graph(demo(scenes, scenes.reference, "right"))
    module = comfy.pack("i2am.scores")
    recording = found.value("collect").recording
    maps = module.strength_maps(recording, module.ColorBy.LIFT)
    strongest = maps.argmax(1).flatten(1)
    hole = token_coverage(scenes.hole) > 0
    for number, truth in ((2, hole), (1, ~hole)):
        mine = strongest == number
        iou = (mine & truth).sum(1) / (mine | truth).sum(1)
        assert iou.mean() >= 0.8, (number, iou)
    overlay = found.value("influence", 0)
    assert overlay.shape[0] == COUNT
    assert overlay.shape[2] == 128
    assert overlay.shape[1] > 128  # includes the legend
    assert "reference 2" in found.ui["influence"]["i2am_text"][1]


def test_truth(run_graph: Any) -> None:
    """Removing what the map points at changes the holes far more than removing a part elsewhere."""
    one = make_scenes(1, HELD_OUT_SEEDS.start + 500)
    graph = demo(one, one.reference, "single")
    graph["scene"], graph["hole"] = given("one scene", one.scene), given("one hole", one.hole)
    graph["empty"]["inputs"]["batch_size"] = 1
    graph["part"] = filled(
        "I2AM_TopPart", attribution=["collect", 0], reference=2, percent=20.0, region=["hole", 0]
    )
    for slot, name in enumerate(("top", "random")):
        graph[f"steer {name}"] = filled(
            *("I2AM_Steer",), model=["model", 0], reference=2, strength=0.0,
            reference_mask=["part", slot],
        )  # fmt: skip
        sampler = graph["sampler"]["inputs"] | {"model": [f"steer {name}", 0]}
        graph[f"sampler {name}"] = node("KSampler", **sampler)
        graph[f"image {name}"] = node("VAEDecode", samples=[f"sampler {name}", 0], vae=["vae", 0])
    graph["truth"] = node(
        *("I2AM_TruthTest",), plain=["image", 0], top_muted=["image top", 0],
        random_muted=["image random", 0], region=["hole", 0],
    )  # fmt: skip
    found = run_graph(graph)
    assert found.ok, found.errors
    top, random = found.value("part", 0), found.value("part", 1)
    assert top.shape == random.shape == (1, 128, 128)
    assert top.sum() == random.sum() == 13 * 256  # a fifth of 64 cells
    assert (top * random).sum() == 0
    touched = (token_coverage(top) > 0) & (token_coverage(one.object) > 0)
    assert touched.sum() >= 12  # of 13 cells
    assert found.value("truth", 0) > 50
    assert "Here the map tells the truth." in found.value("truth", 1)


class TestErrors:
    def test_regions(self, run_graph: Any, scenes: Scenes) -> None:
        graph = demo(scenes, scenes.reference, "right")
        graph["hole"] = given("nothing", torch.zeros(1, 128, 128))
        assert "region is empty" in run_graph(graph).errors["influence"]
        graph["hole"] = given("too many", torch.ones(4, 128, 128))
        assert "region is a batch of 4, but there are 6" in run_graph(graph).errors["influence"]
        graph["hole"] = given("too wide", torch.ones(1, 128, 192))
        assert "has other proportions" in run_graph(graph).errors["influence"]

    def test_truth(self, run_graph: Any) -> None:
        graph = {
            "plain": given("plain", torch.zeros(1, 8, 8, 3)),
            "other": given("other", torch.zeros(2, 8, 8, 3)),
            "truth": node(
                *("I2AM_TruthTest",), plain=["plain", 0], top_muted=["plain", 0],
                random_muted=["plain", 0],
            ),
        }  # fmt: skip
        assert "Nothing changed" in run_graph(graph).errors["truth"]
        graph["truth"]["inputs"]["top_muted"] = ["other", 0]
        assert "top_muted is (2, 8, 8, 3)" in run_graph(graph).errors["truth"]
