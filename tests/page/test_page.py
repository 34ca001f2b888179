"""The demo as an artist meets it: real ComfyUI, real browser, template opened, Run pressed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Page, sync_playwright

from tools.comfyui.browser import FLAGS, find_chromium
from tools.comfyui.server import PACK, ROOT, ComfyServer
from tools.workflows.catalog import MODEL_WORKFLOWS, WORKFLOWS

SHOTS = ROOT / "output" / "page"
TEMPLATE = "i2am_01_demo"
READY = "() => window.app?.graph && window.app.extensionManager"
PATIENCE = 120_000  # milliseconds, for a slow machine
# The page first asks for a help text in its language, then for the English one.
TRANSLATED = re.compile(r"/docs/\w+/\w+\.md")
WIDE = {"width": 1600, "height": 1000}
SORT_TEMPLATES = "(by) => app.extensionManager.setting.set('Comfy.Templates.SortBy', by)"

# The pictures of our map nodes: their sizes, and how much their pixels vary.
MAP_PICTURES = """
() => app.graph.nodes.filter((node) => node.type === 'I2AM_Map').map((node) =>
  (node.imgs ?? []).map((image) => {
    if (!image.complete || !image.naturalWidth) return null;
    const canvas = document.createElement('canvas');
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const bright = data.filter((_, index) => index % 4 === 0).sort();
    return [canvas.width, canvas.height, bright[bright.length - 1] - bright[0]];
  }))
"""


@dataclass
class Visit:
    """An open page, and the errors this pack caused on it."""

    page: Page
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def visit(server: ComfyServer) -> Iterator[Visit]:
    """ComfyUI's loaded page; the tests of this module use it in order."""
    chromium = find_chromium()
    if chromium is None:
        named = os.environ.get("CHROMIUM", "nothing")
        pytest.fail(f"No Chromium (CHROMIUM is {named}): run python dev.py test", pytrace=False)
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=list(FLAGS))
        page = browser.new_page(viewport=WIDE)  # type: ignore[arg-type]
        page.set_default_timeout(PATIENCE)
        visit = Visit(page)
        listen(visit)
        page.goto(server.url)
        page.wait_for_function(READY)
        # On a first visit the page shows the templates and its own graph: late, on a busy machine.
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(1500)
        page.keyboard.press("Escape")
        page.get_by_test_id("dialog-overlay").wait_for(state="hidden")
        yield visit
        browser.close()


def listen(visit: Visit) -> None:
    """Collects script errors, and console errors and missing files that concern this pack."""
    page, complaints = visit.page, visit.complaints

    def ours(*texts: str) -> bool:
        return any("i2am" in text.lower() for text in texts)

    page.on("pageerror", lambda error: complaints.append(f"script error: {error}"))
    page.on(
        "console",
        lambda message: (
            complaints.append(f"console: {message.text}")
            if message.type == "error"
            and ours(message.text, message.location.get("url", ""))
            and not TRANSLATED.search(message.location.get("url", ""))
            else None
        ),
    )
    page.on(
        "response",
        lambda answer: (
            complaints.append(f"{answer.status}: {answer.url}")
            if answer.status >= 400 and ours(answer.url) and not TRANSLATED.search(answer.url)
            else None
        ),
    )


def test_sorted_by_name_the_demo_comes_first(visit: Visit) -> None:
    """By default ComfyUI lists templates in file system order: by name only on some systems."""
    page = visit.page
    page.evaluate(SORT_TEMPLATES, "alphabetical")
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(PACK, exact=True).first.click()
    page.get_by_role("heading", name=TEMPLATE).wait_for()
    offered = page.get_by_role("heading", name=re.compile("^i2am_")).all_inner_texts()
    assert offered == sorted(workflow.name for workflow in (*WORKFLOWS, *MODEL_WORKFLOWS))
    assert offered[0] == TEMPLATE
    page.keyboard.press("Escape")
    page.get_by_role("heading", name=TEMPLATE).wait_for(state="hidden")
    page.evaluate(SORT_TEMPLATES, "default")


def test_the_template_opens_from_the_dialog(visit: Visit) -> None:
    page = visit.page
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(PACK, exact=True).first.click()
    card = page.get_by_role("heading", name=TEMPLATE)
    card.wait_for()
    page.screenshot(path=SHOTS / "templates.png")
    card.click()
    page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'I2AM_Map')")
    page.wait_for_timeout(500)
    missing = page.evaluate(
        "() => app.graph.nodes.filter((n) => n.has_errors || n.type === 'Unknown').map((n) => n.id)"
    )
    assert missing == []
    page.screenshot(path=SHOTS / "opened.png")


def test_run_shows_pictures_on_the_maps(visit: Visit, server: ComfyServer) -> None:
    page = visit.page
    page.get_by_test_id("queue-button").first.click()
    page.wait_for_function(f"() => ({MAP_PICTURES})().every((found) => found.length && found[0])")
    maps = page.evaluate(MAP_PICTURES)
    assert len(maps) == 2
    for pictures in maps:
        for width, height, contrast in pictures:
            assert width >= 384, "a small map must be shown large enough to see"
            assert height >= 384
            assert contrast > 100, "the overlay is nearly one colour"
    entry = list(server.get_json("/history").values())[-1]
    assert entry["status"]["status_str"] == "success", entry["status"]
    page.wait_for_function(
        "() => app.graph.nodes.some((node) => node.type === 'PreviewAny' &&"
        " node.widgets?.some((widget) => String(widget.value).includes('IMACS')))"
    )
    page.wait_for_timeout(500)
    page.screenshot(path=SHOTS / "run.png")


def test_the_scores_of_the_last_runs_stay_on_the_node(visit: Visit) -> None:
    """Also, what a node shows is not a saved value: it would take the place of a later input."""
    found = visit.page.evaluate(
        """() => {
            const node = app.graph.nodes.find((node) => node.type === 'I2AM_IMACS');
            const table = node.widgets.find((w) => w.name === 'i2am_imacs_history').element;
            const saved = app.graph.serialize().nodes.filter((n) => n.type.startsWith('I2AM_'));
            return {
                rows: [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent)),
                kept: node.properties.i2am_imacs_history.length,
                // Values of widgets that are no inputs, such as what a panel shows.
                more: saved.filter((n) => n.widgets_values?.length
                    > app.graph.getNodeById(n.id).inputs.filter((input) => input.widget).length)
                    .map((n) => n.type),
            };
        }"""
    )
    assert found["kept"] == 1
    assert found["rows"][0] == ["result", "reference", "last runs"]
    result, reference, settings = found["rows"][1]
    assert result.startswith("+")
    assert reference.startswith("+")
    assert "λ 3" in settings
    assert found["more"] == []


def test_the_help_of_every_node_is_there(server: ComfyServer) -> None:
    nodes = {
        name: info for name, info in server.get_json("/object_info").items() if "I2AM_" in name
    }
    assert nodes
    for name, info in nodes.items():
        text = server.get(f"/extensions/{PACK}/docs/{name}.md").decode()
        assert info["display_name"].partition(" (")[0] in text, f"{name}.md is of another node"
        assert info["description"], f"{name} has no description"


def test_the_help_opens_in_the_page(visit: Visit) -> None:
    page = visit.page
    page.evaluate(
        """() => {
            const node = app.graph.nodes.find((node) => node.type === 'I2AM_Map');
            app.canvas.selectNode(node, false);
        }"""
    )
    page.wait_for_timeout(500)
    page.get_by_test_id("info-button").click()
    heading = page.get_by_role("heading", name="Attribution Map").first
    heading.wait_for()
    picture = page.get_by_role("img", name="Attribution Map").first
    picture.wait_for()
    page.wait_for_timeout(500)
    assert picture.evaluate("(picture) => picture.naturalWidth") > 0, "the picture is not found"
    page.screenshot(path=SHOTS / "help.png")


def test_nothing_of_ours_went_wrong(visit: Visit) -> None:
    assert visit.complaints == []
