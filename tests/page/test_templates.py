"""ComfyUI's own templates, one for each kind of reference: watched in the page, and run.

`python dev.py templates` does the same with all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tools.comfyui.server import ROOT, ComfyServer
from tools.comfyui.viewer_page import close_welcome, open_empty_page
from tools.templates.official import one_of_each, with_reference
from tools.templates.run import try_out
from tools.templates.server import template_server

LISTED = (ROOT / "docs" / "templates.md").read_text("utf-8")
CHOSEN = dict(one_of_each())


@pytest.fixture(scope="module")
def server(comfyui_path: Path) -> Iterator[ComfyServer]:
    with template_server(comfyui_path, ROOT / "output" / "logs" / "templates.log") as server:
        yield server


@pytest.fixture(scope="module")
def page(server: ComfyServer, browser: Browser) -> Iterator[Page]:
    page = open_empty_page(browser, server)
    close_welcome(page)
    yield page
    page.close()


@pytest.mark.parametrize("name", CHOSEN)
def test_a_template(page: Page, server: ComfyServer, name: str) -> None:
    """The picture is the same to the last bit, every reference picture matches its tokens, and the
    graph is restored. Or nothing was added, and docs/templates.md says why."""
    outcome = try_out(page, server, name, CHOSEN[name])
    assert outcome.restored
    assert outcome.misplaced == ()
    (row,) = (line for line in LISTED.splitlines() if line.startswith(f"| `{name}` |"))
    if outcome.is_read:
        assert outcome.same is True
        assert outcome.references > 0
        assert f"| {outcome.family} | {outcome.samplers} | {outcome.references} | read;" in row
    else:
        reason = outcome.refused or outcome.said
        assert reason
        assert reason in row


def test_all_templates_with_a_reference_are_listed() -> None:
    assert {line.split("`")[1] for line in LISTED.splitlines() if line.startswith("| `")} == {
        name for name, _ in with_reference()
    }
