"""Attribution Viewer through the real executor: messages to the page, and the files they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graph import Prompt, changed, collect, filled, flux_graph, given, node
from payloads import deviation, unpack
from PIL import Image

pytestmark = pytest.mark.usefixtures("tiny_nodes")


def viewer_graph(batch: int = 1, **inputs: Any) -> Prompt:
    """The tiny Flux with pictures, and the viewer."""
    reference = torch.rand(1, 40, 48, 3, generator=torch.Generator().manual_seed(3))
    graph = flux_graph(
        picture=node("Test_Picture", samples=["sampler", 0]),
        reference=given("reference", reference),
        collect=collect(image=["picture", 0], **{"references.reference_1": ["reference", 0]}),
        viewer=filled("I2AM_Viewer", attribution=["collect", 0], **inputs),
    )
    return changed(graph, "empty", batch_size=batch)


def path_of(comfy: Any, file: dict[str, str]) -> Path:
    assert file["type"] == "temp"
    return Path(comfy.folder_paths.get_temp_directory()) / file["subfolder"] / file["filename"]


def pixels(comfy: Any, file: dict[str, str]) -> np.ndarray:
    with Image.open(path_of(comfy, file)) as picture:
        return np.array(picture.convert("RGB"))


def test_what_the_page_is_told(comfy: Any, run_graph: Any) -> None:
    run = run_graph(viewer_graph(batch=2))
    assert run.ok, run.errors
    (shown,) = run.ui["viewer"]["i2am_viewer"]
    payload = path_of(comfy, shown["payload"]).read_bytes()
    assert shown["payload"]["subfolder"] == "i2am"
    assert shown["bytes"] == len(payload)

    attribution = run.value("collect")
    header, arrays = unpack(payload)
    name = "model.r2g.0.step_layer"
    assert deviation(arrays[name], attribution.recording.arrays[name], 3) < 1e-5
    (summary,) = run.ui["collect"]["i2am"]
    assert np.mean(header["share"]["references"][0]) == pytest.approx(
        summary["share"]["references"][0], rel=1e-5
    )
    assert header["generated"]["size"] == [64, 48]
    assert header["references"][0]["size"] == [40, 48]

    assert len(shown["result"]) == 2
    for file, image in zip(shown["result"], attribution.image, strict=True):
        assert np.abs(pixels(comfy, file) / 255 - image.numpy()).max() <= 1 / 255
    ((reference,),) = shown["references"]
    assert pixels(comfy, reference).shape == (40, 48, 3)


def test_written_once(comfy: Any, run_graph: Any) -> None:
    """The same content keeps its file untouched; other content gets another, complete or none."""
    graph = viewer_graph()
    first = run_graph(graph).ui["viewer"]["i2am_viewer"][0]["payload"]
    path = path_of(comfy, first)
    written = path.stat().st_mtime_ns
    # The mask is not given, so what is shown stays; but the node runs again.
    again = changed(graph, "collect", mask=["mask", 0])
    again["mask"] = given("mask", torch.ones(1, 64, 48))
    other = run_graph(again).ui["viewer"]["i2am_viewer"][0]["payload"]
    assert other != first
    back = run_graph(graph | _same_reference())
    assert "viewer" in back.executed
    assert back.ui["viewer"]["i2am_viewer"][0]["payload"] == first
    assert path.stat().st_mtime_ns == written
    assert not [file for file in path.parent.iterdir() if file.suffix == ".part"]


def _same_reference() -> Prompt:
    """The picture of `viewer_graph` under another name, so that nothing of it is cached."""
    reference = torch.rand(1, 40, 48, 3, generator=torch.Generator().manual_seed(3))
    return {"reference": given("reference 2", reference)}


@pytest.mark.parametrize("lost", ["payload", "picture"])
@pytest.mark.fault(
    "Files of Attribution Viewer are deleted from the temporary folder while ComfyUI runs",
    "The viewer says so; Run writes them again, and samples nothing again",
    "Nothing",
)
def test_files_that_are_gone_are_written_again(comfy: Any, run_graph: Any, lost: str) -> None:
    (shown,) = run_graph(viewer_graph()).ui["viewer"]["i2am_viewer"]
    assert "viewer" not in run_graph(viewer_graph()).executed
    gone = shown["payload"] if lost == "payload" else shown["result"][0]
    path_of(comfy, gone).unlink()
    again = run_graph(viewer_graph())
    assert again.executed == ["viewer"]
    (now,) = again.ui["viewer"]["i2am_viewer"]
    assert now["payload"] == shown["payload"]
    for file in (now["payload"], *now["result"], *now["references"][0]):
        assert path_of(comfy, file).is_file()
    assert "viewer" not in run_graph(viewer_graph()).executed


def test_without_pictures(comfy: Any, run_graph: Any) -> None:
    graph = flux_graph(viewer=filled("I2AM_Viewer", attribution=["collect", 0]))
    shown = run_graph(graph).ui["viewer"]["i2am_viewer"][0]
    assert (shown["result"], shown["references"]) == ([], [[]])
    header, _ = unpack(path_of(comfy, shown["payload"]).read_bytes())
    assert header["generated"]["size"] == [64, 48]


def test_masks(comfy: Any, run_graph: Any) -> None:
    over_reference = torch.zeros(1, 40, 48)
    over_reference[:, 10:20, 8:16] = 1
    graph = viewer_graph(reference_mask=["mask", 0]) | {"mask": given("mask", over_reference)}
    run = run_graph(graph)
    assert run.ok, run.errors
    _, arrays = unpack(path_of(comfy, run.ui["viewer"]["i2am_viewer"][0]["payload"]).read_bytes())
    assert torch.equal(arrays["reference_mask.0"] > 0.5, over_reference > 0.5)


def test_a_mask_of_another_size_is_refused_here(run_graph: Any) -> None:
    graph = viewer_graph(reference_mask=["mask", 0])
    run = run_graph(graph | {"mask": given("mask", torch.zeros(1, 48, 40))})
    assert set(run.errors) == {"viewer"}
    assert "mask over reference 1 is 40×48 (width × height)" in run.errors["viewer"]


def test_the_picture_itself(comfy: Any, run_graph: Any) -> None:
    """A picture that attends to itself is shown on both sides and saved once."""
    graph = viewer_graph()
    graph["collect"] = collect(image=["picture", 0])
    run = run_graph(changed(graph, "capture", within="the picture itself"))
    assert run.ok, run.errors
    shown = run.ui["viewer"]["i2am_viewer"][0]
    assert shown["references"] == [shown["result"]]
    header, _ = unpack(path_of(comfy, shown["payload"]).read_bytes())
    assert header["within"]


@pytest.mark.fault(
    "The disk is full while Attribution Viewer writes",
    "The node says so; no partial file is left",
    "Nothing",
)
def test_a_full_disk_says_so(comfy: Any, run_graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    graph = viewer_graph()
    graph["sampler"]["inputs"]["seed"] = 4711
    monkeypatch.setattr(Path, "write_bytes", full)
    run = run_graph(graph)
    assert set(run.errors) == {"viewer"}
    assert "No space left on device. Free some space" in run.errors["viewer"]
