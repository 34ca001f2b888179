"""One real ComfyUI server and a browser, for tests from outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tools.comfyui.server import ROOT, ComfyServer
from tools.comfyui.viewer_page import close_welcome, open_browser, open_empty_page

LOGS = ROOT / "output" / "logs"


@pytest.fixture(scope="session")
def server(comfyui_path: Path) -> Iterator[ComfyServer]:
    with ComfyServer(comfyui_path, log=LOGS / "page.log", threads=1) as server:
        yield server


@pytest.fixture(scope="session")
def shots() -> Path:
    """The folder for screenshots of the page, for viewing."""
    folder = ROOT / "output" / "page"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Per module, not per session: while it is open, no other event loop can run in this thread.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with open_browser() as browser:
            yield browser
    except FileNotFoundError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def empty_page(server: ComfyServer, browser: Browser) -> Iterator[Page]:
    """ComfyUI's page, for tests that put their own graphs on it."""
    errors: list[str] = []
    page = open_empty_page(browser, server, on_error=errors.append)
    close_welcome(page)
    yield page
    page.close()
    assert errors == []
