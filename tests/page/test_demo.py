"""The demo workflow through the server's API, as `python dev.py demo` runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from tools.comfyui.server import ComfyServer, ServerError
from tools.demo.run import WORKFLOW, run_demo
from tools.workflows.api_prompt import find, to_prompt

FAITHFUL_DB = 20.0  # in the hole; a wrong reference gives about 10


def test_the_demo_gives_pictures_record_and_numbers(server: ComfyServer, tmp_path: Path) -> None:
    report = run_demo(server, tmp_path / "demo")

    assert report == json.loads((tmp_path / "demo" / "report.json").read_text("utf-8"))
    assert report["psnr_in_mask"] > FAITHFUL_DB
    assert report["imacs_generated"] > 0
    assert report["imacs_reference"] > 0
    share = report["share"]
    assert share["text"] + share["self"] + sum(share["references"]) == pytest.approx(1, abs=1e-3)
    assert len(share["references"]) == 2
    coverage = report["coverage"]
    assert coverage["evaluations"] == coverage["expected_evaluations"] == 20
    assert coverage["layers"] == coverage["expected_layers"]
    assert 0 < report["seconds"]["sample_plain"]
    assert 0 < report["seconds"]["sample"]

    for name in ("result.png", "reference.png", "r2g.png", "g2r.png", "overview.png"):
        with Image.open(tmp_path / "demo" / name) as picture:
            assert min(picture.size) >= 128
    (record,) = (tmp_path / "demo").glob("*.safetensors")
    with safe_open(record, "np") as file:
        assert file.metadata()["format"] == "i2am.attribution/1"


def test_a_refused_prompt_says_which_node_and_why(server: ComfyServer) -> None:
    prompt = to_prompt(json.loads(WORKFLOW.read_text("utf-8")), server.get_json("/object_info"))
    prompt[find(prompt, "VAELoader")]["inputs"]["vae_name"] = "missing.safetensors"
    with pytest.raises(ServerError, match=r"VAELoader .*missing\.safetensors"):
        server.run(prompt)


def test_a_failing_node_is_named(server: ComfyServer) -> None:
    prompt = to_prompt(json.loads(WORKFLOW.read_text("utf-8")), server.get_json("/object_info"))
    node = find(prompt, "I2AM_Map", direction="generated to reference")
    prompt[node]["inputs"]["reference"] = 7
    with pytest.raises(ServerError, match=rf"I2AM_Map \({node}\): Reference 7 does not exist"):
        server.run(prompt)
