"""One picture of a batch leads to its own part of the recording, whichever node picked it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graph import changed, collect, flux_graph, given, imacs, node, same_arrays, sampler

pytestmark = pytest.mark.usefixtures("tiny_nodes")


@pytest.fixture(autouse=True)
def fresh_store(use_store: Any) -> Any:
    """An empty store: no test finds another's recordings."""
    return use_store()


def batch_graph(count: int = 3, **nodes: Any) -> dict[str, Any]:
    """A batch made by RepeatLatentBatch, sampled; "whole" collects all of it."""
    return flux_graph(
        one=node("EmptySD3LatentImage", width=48, height=64, batch_size=1),
        empty=node("RepeatLatentBatch", samples=["one", 0], amount=count),
        whole=collect(),
        **nodes,
    )


def part(recording: Any, *items: int) -> dict[str, Any]:
    """The arrays of these items only."""
    return {name: array[list(items)] for name, array in recording.arrays.items()}


def test_latent_from_batch(run_graph: Any) -> None:
    graph = batch_graph(
        chosen=node("LatentFromBatch", samples=["sampler", 0], batch_index=1, length=1),
        image=node("Test_Picture", samples=["chosen", 0]),
        collect=collect("chosen", image=["image", 0]),
    )
    run = run_graph(graph, ["collect", "whole"])
    whole, one = run.value("whole").recording, run.value("collect").recording
    assert whole.header.run.batch == 3
    assert one.header.run.batch == 1
    assert same_arrays(one.arrays, part(whole, 1))
    assert not same_arrays(one.arrays, part(whole, 0))
    assert run.value("collect", 2).endswith("\nTaken from a batch: picture 2 of 3")
    assert "Taken from" not in run.value("whole", 2)


def test_several_in_another_order(run_graph: Any) -> None:
    """In any order and by any node: items are found by their content."""
    graph = batch_graph(
        last=node("LatentFromBatch", samples=["sampler", 0], batch_index=2, length=1),
        first=node("LatentFromBatch", samples=["sampler", 0], batch_index=0, length=1),
        picked=node("LatentBatch", samples1=["last", 0], samples2=["first", 0]),
        collect=collect("picked"),
    )
    run = run_graph(graph, ["collect", "whole"])
    whole, picked = run.value("whole").recording, run.value("collect").recording
    assert same_arrays(picked.arrays, part(whole, 2, 0))
    assert run.value("collect", 2).endswith("pictures 3, 1 of 3")


def test_rebatched(run_graph: Any) -> None:
    """RebatchLatents gives a list, and each of its latents leads to its items."""
    graph = batch_graph(
        5,
        few=node("RebatchLatents", latents=["sampler", 0], batch_size=2),
        collect=collect("few"),
    )
    run = run_graph(graph, ["collect", "whole"])
    whole = run.value("whole").recording
    lists = run.outputs["collect"][0]
    for attribution, items in zip(lists, ((0, 1), (2, 3), (4,)), strict=True):
        assert same_arrays(attribution.recording.arrays, part(whole, *items))


def test_pictures_and_masks_of_the_whole_batch(run_graph: Any) -> None:
    """Inputs connected for the whole batch are divided like the latent."""
    pictures = torch.rand(3, 64, 48, 3)
    masks = torch.zeros(3, 64, 48)
    masks[0, :32], masks[1, 32:], masks[2, :, 24:] = 1, 1, 1
    graph = batch_graph(
        chosen=node("LatentFromBatch", samples=["sampler", 0], batch_index=1, length=1),
        pictures=given("three pictures", pictures),
        masks=given("three masks", masks),
        collect=collect(
            "chosen",
            image=["pictures", 0],
            mask=["masks", 0],
            **{"references.reference_1": ["pictures", 0]},
        ),
        imacs=imacs(),
    )
    run = run_graph(graph, ["imacs"])
    found = run.value("collect")
    assert torch.equal(found.image, pictures[1:2])
    assert torch.equal(found.mask, masks[1:2])
    assert torch.equal(found.references[0], pictures[1:2])
    assert len(run.outputs["imacs"][0]) == 1


def test_an_item_after_the_settings_changed(run_graph: Any) -> None:
    """The nearest Capture's settings decide for items too; its words are not the plan's numbers."""
    graph = batch_graph(
        chosen=node("LatentFromBatch", samples=["sampler", 0], batch_index=1, length=1),
        collect=collect("chosen"),
    )
    names = []
    for layers in ("last", "double", "last"):
        run = run_graph(changed(graph, "capture", layers=layers), ["collect"])
        names.append([layer.name for layer in run.value("collect").recording.header.layers])
    assert names == [["single 1"], ["double 0", "double 1"], ["single 1"]]


@pytest.mark.bad_input(
    "Collect Attribution: pictures of different runs joined in one latent",
    "Said, with the way to take one out",
)
def test_items_of_two_runs(run_graph: Any) -> None:
    graph = flux_graph(
        sampler2=sampler(seed=2),
        both=node("LatentBatch", samples1=["sampler", 0], samples2=["sampler2", 0]),
        collect=collect("both"),
    )
    errors = run_graph(graph, ["collect"]).errors
    assert "sampled in different runs" in errors["collect"]


def test_a_changed_item_is_not_found(run_graph: Any) -> None:
    graph = batch_graph(
        chosen=node("LatentFromBatch", samples=["sampler", 0], batch_index=1, length=1),
        flipped=node("LatentFlip", samples=["chosen", 0], flip_method="y-axis: horizontally"),
        collect=collect("flipped"),
    )
    assert "No recording belongs" in run_graph(graph, ["collect"]).errors["collect"]


def test_items_after_a_spill(run_graph: Any, use_store: Any) -> None:
    """Items are found in a recording that was moved to a file, and not in a lost one."""
    graph = batch_graph(
        chosen=node("LatentFromBatch", samples=["sampler", 0], batch_index=1, length=1),
    )
    for file_bytes, found in ((2**30, True), (1, False)):
        use_store(memory_bytes=1, file_bytes=file_bytes)
        run_graph(changed(graph, "sampler", seed=5 + found), ["whole"])
        run_graph(changed(graph, "sampler", seed=8 + found), ["whole"])
        back = changed(graph | {"collect": collect("chosen")}, "sampler", seed=5 + found)
        run = run_graph(back, ["collect"])
        assert "sampler" not in run.executed
        assert run.ok == found
