"""One tiny Ray for all tests that need it; the workflow of tiny_workflow.py, planned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_workflow import OBJECT_INFO, prompt

from tools.evaluate.cluster import ray_session
from tools.evaluate.plan import Plan, Settings, Workflow, read_table, read_workflow


@pytest.fixture
def write_workflow(tmp_path: Path) -> Callable[..., Path]:
    """Writes a prompt (by default the one above) as a workflow file."""

    def write(nodes: Any = None) -> Path:
        path = tmp_path / "workflow.json"
        path.write_text(json.dumps(prompt() if nodes is None else nodes))
        return path

    return write


@pytest.fixture
def workflow(write_workflow: Callable[..., Path]) -> Workflow:
    """The workflow above, read."""
    return read_workflow(write_workflow(), OBJECT_INFO)


@pytest.fixture
def make_plan(workflow: Workflow, write_pictures: None, tmp_path: Path) -> Callable[[str], Plan]:
    """A plan of the workflow above and a table given as CSV text."""

    def make(text: str, **settings: Any) -> Plan:
        path = tmp_path / "pairs.csv"
        path.write_text(text)
        facts = {"pack": "1", "comfyui": "2", "device": "cpu", "threads": 1, "lpips": ""}
        known = {"one.safetensors": "1111", "two.safetensors": "2222"}
        return Plan.make(
            workflow,
            read_table(path),
            Settings(**(facts | settings)),
            lambda names: {name: known[name] for name in names if name in known},
            [tmp_path],
        )

    return make


@pytest.fixture
def write_pictures(tmp_path: Path) -> None:
    """a.png and b.png, which are whole, and broken.png, which ends in the middle."""
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (32, 32), colour).save(tmp_path / name)
    noise = tmp_path / "noise.png"
    Image.effect_noise((64, 64), 80).save(noise)
    (tmp_path / "broken.png").write_bytes(noise.read_bytes()[:1500])


@pytest.fixture(scope="session")
def ray_here() -> Iterator[Any]:
    """A Ray of two cores in this process; evaluations use it as they find it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # a busy machine would starve the workers
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # stub_worker.py
        with ray_session(None, 2) as ray:
            yield ray
