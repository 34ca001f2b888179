"""One real ComfyUI server for the tests that talk to it from outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_server import ROOT, ComfyServer


@pytest.fixture(scope="session")
def server(comfyui_path: Path) -> Iterator[ComfyServer]:
    with ComfyServer(comfyui_path, log=ROOT / "output" / "logs" / "page.log", threads=1) as server:
        yield server
