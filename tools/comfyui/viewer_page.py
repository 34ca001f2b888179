"""ComfyUI's page with an Attribution Viewer on it, operated as a person would.

For the page tests and for tools/docs/viewer_picture.py.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from torch import Tensor

from tools.comfyui.browser import FLAGS, find_chromium
from tools.comfyui.server import ComfyServer
from tools.demo.run import WORKFLOW
from tools.demo.save_pictures import demo_scene
from tools.demo.scenes import TOKEN

READY = "() => window.app?.graph && window.app.extensionManager"
SHOWN = '.i2am-viewer[data-state="ready"]'
PATIENCE = 120_000  # milliseconds, for a slow machine
VIEWPORT: Any = {"width": 1500, "height": 950}
DENSITY = 2  # pixels of the screen for one CSS pixel
NODE = "app.graph.nodes.find((node) => node.type === 'I2AM_Viewer')"
# A new user's settings, without the panels of the page that would cover the viewer.
SETTINGS = {
    "Comfy.RightSidePanel.IsOpen": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.VueNodes.Enabled": False,
    "Comfy.ColorPalette": "dark",
}


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium; raises FileNotFoundError where there is none."""
    chromium = find_chromium()
    if chromium is None:
        named = os.environ.get("CHROMIUM", "nothing")
        raise FileNotFoundError(f"No Chromium (CHROMIUM is {named}): run python dev.py test")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def demo_workflow() -> dict[str, Any]:
    """The demo workflow as its file holds it."""
    return json.loads(WORKFLOW.read_text("utf-8"))


def open_page(
    browser: Browser,
    server: ComfyServer,
    workflow: dict[str, Any] | None = None,
    *,
    on_error: Callable[[str], None] = print,
    settings: dict[str, Any] | None = None,
) -> Page:
    """A new page with a workflow on it (by default the demo) and the viewer in the middle.

    settings: ComfyUI's, added to SETTINGS. on_error: called with the error of a failed script.
    """
    page = open_empty_page(browser, server, on_error=on_error, settings=settings)
    load(page, demo_workflow() if workflow is None else workflow)
    page.keyboard.press("Escape")  # closes the templates that a new user sees
    page.get_by_test_id("dialog-overlay").wait_for(state="hidden")
    centre(page)
    return page


def open_empty_page(
    browser: Browser,
    server: ComfyServer,
    *,
    on_error: Callable[[str], None] = print,
    settings: dict[str, Any] | None = None,
) -> Page:
    """A new page, as ComfyUI first shows it. settings, on_error: as for `open_page`."""
    page = browser.new_page(viewport=VIEWPORT, device_scale_factor=DENSITY)
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: on_error(f"script error: {error}"))
    page.goto(server.url)
    page.wait_for_function(READY)
    page.evaluate(
        "(chosen) => Promise.all(Object.entries(chosen).map(([name, value]) =>"
        " app.extensionManager.setting.set(name, value)))",
        SETTINGS | (settings or {}),
    )
    return page


def close_welcome(page: Page) -> None:
    """Closes what a new user sees first: the templates, which appear late on a busy machine."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)
    overlay = page.get_by_test_id("dialog-overlay")
    for _ in range(20):
        page.keyboard.press("Escape")
        page.wait_for_timeout(300)
        if not overlay.is_visible():
            return
    raise TimeoutError("the dialog of a first visit does not close")


def load(page: Page, workflow: dict[str, Any]) -> None:
    """Opens a workflow that has a viewer."""
    page.evaluate("(data) => app.loadGraphData(data)", workflow)
    page.wait_for_function(f"() => {NODE}")


def centre(page: Page, scale: float = 1) -> None:
    """Moves the viewer to the middle, until the page's own fitting no longer moves it away."""
    for _ in range(20):
        moved = page.evaluate(
            f"""([scale, width, height]) => {{
                const node = {NODE}, view = app.canvas.ds;
                const moved = view.scale !== scale;
                view.scale = scale;
                view.offset[0] = width / 2 / scale - node.pos[0] - node.size[0] / 2;
                view.offset[1] = (height / 2 + 25) / scale - node.pos[1] - node.size[1] / 2;
                app.canvas.setDirty(true, true);
                return moved;
            }}""",
            [scale, VIEWPORT["width"], VIEWPORT["height"]],
        )
        page.wait_for_timeout(700)
        if not moved:
            return
    raise TimeoutError("the page never stops moving its view")


def set_seed(page: Page, seed: int) -> None:
    """Sets the seed of the KSampler on the page."""
    page.evaluate(
        """(seed) => {
            const sampler = app.graph.nodes.find((node) => node.type === 'KSampler');
            sampler.widgets.find((widget) => widget.name === 'seed').value = seed;
        }""",
        seed,
    )


def press_run(page: Page) -> None:
    """Presses Run and waits until the viewer shows the new result."""
    with page.expect_response(lambda answer: ".i2am" in answer.url):
        page.get_by_test_id("queue-button").first.click()
    page.wait_for_selector(SHOWN)
    settled(page)


def run(page: Page, seed: int) -> None:
    set_seed(page, seed)
    press_run(page)


def settled(page: Page) -> None:
    """Waits until pictures have loaded and the requested maps are painted."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(400)


def point(page: Page, side: int, x: float, y: float) -> None:
    """Moves the pointer to (x, y) in 0..1 of the result (side 0) or of the reference (side 1)."""
    box = page.locator(".i2am-box").nth(side).bounding_box()
    assert box
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.wait_for_timeout(100)


def leave(page: Page) -> None:
    """Moves the pointer off the viewer."""
    page.mouse.move(750, 60)
    page.wait_for_timeout(200)


def press(page: Page, name: str) -> None:
    """Clicks a button of the viewer."""
    button(page, name).click()
    page.wait_for_timeout(150)


def button(page: Page, name: str) -> Locator:
    return page.locator(".i2am-viewer").get_by_role("button", name=name, exact=True)


def sentence(page: Page) -> str:
    """The sentence in which the viewer says what it shows."""
    page.wait_for_timeout(150)  # it is painted in the next frame
    return page.locator(".i2am-sentence").inner_text()


def state(page: Page) -> dict[str, Any]:
    """The state of the viewer that is saved in the workflow."""
    return page.evaluate(f"() => {NODE}.properties.i2am_view")


def picture(page: Page) -> np.ndarray:
    """A shot of both boxes, side by side: (height, width, 3)."""
    shots = [page.locator(".i2am-box").nth(side).screenshot() for side in (0, 1)]
    return np.hstack([np.array(Image.open(io.BytesIO(shot)).convert("RGB")) for shot in shots])


def as_executed(server: ComfyServer, name: str, payload: bytes, pictures: Tensor) -> dict[str, Any]:
    """Writes a payload and its pictures where the node does; returns what the page is sent.

    pictures: (pictures, height, width, 3) in 0..1, used for the result and for its one reference.
    """
    folder = server.base / "temp" / "i2am"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.i2am").write_bytes(payload)
    files: list[dict[str, str]] = []
    for number, one in enumerate(pictures):
        file = {"filename": f"{name}_{number}.png", "subfolder": "", "type": "temp"}
        Image.fromarray((one * 255).byte().numpy()).save(server.base / "temp" / file["filename"])
        files.append(file)
    return {
        "payload": {"filename": f"{name}.i2am", "subfolder": "i2am", "type": "temp"},
        "result": files,
        "references": [files],
        "bytes": len(payload),
    }


def show(page: Page, output: dict[str, Any]) -> float:
    """Hands an output to the viewer as a finished run does; milliseconds until a map is painted."""
    return page.evaluate(
        f"""async (output) => {{
            const canvas = document.querySelector('.i2am-heat'), start = performance.now();
            canvas.width = 0;
            {NODE}.onExecuted({{ i2am_viewer: [output] }});
            while (!canvas.width) await new Promise(requestAnimationFrame);
            return performance.now() - start;
        }}""",
        output,
    )


def true_origins() -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Of the demo: the middle of each token nearly all in the hole, and of where it comes from.

    Both are (x, y) in 0..1 of their picture.
    """
    scene = demo_scene()
    truth, (down, across) = scene.correspondence[0], scene.grid
    inside = torch.nn.functional.avg_pool2d(scene.hole[:, None], TOKEN).flatten()

    def middle(token: int) -> tuple[float, float]:
        return (token % across + 0.5) / across, (token // across + 0.5) / down

    whole = [token for token in range(len(truth)) if inside[token] > 0.9]
    assert len(whole) >= 4
    return [(middle(token), middle(int(truth[token]))) for token in whole]
