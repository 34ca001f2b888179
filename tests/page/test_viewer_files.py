"""The viewer's files as served to the page by ComfyUI's own /view, byte for byte."""

from __future__ import annotations

import hashlib
import io
import json
import urllib.error

import pytest
from payloads import unpack
from PIL import Image

from tools.comfyui.server import ComfyServer
from tools.demo.run import WORKFLOW
from tools.workflows.api_prompt import find, only, to_prompt


def test_files_of_the_demo(server: ComfyServer) -> None:
    prompt = to_prompt(json.loads(WORKFLOW.read_text("utf-8")), server.get_json("/object_info"))
    collect = find(prompt, "I2AM_Collect")
    prompt["viewer"] = {"class_type": "I2AM_Viewer", "inputs": {"attribution": [collect, 0]}}
    (shown,) = server.run(only(prompt, "viewer"))["viewer"]["i2am_viewer"]

    payload = server.download(shown["payload"])
    assert len(payload) == shown["bytes"]
    name = hashlib.blake2b(payload, digest_size=16).hexdigest()
    assert shown["payload"]["filename"] == f"{name}.i2am"
    header, arrays = unpack(payload)
    assert header["pooled"] == []
    assert len(header["steps"]) == 20
    assert header["definition"] == "model"
    assert "correspondence.model.1" in arrays

    sides = [header["generated"], *header["references"]]
    for side, files in zip(sides, [shown["result"], *shown["references"]], strict=True):
        with Image.open(io.BytesIO(server.download(files[0]))) as picture:
            assert [picture.height, picture.width] == side["size"]


def test_a_file_that_is_gone(server: ComfyServer) -> None:
    """A request after ComfyUI emptied its folder is answered "not found"."""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        server.download({"filename": f"{'0' * 32}.i2am", "subfolder": "i2am", "type": "temp"})
