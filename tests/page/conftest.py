"""One real ComfyUI server and a browser, for the tests that talk to it from outside."""

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
    """Where screenshots go: what the page looked like, to be looked at."""
    folder = ROOT / "output" / "page"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Of a module, not of the session: while it is open, no other event loop can run in this thread.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with open_browser() as browser:
            yield browser
    except FileNotFoundError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def empty_page(server: ComfyServer, browser: Browser) -> Iterator[Page]:
    """ComfyUI's page, for tests that put graphs of their own on it."""
    errors: list[str] = []
    page = open_empty_page(browser, server, on_error=errors.append)
    close_welcome(page)
    yield page
    page.close()
    assert errors == []
