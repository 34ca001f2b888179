"""Every example workflow: it runs as it is, or needs model files and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tools.comfyui.server import ROOT, ComfyServer, ServerError
from tools.demo.run import WORKFLOW
from tools.workflows.api_prompt import find, to_prompt
from tools.workflows.catalog import MODEL_WORKFLOWS, WORKFLOWS
from tools.workflows.make import FOLDER, PICTURES

NAMES = [workflow.name for workflow in WORKFLOWS]
MODEL_NAMES = [workflow.name for workflow in MODEL_WORKFLOWS]
# Those with only stock nodes and ours.
STOCK_NAMES = [workflow.name for workflow in MODEL_WORKFLOWS if not workflow.packs]
# The other packs' nodes, as their packs define them.
OTHERS_NODES = {"IPAdapterUnifiedLoader", "IPAdapterAdvanced"}


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def ran(server: ComfyServer, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The prompt of a workflow, and what its nodes showed."""
    prompt = to_prompt(read(name), server.get_json("/object_info"))
    return prompt, server.run(prompt)


def test_every_file_is_in_the_table_and_back() -> None:
    files = {path.stem for path in FOLDER.glob("*.json")}
    assert files == {*NAMES, *MODEL_NAMES}


@pytest.mark.parametrize("name", [name for name in NAMES if name != WORKFLOW.stem])
def test_it_runs_as_it_is(server: ComfyServer, name: str) -> None:
    """Every node that shows or saves something does so. (The demo is run by test_demo.py.)"""
    prompt, outputs = ran(server, name)
    assert outputs
    for node, found in prompt.items():
        if found["class_type"] in ("SaveImage", "I2AM_Map", "I2AM_Compare", "I2AM_ToMask"):
            assert outputs[node]["images"], found["_meta"]["title"]


@pytest.mark.parametrize("name", [*NAMES, *MODEL_NAMES])
def test_its_picture_brings_it_along(name: str) -> None:
    with Image.open(FOLDER / f"{name}.jpg") as thumbnail:
        assert min(thumbnail.size) >= 256
    with Image.open(PICTURES / f"{name}.png") as picture:
        assert json.loads(picture.info["workflow"]) == read(name)
        assert json.loads(picture.info["prompt"])


@pytest.mark.parametrize("name", [*NAMES, *MODEL_NAMES])
def test_groups_hold_their_nodes_and_nothing_overlaps(name: str) -> None:
    workflow = read(name)
    title = 30  # pixels above a node
    boxes = [
        (x, y - title, x + width, y + height)
        for (x, y), (width, height) in ((node["pos"], node["size"]) for node in workflow["nodes"])
    ]
    for number, one in enumerate(boxes):
        for other in boxes[:number]:
            apart = one[2] <= other[0] or other[2] <= one[0]
            assert apart or one[3] <= other[1] or other[3] <= one[1], (one, other)
    groups = [
        (x, y, x + width, y + height)
        for x, y, width, height in (group["bounding"] for group in workflow["groups"])
    ]
    for left, top, right, bottom in boxes:
        homes = [
            g for g in groups if g[0] <= left and g[1] <= top and g[2] >= right and g[3] >= bottom
        ]
        assert len(homes) == 1
    notes = [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    assert len(notes) == 1
    assert notes[0]["widgets_values"][0].startswith("# ")


@pytest.mark.parametrize("name", sorted(set(MODEL_NAMES) - set(STOCK_NAMES)))
def test_only_other_packs_and_their_wires_are_unknown(server: ComfyServer, name: str) -> None:
    """Every node is ComfyUI's, ours or listed here, and every wire joins sockets of one type."""
    info, workflow = server.get_json("/object_info"), read(name)
    kinds = {node["type"] for node in workflow["nodes"]}
    assert kinds - info.keys() - {"MarkdownNote"} == OTHERS_NODES
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, origin, out, target, into, kind in workflow["links"]:
        assert nodes[origin]["outputs"][out]["type"] == kind
        assert nodes[target]["inputs"][into]["type"] in (kind, "*")


@pytest.mark.parametrize("name", STOCK_NAMES)
def test_only_model_files_are_missing(server: ComfyServer, name: str) -> None:
    """ComfyUI knows its nodes, inputs and wires, and refuses it only for missing files."""
    info = server.get_json("/object_info")
    prompt = to_prompt(read(name), info)
    with pytest.raises(ServerError) as refused:
        server.run(prompt)
    complaints = str(refused.value).splitlines()[1:]
    assert complaints
    for complaint in complaints:
        assert "Value not in list" in complaint or "example.png" in complaint, complaint
    wanted = {line.partition(" (")[0].strip() for line in complaints}
    for loader in ("UNETLoader", "VAELoader"):
        assert loader in wanted


class TestWhatTheySay:
    """The statements in the notes hold."""

    def test_the_mistake_shows_in_the_score(self, server: ComfyServer) -> None:
        """Here 0.70 and 0.06; the means of 16 scenes are 0.69 and −0.05, with B above 0 in 6."""
        prompt, outputs = ran(server, "i2am_02_inpaint_debug")
        scores = {
            found["_meta"]["title"]: outputs[node]["i2am"][0]["imacs_generated"][0]
            for node, found in prompt.items()
            if found["class_type"] == "I2AM_IMACS"
        }
        assert scores["A · IMACS"] > 0.4
        assert abs(scores["B · IMACS"]) < 0.15, "about 0, as its note says"

    def test_try_on_scores_well_on_both_sides(self, server: ComfyServer) -> None:
        prompt, outputs = ran(server, "i2am_03_try_on")
        shown = outputs[find(prompt, "I2AM_IMACS", preset="paper")]["i2am"][0]
        assert shown["imacs_generated"][0] > 0
        assert shown["imacs_reference"][0] > 0

    def test_eight_tries_are_ranked_and_none_is_lost(self, server: ComfyServer) -> None:
        prompt, outputs = ran(server, "i2am_06_best_of_eight")
        assert len(outputs[find(prompt, "PreviewImage")]["images"]) == 7
        assert len(outputs[find(prompt, "I2AM_PickBest")]["images"]) == 1

    def test_a_reference_turned_down_is_used_less(self, server: ComfyServer) -> None:
        prompt, outputs = ran(server, "i2am_07_reference_strength")
        text = outputs[find(prompt, "I2AM_Compare")]["i2am_text"][0]
        before, _, after = text.partition("attention: ")[2].partition(" (")[0].partition(" → ")
        assert float(after.rstrip("%")) < 0.5 * float(before.rstrip("%"))

    def test_the_map_tells_the_truth(self, server: ComfyServer) -> None:
        prompt, outputs = ran(server, "i2am_08_truth_test")
        assert "tells the truth" in outputs[find(prompt, "I2AM_TruthTest")]["i2am_text"][0]

    def test_the_reference_that_made_the_picture_fits_better(self, server: ComfyServer) -> None:
        prompt, outputs = ran(server, "i2am_15_probe")
        fits = {
            found["_meta"]["title"]: float(outputs[node]["text"][0])
            for node, found in prompt.items()
            if found["class_type"] == "PreviewAny" and found["inputs"]["source"][1] == 1
        }
        assert fits["Fit with the reference"] > 0.9
        assert fits["Fit with the other one"] < 0.7

    def test_words_and_reference_are_ranked_together(self, server: ComfyServer) -> None:
        """The reference has most: it has 64 tokens. Each word has a share of its own."""
        prompt, outputs = ran(server, "i2am_16_which_word")
        ranking = outputs[find(prompt, "I2AM_Words")]["i2am_text"][0]
        shares = {
            name: float(share)
            for name, share in re.findall(r"^  (.+?) ([\d.]+)%", ranking, re.MULTILINE)
        }
        assert shares.keys() == {
            "a",
            "red",
            "circle",
            "reference 1",
            "all other tokens of the prompt",
        }
        words = [shares[word] for word in ("a", "red", "circle")]
        assert shares["reference 1"] > sum(words) > 3 * min(words) > 3


def test_the_pictures_are_with_the_pack() -> None:
    """Every picture a workflow loads comes with it."""
    inputs = {path.name for path in (Path(ROOT) / "example_workflows" / "inputs").iterdir()}
    for name in NAMES:
        for node in read(name)["nodes"]:
            if node["type"] in ("LoadImage", "LoadImageMask"):
                assert node["widgets_values"][0] in inputs
