"""The support report, copied with one click, in both of the page's renderers."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page, sync_playwright

from i2am import __version__
from tools.comfyui.browser import FLAGS, find_chromium
from tools.comfyui.server import ROOT, ComfyServer
from tools.demo.run import WORKFLOW

SHOTS = ROOT / "output" / "page"
READY = "() => window.app?.graph && window.app.extensionManager"
PATIENCE = 120_000  # milliseconds, for a slow machine
BUTTON = ".i2am-support button"
CLASSIC, NODES_2 = False, True


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    if chromium is None:
        pytest.fail("No Chromium: run python dev.py test", pytrace=False)
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, server: ComfyServer) -> Iterator[Any]:
    """Opens the demo in one of the renderers, on a page with or without clipboard access."""
    contexts = []

    def open_page(renderer: bool, clipboard: bool) -> Page:
        context = browser.new_context(viewport={"width": 1500, "height": 950})
        contexts.append(context)
        allowed = ["clipboard-read", *(["clipboard-write"] if clipboard else [])]
        context.grant_permissions(allowed, origin=server.url)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: pytest.fail(f"script error: {error}"))
        page.goto(server.url)
        page.wait_for_function(READY)
        settings = {"Comfy.VueNodes.Enabled": renderer, "Comfy.RightSidePanel.IsOpen": False}
        page.evaluate(
            "(chosen) => Promise.all(Object.entries(chosen).map(([name, value]) =>"
            " app.extensionManager.setting.set(name, value)))",
            settings,
        )
        page.evaluate("(data) => app.loadGraphData(data)", json.loads(WORKFLOW.read_text("utf-8")))
        page.keyboard.press("Escape")  # closes the templates that a new user sees
        page.get_by_test_id("dialog-overlay").wait_for(state="hidden")
        return page

    yield open_page
    for context in contexts:
        context.close()


def run(page: Page, kind: str, seed: int, layers: str = "") -> None:
    """Presses Run with a seed never used before, and waits for the button on a node of a type."""
    page.evaluate(
        """([seed, layers]) => {
            const set = (kind, name, value) => {
              const node = app.graph.nodes.find((node) => node.type === kind);
              node.widgets.find((widget) => widget.name === name).value = value;
            };
            set('KSampler', 'seed', seed);
            set('I2AM_Capture', 'layers', layers);
        }""",
        [seed, layers],
    )
    page.get_by_test_id("queue-button").first.click()
    page.wait_for_function(
        "(kind) => app.graph.nodes.find((n) => n.type === kind)"
        "?.widgets?.some((w) => w.name === 'i2am_support')",
        arg=kind,
    )
    centre(page, kind)


def centre(page: Page, kind: str) -> None:
    for _ in range(20):  # centred, and still so after the page's own fitting
        moved = page.evaluate(
            """(kind) => {
                const node = app.graph.nodes.find((n) => n.type === kind), view = app.canvas.ds;
                const moved = view.scale !== 1;
                view.scale = 1;
                view.offset[0] = 750 - node.pos[0] - node.size[0] / 2;
                view.offset[1] = 400 - node.pos[1] - node.size[1] / 2;
                app.canvas.setDirty(true, true);
                return moved;
            }""",
            kind,
        )
        page.wait_for_timeout(500)
        if not moved:
            break
    page.locator(BUTTON).wait_for()


def copied(page: Page) -> str:
    """The clipboard's text after one click on the button."""
    page.evaluate("() => navigator.clipboard.writeText('nothing')")
    page.locator(BUTTON).click()
    page.get_by_role("button", name="Copied").wait_for()
    return page.evaluate("() => navigator.clipboard.readText()")


def nothing_of_the_artists(text: str) -> None:
    for word in ("/", "\\", "i2am_demo", ".safetensors", ".png", "seed", "471"):
        # A grid is written with ×, so a slash could only come from a path.
        assert word not in text, f"{word!r} in the support report:\n{text}"


@pytest.mark.parametrize("renderer", [CLASSIC, NODES_2], ids=["classic", "nodes 2.0"])
def test_one_click_copies_it(opened: Any, renderer: bool) -> None:
    page = opened(renderer, clipboard=True)
    run(page, "I2AM_Collect", 4711 + renderer)
    text = copied(page)
    page.screenshot(path=SHOTS / f"support_{'nodes2' if renderer else 'classic'}.png")
    assert f"ComfyUI-I2AM {__version__}, ComfyUI " in text
    assert f"Python {platform.python_version()}, torch {torch.__version__}" in text
    assert f"System: {sys.platform}; device: cpu; " in text
    assert "attention: attention_" in text
    assert "Model: Flux (Flux)" in text
    assert "Recorded 20 of 20 model evaluations" in text
    assert "Warning: none" in text
    assert "Page: frontend " in text
    assert ("Nodes 2.0" if renderer else "classic nodes") in text
    nothing_of_the_artists(text)
    page.reload()
    page.wait_for_function(READY)
    page.wait_for_function("() => app.graph.nodes.length > 5")
    centre(page, "I2AM_Collect")
    assert copied(page) == text, "the page forgets it when it is loaded again"


def test_a_refused_recording_has_one_too(opened: Any) -> None:
    page = opened(CLASSIC, clipboard=True)
    run(page, "I2AM_Collect", 4713, layers="77")
    page.keyboard.press("Escape")  # ComfyUI's own report of the error
    text = copied(page)
    page.screenshot(path=SHOTS / "support_refused.png")
    assert "Model: Flux (Flux), not recorded" in text
    assert "Failed: Nothing was recorded" in text
    nothing_of_the_artists(text)


def test_without_a_clipboard(opened: Any) -> None:
    """Like a page that is not served securely: a selection is copied, or else the text is shown."""
    page = opened(CLASSIC, clipboard=True)
    run(page, "I2AM_Collect", 4714)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }")
    page.locator(BUTTON).click()
    page.get_by_role("button", name="Copied").wait_for()
    assert "ComfyUI-I2AM" in page.evaluate("() => navigator.clipboard.readText()")
    page.evaluate("() => { document.execCommand = () => false; }")
    page.locator(BUTTON).click()
    shown = page.get_by_label("Support report")
    shown.wait_for()
    assert "ComfyUI-I2AM" in shown.input_value()
    page.screenshot(path=SHOTS / "support_by_hand.png")
