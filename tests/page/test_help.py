"""Every help page in ComfyUI's own panel, in every language: its pictures load, it has no link."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tools.comfyui.server import ROOT, ComfyServer
from tools.comfyui.viewer_page import PATIENCE, READY, SETTINGS, settled

DOCS = ROOT / "web" / "docs"
NODES = sorted(page.stem for page in DOCS.glob("*.md"))
LANGUAGES = ("en", "zh", "ja", "ko")
HELP = ".node-help-content"
ADD = """(names) => {
    app.graph.clear();
    for (const name of names) {
        const node = LiteGraph.createNode(name);
        node.pos = [400, 300];
        app.graph.add(node);
    }
}"""
SELECT = """(name) => app.canvas.selectNode(
    app.graph.nodes.find((node) => node.type === name), false)"""
SHOWS = """([help, title]) => document.querySelector(`${help} h1`)?.innerText === title
    && [...document.querySelectorAll(`${help} img`)].every((picture) => picture.complete)"""
FOUND = """(help) => ({
    links: [...document.querySelectorAll(`${help} a`)].map((link) => link.outerHTML),
    pictures: [...document.querySelectorAll(`${help} img`)].map((image) => image.naturalWidth),
})"""


@pytest.fixture(scope="module")
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """ComfyUI's page, set back to English after these tests."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(PATIENCE)
    page.goto(server.url)
    page.wait_for_function(READY)
    choose(page, **SETTINGS, **{"Comfy.TutorialCompleted": True})  # no templates over the nodes
    yield page
    choose(page, **{"Comfy.Locale": "en"})
    page.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_is_whole(page: Page, language: str) -> None:
    choose(page, **{"Comfy.Locale": language})
    page.reload()
    page.wait_for_function(READY)
    settled(page)  # the page has opened its own first workflow
    page.evaluate(ADD, NODES)
    page.evaluate(SELECT, NODES[0])
    page.get_by_test_id("info-button").click()
    for name in NODES:
        file = DOCS / f"{name}.md" if language == "en" else DOCS / name / f"{language}.md"
        title = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        page.evaluate(SELECT, name)
        page.wait_for_function(SHOWS, arg=[HELP, title])
        found = page.evaluate(FOUND, HELP)
        assert found["links"] == [], name
        assert len(found["pictures"]) == 1, name
        assert found["pictures"][0] > 0, name


def choose(page: Page, **settings: object) -> None:
    """Sets ComfyUI's own settings."""
    page.evaluate(
        "(chosen) => Promise.all(Object.entries(chosen).map(([name, value]) =>"
        " app.extensionManager.setting.set(name, value)))",
        settings,
    )
