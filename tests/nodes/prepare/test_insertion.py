"""The demo insertion model through the real executor: it reads its reference, and maps show it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graph import attribution_map, capture, collect, filled, given, node, sampler

from tools.demo.insertions import Insertions, make_insertions
from tools.demo.latents import encode
from tools.demo.scenes import HELD_OUT_SEEDS

SCENES = 4


@pytest.fixture(scope="module")
def scenes() -> Insertions:
    return make_insertions(SCENES, HELD_OUT_SEEDS.start + 3000)


def insertion_graph(scenes: Insertions, name: str, reference: torch.Tensor) -> dict[str, Any]:
    """The graph from the model's help page, with Locate Object."""
    return {
        "model": node("I2AM_LoadInsertion"),
        "vae": node("VAELoader", vae_name="i2am_demo_vae.safetensors"),
        "reference": given(f"reference {name}", reference),
        "target": given("target", scenes.target),
        "mask": given("mask", scenes.box_mask),
        "tokens": node("I2AM_ReferenceTokens", image=["reference", 0], vae=["vae", 0]),
        "zero": node("ConditioningZeroOut", conditioning=["tokens", 0]),
        "around": node(
            "InpaintModelConditioning",
            positive=["tokens", 0],
            negative=["zero", 0],
            vae=["vae", 0],
            pixels=["target", 0],
            mask=["mask", 0],
            noise_mask=False,
        ),
        "capture": capture(),
        "sampler": sampler(
            steps=8, positive=["around", 0], negative=["around", 1], latent_image=["around", 2]
        ),
        "picture": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
        "collect": collect(**{"image": ["picture", 0], "references.reference_1": ["reference", 0]}),
        "map": attribution_map(direction="generated to reference"),
        "locate": filled("I2AM_Locate", attribution=["collect", 0], threshold=0.4),
    }


def error_in_box(pictures: torch.Tensor, scenes: Insertions) -> torch.Tensor:
    error = ((pictures - scenes.target) ** 2).mean(-1) * scenes.box_mask
    return error.sum((1, 2)) / scenes.box_mask.sum((1, 2))


@pytest.mark.usefixtures("tiny_nodes")
def test_the_object_is_put_in_and_located(comfy: Any, run_graph: Any, scenes: Insertions) -> None:
    run = run_graph(insertion_graph(scenes, "right", scenes.reference))
    assert run.ok, run.errors
    box = comfy.pack("i2am.scores").Box
    found = run.value("locate")
    overlaps = [box(*f).overlap(box(*t)) for f, t in zip(found, scenes.boxes, strict=True)]
    whole = [box(0, 0, 128, 128).overlap(box(*t)) for t in scenes.boxes]
    assert sum(overlaps) / SCENES > 0.45 > 2 * sum(whole) / SCENES

    recording = run.value("collect").recording
    (reference,) = recording.header.references
    assert (reference.grid.height, reference.grid.width) == (8, 8)
    assert len(recording.header.layers) == 7
    assert recording.header.heads == (4,) * 7
    shares = recording.arrays["model.r2g.0.step_layer"].flatten(3)
    assert torch.allclose(shares.sum(-1), torch.ones(()), atol=1e-4), "its whole context"

    wrong = run_graph(insertion_graph(scenes, "wrong", scenes.reference.roll(1, 0)))
    assert wrong.ok, wrong.errors
    right_error = error_in_box(run.value("picture"), scenes)
    assert (error_in_box(wrong.value("picture"), scenes) > 3 * right_error).all()


@pytest.mark.usefixtures("tiny_nodes")
def test_daam_s_reduction_singles_out_no_place(
    comfy: Any, run_graph: Any, scenes: Insertions
) -> None:
    """Softmax over the reference, summed over it, is one everywhere, whatever the model does."""
    graph = insertion_graph(scenes, "daam", scenes.reference)
    graph["locate"]["inputs"] |= {"definition": "model"}
    run = run_graph(graph, targets=["locate", "collect"])
    assert list(run.errors) == ["locate"]
    at = comfy.pack("i2am.maps.levels")
    maps = at.attribution_map(
        run.value("collect").recording,
        at.Definition.MODEL,
        at.Direction.REFERENCE_TO_GENERATED,
    )
    values = maps.values
    assert torch.allclose(values, values.mean((2, 3), keepdim=True).expand_as(values), rtol=1e-3)


@pytest.mark.usefixtures("tiny_nodes")
def test_a_softmax_of_its_own_has_nothing_to_compare_with(
    run_graph: Any, scenes: Insertions
) -> None:
    """Without its only reference, the attention has no output: "by 100 %" would say nothing."""
    graph = insertion_graph(scenes, "alone", scenes.reference)
    graph["capture"] = capture(definitions="all")
    graph["influence"] = filled("I2AM_Influence", attribution=["collect", 0], region=["mask", 0])
    run = run_graph(graph, targets=["influence"])
    assert run.ok, run.errors
    said = run.value("influence", 2)
    assert said.endswith(
        " This attention reads nothing else, so muting it would leave no output."
    ), said


def test_tokens_are_the_training_s(comfy: Any, scenes: Insertions) -> None:
    """The node's output for a picture matches the training input, up to half precision."""
    demo = comfy.pack("nodes.prepare.demo")
    (vae,) = comfy.node("VAELoader")().load_vae("i2am_demo_vae.safetensors")
    ((tokens, options),) = demo.ReferenceTokens.execute(scenes.reference, vae).args[0]
    assert options == {"i2am_image_tokens": [(0, 8, 8)]}
    assert tokens.shape == (SCENES, 64, 80)
    assert (tokens - demo.picture_tokens(encode(scenes.reference))).abs().max() < 0.02


def test_tokens_go_row_by_row_and_know_their_place(comfy: Any) -> None:
    latents = torch.arange(16 * 4 * 6).reshape(1, 16, 4, 6).float()
    tokens = comfy.pack("nodes.prepare.demo").picture_tokens(latents)
    assert tokens.shape == (1, 6, 80)
    assert torch.equal(tokens[0, 4, :64], latents[0, :, 2:4, 2:4].flatten())
    down, across = tokens[0, :, 64:72], tokens[0, :, 72:]
    assert torch.equal(down[0], down[2])
    assert torch.equal(across[0], across[3])
    assert len({tuple(place) for place in tokens[0, :, 64:].tolist()}) == 6


def test_another_vae_is_refused(comfy: Any, scenes: Insertions) -> None:
    class FourChannels:
        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(pixels), 4, 16, 16)

    with pytest.raises(ValueError, match=r"16 channels.*i2am_demo_vae"):
        comfy.node("I2AM_ReferenceTokens").execute(scenes.reference, FourChannels())


def test_a_missing_file_is_told(comfy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(
        comfy.pack("nodes.prepare.demo"), "INSERTION_MODEL", tmp_path / "gone.safetensors"
    )
    with pytest.raises(ValueError, match="gone"):
        comfy.node("I2AM_LoadInsertion").execute()


def test_the_file_is_small(comfy: Any) -> None:
    assert comfy.pack("nodes.prepare.demo").INSERTION_MODEL.stat().st_size <= 3.6e6
