"""What all tests share: one torch thread, and one way to find ComfyUI and the browser."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tools.comfyui import in_process

# How fast a busy machine draws examples says nothing about what is tested.
settings.register_profile("i2am", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("i2am")

# The pictures are tiny: more threads only fight with each other and with the next test.
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """The marks docs/reliability.md is written from (tools/docs/reliability_page.py)."""
    for mark, text in (
        ("fault(what, happens, lost)", "what can go wrong while sampling or filing"),
        ("neighbour(what, happens)", "what stands beside us on a model"),
        ("bad_input(what, happens)", "what a node can be given that it must refuse"),
    ):
        config.addinivalue_line("markers", f"{mark}: {text}")


class _Scheduler(LoadFileScheduling):
    """The tests of a file share what they prepare, and all tests of the page share one server."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "page" if "page" in Path(file).parts else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """What stays in one process when tests run side by side."""
    return _Scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed, as text that can be sent to another process: half a letter becomes ?."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "replace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    """The ComfyUI under test. Tests that need it fail without it: a skip would hide the hole."""
    path = in_process.comfyui_path()
    if not (path / "main.py").is_file():
        pytest.fail(f"No ComfyUI in {path}: run python dev.py test", pytrace=False)
    return path
